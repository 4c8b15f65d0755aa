package postgres

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	heldEntries = 8 << 20 // bytes of entries that are held in memory, before they go to disk
	blockSize   = 32      // entries of a block
	runBuffer   = 32 << 10
)

// entries collects entries in any order and gives them back in the order of trees. What is more than is held in memory goes
// into a file without a name, in sorted runs. A run is blocks of entries as in tree chunks, each with its length before it
// (u32 BE). add may be called by several goroutines.
type entries struct {
	temp string

	mu   sync.Mutex
	held []held // guarded by mu, as all below
	size int
	file *os.File
	ends []int64 // of each run
}

// held is an entry as a tree would write it at the beginning of a chunk.
type held struct {
	path   string
	record []byte
}

// heldOverhead is about what an entry takes in memory beside its bytes.
const heldOverhead = 80

func (s *entries) add(e *snapshot.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	h := held{path: e.Path, record: snapshot.AppendEntry(nil, "", e)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, h)
	if s.size += len(h.path) + len(h.record) + heldOverhead; s.size < heldEntries {
		return nil
	}
	return s.spill()
}

func (s *entries) sort() {
	slices.SortFunc(s.held, func(a, b held) int { return snapshot.ComparePaths(a.path, b.path) })
}

// spill moves what is held to a run.
func (s *entries) spill() error {
	if s.file == nil {
		f, err := nameless(s.temp)
		if err != nil {
			return err
		}
		s.file = f
	}
	s.sort()
	w := &blockWriter{w: bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.end()), runBuffer), at: s.end()}
	for i := range s.held {
		e, err := decode(s.held[i].record)
		if err != nil {
			return err
		}
		if err := w.add(e); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	s.ends = append(s.ends, w.at)
	s.held, s.size = nil, 0
	return nil
}

func (s *entries) end() int64 {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}

// each calls fn with all entries, in the order of trees. Nothing may be added any more.
func (s *entries) each(fn func(*snapshot.Entry) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sort()
	var queue runQueue
	from := int64(0)
	for _, end := range s.ends {
		queue = append(queue, &run{blocks: bufio.NewReaderSize(io.NewSectionReader(s.file, from, end-from), runBuffer)})
		from = end
	}
	queue = append(queue, &run{held: s.held})
	kept := queue[:0]
	for _, r := range queue {
		switch err := r.advance(); {
		case err == nil:
			kept = append(kept, r)
		case !errors.Is(err, io.EOF):
			return err
		}
	}
	queue = kept
	heap.Init(&queue)
	last := ""
	for len(queue) > 0 {
		r := queue[0]
		if r.entry.Path == last {
			return fmt.Errorf("%s came twice", last)
		}
		last = r.entry.Path
		if err := fn(r.entry); err != nil {
			return err
		}
		switch err := r.advance(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&queue)
		case err != nil:
			return err
		default:
			heap.Fix(&queue, 0)
		}
	}
	return nil
}

func (s *entries) close() {
	if s.file != nil {
		_ = s.file.Close() // it has no name: nothing is left of it
	}
}

// nameless makes a file that has no name any more.
func nameless(dir string) (*os.File, error) {
	f, err := scratch.File(dir, "holdfast-entries-*")
	if err != nil {
		return nil, fmt.Errorf("make a file for lists: %w", err)
	}
	return f, nil
}

func decode(record []byte) (entry *snapshot.Entry, err error) {
	err = snapshot.DecodeTree(record, func(e *snapshot.Entry) error { entry = e; return nil })
	return entry, err
}

// blockWriter writes entries, in order, as blocks.
type blockWriter struct {
	w     io.Writer
	at    int64 // where the next block will begin
	block []byte
	count int
	last  string
	begun func(path string, at int64) // told of each block's first entry; nil: nobody
}

func (w *blockWriter) add(e *snapshot.Entry) error {
	if w.count == 0 {
		w.last = ""
		if w.begun != nil {
			w.begun(e.Path, w.at)
		}
	}
	w.block = snapshot.AppendEntry(w.block, w.last, e)
	w.last = e.Path
	if w.count++; w.count < blockSize && len(w.block) < snapshot.MaxChunk/2 {
		return nil
	}
	return w.cut()
}

// cut ends a block.
func (w *blockWriter) cut() error {
	if w.count == 0 {
		return nil
	}
	_, err := w.w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(w.block))))
	if err == nil {
		_, err = w.w.Write(w.block)
	}
	if err != nil {
		return fmt.Errorf("write lists of files: %w", err)
	}
	w.at += 4 + int64(len(w.block))
	w.block, w.count = w.block[:0], 0
	return nil
}

// flush ends the last block and what is buffered.
func (w *blockWriter) flush() error {
	if err := w.cut(); err != nil {
		return err
	}
	if b, ok := w.w.(*bufio.Writer); ok {
		if err := b.Flush(); err != nil {
			return fmt.Errorf("write lists of files: %w", err)
		}
	}
	return nil
}

// readBlock reads the next block's entries. Errors: io.EOF at the end.
func readBlock(r io.Reader) ([]*snapshot.Entry, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	block := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r, block); err != nil {
		return nil, fmt.Errorf("read lists of files: %w", err)
	}
	var out []*snapshot.Entry
	err := snapshot.DecodeTree(block, func(e *snapshot.Entry) error { out = append(out, e); return nil })
	return out, err
}

// run is one of those that are merged: blocks in the file, or what is held.
type run struct {
	blocks *bufio.Reader // nil: held
	block  []*snapshot.Entry
	held   []held
	entry  *snapshot.Entry
}

// advance goes on to the next entry. Errors: io.EOF at the end.
func (r *run) advance() (err error) {
	if r.blocks == nil {
		if len(r.held) == 0 {
			return io.EOF
		}
		r.entry, err = decode(r.held[0].record)
		r.held = r.held[1:]
		return err
	}
	if len(r.block) == 0 {
		if r.block, err = readBlock(r.blocks); err != nil {
			return err
		}
	}
	r.entry, r.block = r.block[0], r.block[1:]
	return nil
}

// runQueue is a heap of runs by their next entry.
type runQueue []*run

func (q runQueue) Len() int { return len(q) }
func (q runQueue) Less(i, j int) bool {
	return snapshot.ComparePaths(q[i].entry.Path, q[j].entry.Path) < 0
}
func (q runQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *runQueue) Push(x any)   { *q = append(*q, x.(*run)) }
func (q *runQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
