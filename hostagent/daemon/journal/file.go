package journal

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/durable"
)

// maxLine bounds a line: a job, its events and room.
const maxLine = 1 << 20

// encode makes the line of a record.
func encode(r record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode journal record: %w", err)
	}
	if len(text)+10 > maxLine {
		return nil, fmt.Errorf("encode journal record: %d bytes are too many", len(text))
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)), text), nil
}

var errLine = errors.New("not a line of a journal")

// decode reads a line without its end.
func decode(line []byte) (r record, err error) {
	if len(line) < 10 || line[8] != ' ' {
		return r, errLine
	}
	sum, err := hex.DecodeString(string(line[:8]))
	if err != nil {
		return r, errLine
	}
	text := line[9:]
	want := crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli))
	if !bytes.Equal(sum, []byte{byte(want >> 24), byte(want >> 16), byte(want >> 8), byte(want)}) {
		return r, errLine
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, errLine
	}
	return r, nil
}

// load adds up the records of a file, and returns how many of its bytes are whole lines up to the last good one. What
// stands behind is what a crash has cut off.
func load(path string) (*State, int64, error) {
	s := newState()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open journal: %w", err)
	}
	defer func() { _ = f.Close() }()
	good, err := replay(f, s)
	if err != nil {
		return nil, 0, fmt.Errorf("read journal %s: %w", path, err)
	}
	return s, good, nil
}

// replay applies all records that can be read.
func replay(from io.Reader, s *State) (good int64, err error) {
	lines := bufio.NewReaderSize(from, 64<<10)
	at, bad := int64(0), 0
	for {
		line, err := readLine(lines)
		at += int64(line.length)
		if !line.whole {
			if errors.Is(err, io.EOF) {
				return good, nil
			}
			return good, err
		}
		r, derr := decode(line.text)
		if derr != nil {
			bad++
			continue
		}
		// Damage in the midst of good lines is none that a crash makes.
		s.Damaged += bad
		bad = 0
		s.apply(r)
		good = at
	}
}

type rawLine struct {
	text   []byte // without its end; cut where it is too long
	length int
	whole  bool
}

func readLine(from *bufio.Reader) (rawLine, error) {
	var l rawLine
	for {
		part, err := from.ReadSlice('\n')
		l.length += len(part)
		if len(l.text) <= maxLine {
			l.text = append(l.text, part...)
		}
		switch {
		case err == nil:
			l.text, l.whole = bytes.TrimSuffix(l.text, []byte("\n")), true
			return l, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return l, err
		}
	}
}

// Read returns the state of a journal without taking it, and whether an agent runs that has it. Lines that are written
// meanwhile may or may not be seen.
func Read(dir string) (s *State, alive bool, err error) {
	if s, _, err = load(filepath.Join(dir, fileName)); err != nil {
		return nil, false, err
	}
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return s, false, nil //nolint:nilerr // no agent has ever run here, or it is somebody else's
	}
	defer func() { _ = lock.Close() }()
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return s, errors.Is(err, syscall.EWOULDBLOCK), nil
}

// Unsent is how many events wait to be sent.
func (s *State) Unsent() int { return len(s.Outbox) }

// step is where a test lets the process die.
func (j *Journal) step(name string) error {
	if j.hook == nil {
		return nil
	}
	return j.hook(name)
}

// append makes a record durable and applies it. The caller holds mu. After an error nothing has happened: what may
// stand in the file behind its good part is removed before the next write, and a crash before that leaves a line that
// is whole only if all of it had arrived, which then counts.
func (j *Journal) append(r record) error {
	for i := range r.Events {
		r.Events[i].Number = j.state.next + uint64(i)
		r.Events[i].Time = r.Events[i].Time.UTC()
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	if err := j.clean(); err != nil {
		return err
	}
	if err := j.step("write"); err != nil {
		return err
	}
	j.torn = true
	// 1. The line. A crash leaves none, a part, which is cut off at the next start, or all of it.
	if _, err := j.file.WriteAt(line, j.size); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := j.step("sync"); err != nil {
		return err
	}
	// 2. To the disk. From here on it has happened.
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.torn = false
	j.size += int64(len(line))
	j.state.apply(r)
	if j.size > minRewrite && j.size > 2*j.base {
		// A failed rewrite leaves the old file, which has everything; the next record tries again.
		_ = j.rewrite()
	}
	return nil
}

// clean makes good what an earlier error has left: the name of a new file that may not be durable, and bytes of a failed
// write behind the good part of the file.
func (j *Journal) clean() error {
	if j.loose {
		if err := durable.Sync(j.dir); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
		j.loose = false
	}
	if !j.torn {
		return nil
	}
	if err := j.file.Truncate(j.size); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.torn = false
	return nil
}

// rewrite replaces the file by one that has the state and none of its history. The caller holds mu, or is alone.
func (j *Journal) rewrite() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rewrite journal: %w", err)
		}
	}()
	path := filepath.Join(j.dir, newName)
	// 1. A new file beside the old. A crash here leaves it to be removed by the next start.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := j.step("rewrite"); err != nil {
		return err
	}
	size, err := j.state.write(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := j.step("rename"); err != nil {
		return err
	}
	// 2. The rename. A crash leaves the old or the new, which say the same.
	if err := os.Rename(path, filepath.Join(j.dir, fileName)); err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.size, j.base, j.torn = f, size, size, false
	if err := j.step("renamed"); err != nil {
		return err
	}
	// 3. The name. Until it is durable nothing may be written: a power cut would bring the old file back without it.
	j.loose = true
	return j.clean()
}

// write writes the state as records.
func (s *State) write(to io.Writer) (size int64, err error) {
	w := bufio.NewWriterSize(to, 256<<10)
	emit := func(r record) {
		if err != nil {
			return
		}
		var line []byte
		if line, err = encode(r); err != nil {
			return
		}
		size += int64(len(line))
		_, err = w.Write(line)
	}
	emit(record{Op: opBase, At: s.Heard, Next: s.next})
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(s.Seen)), 1000) {
		piece := make(map[string]Seen, len(chunk))
		for _, id := range chunk {
			piece[id] = s.Seen[id]
		}
		emit(record{Op: opSeen, Seen: piece})
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(s.Refused)), 1000) {
		piece := make(map[string]int64, len(chunk))
		for _, key := range chunk {
			piece[key] = s.Refused[key]
		}
		emit(record{Op: opSeen, Refused: piece})
	}
	for _, source := range slices.Sorted(maps.Keys(s.Last)) {
		emit(record{Op: opLast, Result: s.Last[source]})
	}
	for _, id := range slices.Sorted(maps.Keys(s.Results)) {
		emit(record{Op: opResult, Result: s.Results[id]})
	}
	for i := range s.Open {
		emit(record{Op: opOpen, Entry: &s.Open[i]})
	}
	for _, e := range s.Outbox {
		emit(record{Op: opReport, Events: []Event{e}})
	}
	if err != nil {
		return 0, err
	}
	return size, w.Flush()
}

// takeLock takes the lock of a directory. It waits a moment for one who only looks whether an agent runs.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || try == 20 {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = ErrBusy
			}
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
