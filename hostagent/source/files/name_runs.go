package files

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// nameRuns are the names of a directory that has more of them than are held in memory: sorted runs in a file without a
// name, which are merged as the walk comes along. The file is closed when the last name was read or, in a run that is given
// up, when the garbage is collected; it goes with the process. A crash leaves at worst an empty file that was about to lose
// its name. Where it can't be written, the names stay in memory.
//
// A name in the file: length (u16 BE), kind (u8), bytes.
type nameRuns struct {
	f      *os.File
	ends   []int64 // of each run
	failed bool    // nothing more is written

	queue runQueue
	last  []byte // the name that came last
	err   error  // why nothing more comes
}

// runReader reads a run. Its name is valid until the next is read.
type runReader struct {
	r    *bufio.Reader // nil: the run is in memory
	left int64         // bytes to come from r
	held *node
	at   int // of held.names

	head [nameHead]byte // here, as it would be garbage for each name otherwise
	name []byte
	kind uint8
}

// nameHead is what stands before a name in the file.
const nameHead = 3

// runBuffer is what is read of a run at a time, in bytes.
const runBuffer = 16 << 10

// spill moves the names that are held to a run on disk, after a look at them.
func (l *lister) spill(n *node, fd int) {
	if n.runs == nil {
		n.runs = new(nameRuns)
		var err error
		if n.runs.f, err = nameless(l.temp); err != nil {
			n.runs.failed = true
		}
	}
	if n.runs.failed {
		return
	}
	n.sort()
	l.survey(n, fd)
	if err := n.runs.write(n); err != nil {
		n.runs.failed = true // the run counts as not written
		return
	}
	n.names, n.arena = n.names[:0], n.arena[:0]
}

// nameless makes a file that has no name any more.
func nameless(dir string) (*os.File, error) {
	f, err := scratch.File(dir, "holdfast-names-*")
	if err != nil {
		return nil, fmt.Errorf("make a file for names: %w", err)
	}
	return f, nil
}

func (u *nameRuns) end() int64 {
	if len(u.ends) == 0 {
		return 0
	}
	return u.ends[len(u.ends)-1]
}

// write adds a run.
func (u *nameRuns) write(n *node) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(u.f, u.end()), 64<<10)
	size := int64(0)
	var record []byte
	for _, r := range n.names {
		name := n.name(r)
		record = append(binary.BigEndian.AppendUint16(record[:0], uint16(len(name))), r.kind)
		record = append(record, name...)
		_, _ = w.Write(record) // Flush tells
		size += int64(len(record))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write names: %w", err)
	}
	u.ends = append(u.ends, u.end()+size)
	return nil
}

// merge begins to read the runs, and the names that are held as the last of them.
func (u *nameRuns) merge(n *node) {
	from := int64(0)
	for _, end := range u.ends {
		u.queue = append(u.queue, &runReader{
			r: bufio.NewReaderSize(io.NewSectionReader(u.f, from, end-from), runBuffer), left: end - from,
		})
		from = end
	}
	u.queue = append(u.queue, &runReader{held: n})
	kept := u.queue[:0]
	for _, r := range u.queue {
		switch err := r.advance(); {
		case err == nil:
			kept = append(kept, r)
		case !errors.Is(err, io.EOF) && u.err == nil:
			u.err = err
		}
	}
	u.queue = kept
	heap.Init(&u.queue)
}

// next returns the next names in order, up to a number. With an error some are missing.
func (u *nameRuns) next(most int) (arena []byte, names []nameRef, err error) {
	for len(names) < most && len(u.queue) > 0 && u.err == nil {
		r := u.queue[0]
		if u.last == nil || !bytes.Equal(u.last, r.name) {
			u.last = append(u.last[:0], r.name...)
			names = append(names, nameRef{offset: uint32(len(arena)), length: uint16(len(r.name)), kind: r.kind, decision: take})
			arena = append(arena, r.name...)
		}
		switch err := r.advance(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&u.queue)
		case err != nil:
			u.err = err
		default:
			heap.Fix(&u.queue, 0)
		}
	}
	if u.err != nil {
		return arena, names, fmt.Errorf("read names again: %w", u.err)
	}
	return arena, names, nil
}

func (u *nameRuns) close() {
	u.queue = nil
	if u.f != nil {
		_ = u.f.Close() // nothing of it is needed any more
		u.f = nil
	}
}

// advance reads the next name. Errors: io.EOF at the end.
func (r *runReader) advance() error {
	if r.r == nil {
		if r.at == len(r.held.names) {
			return io.EOF
		}
		x := r.held.names[r.at]
		r.name, r.kind = r.held.name(x), x.kind
		r.at++
		return nil
	}
	if r.left <= 0 {
		return io.EOF
	}
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return tooShort(err)
	}
	n := int(binary.BigEndian.Uint16(r.head[:]))
	if cap(r.name) < n {
		r.name = make([]byte, n)
	}
	r.name, r.kind = r.name[:n], r.head[2]
	r.left -= int64(nameHead + n)
	_, err := io.ReadFull(r.r, r.name)
	return tooShort(err)
}

// tooShort tells an end that comes too early from the end of a run.
func tooShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// runQueue is a heap of runs by their next name.
type runQueue []*runReader

func (q runQueue) Len() int           { return len(q) }
func (q runQueue) Less(i, j int) bool { return bytes.Compare(q[i].name, q[j].name) < 0 }
func (q runQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *runQueue) Push(x any)        { *q = append(*q, x.(*runReader)) }
func (q *runQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
