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

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mark is what a follower must know after it was killed: how far it came. It is noted before each record is put, with
// where the record will be; which of the two holds is told by what the store has.
type mark struct {
	Number  uint64 `json:"number"` // grows with each
	Path    string `json:"path"`
	Stream  string `json:"stream"`
	Epoch   uint64 `json:"epoch"`   // the highest that this host knows of, or is about to open
	Last    point  `json:"last"`    // durable
	Pending *point `json:"pending"` // on its way
}

// point is a place in the log and the position of the database's log that it stands for.
type point struct {
	Place    snapshot.LogPlace `json:"place"`
	Position tail.Position     `json:"position"`
}

const (
	markFile = "follow.mark"
	// slotSize is the room for one mark. There are two, which are written in turns: a torn one leaves the other.
	slotSize = 8 << 10
)

// marks is the file of marks. The kernel has what was written when the process is killed. After a power cut an older one
// may be there: then records that were durable are written once more, in a new epoch.
type marks struct {
	f    *os.File
	last uint64
}

// openMarks returns the newest mark as well; nil if there is none.
func openMarks(dir string) (*marks, *mark, error) {
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open mark: %w", err)
	}
	m := &marks{f: f}
	buf := make([]byte, 2*slotSize)
	n, _ := f.ReadAt(buf, 0) // what can't be read counts as lost
	var newest *mark
	for at := 0; at < n; at += slotSize {
		if got := decodeMark(buf[at:min(n, at+slotSize)]); got != nil && (newest == nil || got.Number > newest.Number) {
			newest = got
		}
	}
	if newest != nil {
		m.last = newest.Number
	}
	return m, newest, nil
}

const sumSize = 32

// decodeMark returns nil for what is no whole mark.
func decodeMark(slot []byte) *mark {
	line, _, ok := bytes.Cut(slot, []byte("\n"))
	if !ok || len(line) < sumSize+1 {
		return nil
	}
	text, sum := line[:len(line)-sumSize-1], line[len(line)-sumSize:]
	if sumOf(text) != string(sum) {
		return nil
	}
	m := new(mark)
	if json.Unmarshal(text, m) != nil {
		return nil
	}
	return m
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:sumSize/2])
}

// set notes a mark. With sync it is on the disk when set returns.
func (m *marks) set(k mark, sync bool) error {
	m.last++
	k.Number = m.last
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode mark: %w", err)
	}
	line := append(append(text, ' '), sumOf(text)...)
	line = append(line, '\n')
	if len(line) > slotSize {
		return fmt.Errorf("write mark: %d bytes are too many", len(line))
	}
	// What is left behind the line of a longer one before it does not matter.
	if _, err := m.f.WriteAt(line, int64(k.Number%2)*slotSize); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	if sync {
		if err := m.f.Sync(); err != nil {
			return fmt.Errorf("write mark: %w", err)
		}
	}
	return nil
}

func (m *marks) close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
