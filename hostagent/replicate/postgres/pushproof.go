package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// A server that was put back to an older state writes segments once more, under the same names and with other content. What
// it gives is never taken for stored unless that is proven.
var (
	// errOldTimeline says that WAL comes of a timeline that the log has left.
	errOldTimeline = errors.New("the log has gone on to a later timeline: this may be the primary of before a failover, whose archive_command should be switched off")
	// errUnproven says that nothing tells whether a segment is the one that is stored.
	errUnproven = errors.New("the log has gone on beyond it, and nothing tells whether it is the segment that is stored: the server may have been put back to an older state")
)

// otherWAL says that a server has another history than the log.
func otherWAL(s *segmentFile, at postgres.LSN) error {
	return &otherError{filepath.Base(s.path), at}
}

type otherError struct {
	name string
	at   postgres.LSN
}

func (e *otherError) Error() string {
	return fmt.Sprintf("%s: the server has other WAL right before %s than what is stored: it was put back to an older state, or is another one", e.name, e.at)
}

func (*otherError) Hint() string {
	return "if this server is the one to go on with, begin anew with `holdfast wal-push --new-stream`, once, and make a base backup"
}

// sum identifies the content of the segment.
func (s *segmentFile) sum() (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(s.file, 0, int64(s.origin.SegmentSize))); err != nil {
		return "", fmt.Errorf("read %s: %w", filepath.Base(s.path), err)
	}
	return hex.EncodeToString(h.Sum(nil)[:sha256.Size/2]), nil
}

// stored proves that a segment, of which the log has all, is the one that it has: by its content, where that was noted, or
// because the server that gives it has the same WAL as the log where that ends, and so the same before.
func (s *segmentFile) stored(m *mark) error {
	for _, b := range m.Bounds {
		if b.LSN != s.name.Start || b.Sum == "" {
			continue
		}
		sum, err := s.sum()
		if err == nil && sum != b.Sum {
			err = otherWAL(s, s.end())
		}
		return err
	}
	same, err := s.beside(m)
	if err == nil && !same {
		err = fmt.Errorf("store %s: %w", filepath.Base(s.path), errUnproven)
	}
	return err
}

// left is about a segment of a timeline that the log has left: what of it belongs to the log's history is stored, if the
// server is the one that the log comes from.
func (s *segmentFile) left(m *mark) error {
	old := fmt.Errorf("store %s: %w", filepath.Base(s.path), errOldTimeline)
	b, err := os.ReadFile(filepath.Join(filepath.Dir(s.path), postgres.HistoryName(m.Timeline)))
	if err != nil {
		return old // as a server that was not promoted has none
	}
	h, err := postgres.ParseHistory(m.Timeline, b)
	if err != nil {
		return err
	}
	if at, ok := h.SwitchOf(s.name.Timeline); !ok || s.end() > at {
		return old
	}
	same, err := s.beside(m)
	if err == nil && !same {
		err = old
	}
	return err
}

// follows proves that a segment, of which the log has the beginning or nothing, goes on from what the log has; t is the turn to
// its timeline, if it is of another.
func (s *segmentFile) follows(m *mark, t *turn) error {
	c := m.Last.proof()
	switch {
	case t == nil:
		_, err := s.beside(m)
		return err
	case t.after != nil || c == nil || c.From < s.name.Start:
		return nil // the log has more than the timeline that was left, or nothing tells
	}
	return s.compare(s.file, s.name.Start, m) // a timeline begins with a copy of what it left
}

// beside looks whether the server has, in this segment or in the files beside it, what the log has right before its end. It
// is false where it does not have those any more. An error is that of a server with other WAL, or of a file.
func (s *segmentFile) beside(m *mark) (bool, error) {
	c := m.Last.proof()
	if len(m.Bounds) == 1 && m.Bounds[0].LSN == m.Last.LSN {
		return true, nil // a log that has no WAL yet has none that could be another
	}
	if c == nil {
		return false, nil
	}
	start := c.From.SegmentStart(m.Segment)
	file := s.file
	if start != s.name.Start || s.name.Timeline != m.Timeline {
		var err error
		file, err = os.Open(filepath.Join(filepath.Dir(s.path), postgres.SegmentName(m.Timeline, start, m.Segment)))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read WAL: %w", err)
		}
		defer func() { _ = file.Close() }()
	}
	err := s.compare(file, start, m)
	return err == nil, err
}

// compare compares what the log has right before its end with a file of the segment that begins at start.
func (s *segmentFile) compare(file *os.File, start postgres.LSN, m *mark) error {
	c := m.Last.proof()
	b := make([]byte, c.To-c.From)
	if _, err := file.ReadAt(b, int64(c.From-start)); err != nil { //nolint:gosec // within a segment
		return fmt.Errorf("read %s: %w", filepath.Base(file.Name()), err)
	}
	if *checkOf(c.From, b) != *c {
		return otherWAL(s, m.Last.LSN)
	}
	return nil
}
