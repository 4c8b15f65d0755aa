package repository

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// journal notes the packs that a run has stored, so that the next run uses them again if this one dies. A line per
// pack, with a sum; a torn or damaged line counts as not written, and so do those after it. It is not synced: what is lost after a power cut is stored again.
type journal struct {
	f *os.File
}

// maxJournalLine bounds a line: the index of a pack of a million chunks, in base64.
const maxJournalLine = 64 << 20

// journalHead is the first line: what the packs belong to.
type journalHead struct {
	Chain string    `json:"chain"`
	Next  uint64    `json:"next"` // first pack number of the run
	Begun time.Time `json:"begun"`
}

type journalPack struct {
	Number uint64 `json:"number"`
	ID     string `json:"id"`
	Salt   []byte `json:"salt"`
	Size   uint64 `json:"size"`
	Index  []byte `json:"index"`
}

// readJournal calls fn with what an interrupted run of the same chain had stored, pack by pack: together their indexes
// may be large. Where there is no such journal it calls nothing. It returns the error of fn, but for errStop.
func readJournal(s *state, chain string, next uint64, fn func(journalHead, writtenPack) error) error {
	f, err := os.Open(s.path(journalFile))
	if err != nil {
		return nil //nolint:nilerr // it counts as lost
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxJournalLine)
	var head journalHead
	if !lines.Scan() || !openLine(lines.Bytes(), &head) || head.Chain != chain || head.Next != next {
		return nil
	}
	for seen := new(bitset); lines.Scan(); {
		p, err := parseJournalPack(lines.Bytes())
		// Numbers below next: packs on their way, or for a file on its way, when an unfinished snapshot was committed.
		if err != nil || p.Number == 0 || p.Number > snapshot.MaxPackNumber || seen.has(p.Number) {
			break
		}
		seen.set(p.Number)
		if err := fn(head, p); err != nil {
			return ignoreStop(err)
		}
	}
	return nil
}

func parseJournalPack(line []byte) (writtenPack, error) {
	var j journalPack
	if !openLine(line, &j) {
		return writtenPack{}, errors.New("not a line of a journal")
	}
	id, err := layout.ParseHash(j.ID)
	if err != nil {
		return writtenPack{}, err
	}
	index, err := snapshot.DecodeIndex(j.Index)
	if err != nil {
		return writtenPack{}, err
	}
	if len(j.Salt) != 32 {
		return writtenPack{}, fmt.Errorf("salt of %d bytes", len(j.Salt))
	}
	return writtenPack{
		PackInfo: snapshot.PackInfo{Number: j.Number, ID: id, Salt: [32]byte(j.Salt), Size: j.Size},
		index:    index,
	}, nil
}

// thinJournal begins a journal that holds those packs of the last one that keep wants. They are read one by one.
func thinJournal(s *state, head journalHead, keep func(number uint64) bool) (*journal, error) {
	old, err := os.Open(s.path(journalFile))
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = old.Close() }()
	return beginJournal(s, head, func(j *journal) error {
		lines := bufio.NewScanner(old)
		lines.Buffer(nil, maxJournalLine)
		for first := true; lines.Scan(); first = false {
			if first {
				continue
			}
			if p, err := parseJournalPack(lines.Bytes()); err != nil || !keep(p.Number) {
				continue
			}
			if _, err := j.f.Write(append(lines.Bytes(), '\n')); err != nil {
				return fmt.Errorf("write journal: %w", err)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		return nil
	})
}

// beginJournal writes a journal beside the last one, with what fill adds, and puts it in its place.
func beginJournal(s *state, head journalHead, fill func(*journal) error) (*journal, error) {
	f, err := os.OpenFile(s.path(journalFile+".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	j := &journal{f: f}
	if err = j.line(head); err == nil {
		err = fill(j)
	}
	if err == nil {
		if err = os.Rename(f.Name(), s.path(journalFile)); err != nil {
			err = fmt.Errorf("write journal: %w", err)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) pack(p writtenPack) error {
	return j.line(journalPack{Number: p.Number, ID: p.ID.String(), Salt: p.Salt[:], Size: p.Size, Index: snapshot.EncodeIndex(p.index)})
}

func (j *journal) line(v any) error {
	b, err := sealedLine(v)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (j *journal) close() error { return j.f.Close() }
