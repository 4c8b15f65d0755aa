package replicate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	markFile = "follow.mark"
	// slotSize is the room for one mark. There are two, which are written in turns: a torn one leaves the other.
	slotSize = 8 << 10
)

// Marks is the file in which a follower notes how far it came: before each record is put, with where the record will be.
// Which of the two holds is told by what the store has. The kernel has what was written when the process is killed. After
// a power cut an older mark may be there: then records that were durable are written once more, in a new epoch.
type Marks struct {
	f    *os.File
	kind string
	last uint64
}

// noted is a mark with what the file must know of it.
type noted struct {
	Number uint64          `json:"number"` // grows with each
	Kind   string          `json:"kind"`   // of the source
	Mark   json.RawMessage `json:"mark"`
}

// OpenMarks opens the marks of a source's state directory for writing. The newest, if there is one of this kind of source,
// goes into the value that into points to, which Marks gives the layout of.
func OpenMarks(dir, kind string, into any) (m *Marks, found bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open mark: %w", err)
	}
	m = &Marks{f: f, kind: kind}
	newest := newestMark(f)
	if newest != nil {
		m.last = newest.Number
		found = newest.Kind == kind && json.Unmarshal(newest.Mark, into) == nil
	}
	return m, found, nil
}

// ReadMark reads the newest mark, as [OpenMarks] does, for who does not write: also beside a follower at work.
func ReadMark(dir, kind string, into any) (found bool, err error) {
	f, err := os.Open(filepath.Join(dir, markFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read mark: %w", err)
	}
	defer func() { _ = f.Close() }()
	newest := newestMark(f)
	return newest != nil && newest.Kind == kind && json.Unmarshal(newest.Mark, into) == nil, nil
}

// newestMark returns nil if there is none. What can't be read counts as lost.
func newestMark(f *os.File) (newest *noted) {
	buf := make([]byte, 2*slotSize)
	n, _ := f.ReadAt(buf, 0)
	for at := 0; at < n; at += slotSize {
		if got := decodeMark(buf[at:min(n, at+slotSize)]); got != nil && (newest == nil || got.Number > newest.Number) {
			newest = got
		}
	}
	return newest
}

const sumSize = 32

// decodeMark returns nil for what is no whole mark.
func decodeMark(slot []byte) *noted {
	line, _, ok := bytes.Cut(slot, []byte("\n"))
	if !ok || len(line) < sumSize+1 {
		return nil
	}
	text, sum := line[:len(line)-sumSize-1], line[len(line)-sumSize:]
	if sumOf(text) != string(sum) {
		return nil
	}
	m := new(noted)
	if json.Unmarshal(text, m) != nil {
		return nil
	}
	return m
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:sumSize/2])
}

// Set notes a mark. With sync it is on the disk when Set returns.
func (m *Marks) Set(mark any, sync bool) error {
	text, err := json.Marshal(mark)
	if err == nil {
		text, err = json.Marshal(noted{Number: m.last + 1, Kind: m.kind, Mark: text})
	}
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	line := append(append(text, ' '), sumOf(text)...)
	line = append(line, '\n')
	if len(line) > slotSize {
		return fmt.Errorf("write mark: %d bytes are too many", len(line))
	}
	// What is left behind the line of a longer one before it does not matter. One that can't be written is written to the same
	// slot again: the other one is whole.
	if _, err := m.f.WriteAt(line, int64((m.last+1)%2)*slotSize); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	m.last++
	if sync {
		return m.Sync()
	}
	return nil
}

// Sync puts on the disk what Set has noted by now. It may be called beside Set.
func (m *Marks) Sync() error {
	if err := m.f.Sync(); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	return nil
}

// Close writes to the disk what Set has noted.
func (m *Marks) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
