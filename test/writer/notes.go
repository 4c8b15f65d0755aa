package writer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Note is one acknowledged commit.
type Note struct {
	N    int64     // of the transaction, from 1
	Time time.Time // when the commit had returned
}

const noteSize = 16

// notebook appends notes to a file. Each is one write, so that a killed process has noted all but its last.
type notebook struct{ f *os.File }

func openNotebook(path string) (*notebook, error) {
	if path == "" {
		return &notebook{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open notes: %w", err)
	}
	return &notebook{f}, nil
}

func (b *notebook) note(n Note) error {
	if b.f == nil {
		return nil
	}
	var line [noteSize]byte
	binary.BigEndian.PutUint64(line[:], uint64(n.N))                //nolint:gosec // positive
	binary.BigEndian.PutUint64(line[8:], uint64(n.Time.UnixNano())) //nolint:gosec // after 1970
	if _, err := b.f.Write(line[:]); err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	return nil
}

func (b *notebook) close() error {
	if b.f == nil {
		return nil
	}
	return b.f.Close()
}

// Notes reads the acknowledged commits, in order. There are none where there is no file.
func Notes(path string) ([]Note, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read notes: %w", err)
	}
	notes := make([]Note, 0, len(b)/noteSize)
	for ; len(b) >= noteSize; b = b[noteSize:] {
		notes = append(notes, Note{
			N:    int64(binary.BigEndian.Uint64(b)),                   //nolint:gosec // as it was written
			Time: time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))), //nolint:gosec // as above
		})
	}
	return notes, nil
}

// Acknowledged is the number of the last commit that was acknowledged by a time; 0: none was.
func Acknowledged(notes []Note, by time.Time) (n int64) {
	for _, note := range notes {
		if !note.Time.After(by) {
			n = max(n, note.N)
		}
	}
	return n
}
