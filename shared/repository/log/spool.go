package log

import (
	"fmt"
	"os"
)

// maxSpool is how many bytes of records wait for Join at most; what comes before stays in its pieces.
const maxSpool = 64 << 20

// spool has the records of pieces that were put and not joined yet, so that joining reads nothing from the store.
type spool struct {
	f    *os.File // without a name
	size int64
	all  []spooled
}

// spooled is one record in the spool.
type spooled struct {
	sequence uint64
	at       int64
	size     int
	record   string // its hash, hex
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "log-*")
	if err != nil {
		return nil, fmt.Errorf("make a spool for joining: %w", err)
	}
	// Without a name it goes with the process, however that ends.
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make a spool for joining: %w", err)
	}
	return &spool{f: f}, nil
}

func (s *spool) add(p *Prepared) error {
	if s.size+int64(p.size) > maxSpool {
		s.all, s.size = nil, 0
	}
	if _, err := s.f.WriteAt(p.frame, s.size); err != nil {
		return fmt.Errorf("keep a record for joining: %w", err)
	}
	s.all = append(s.all, spooled{p.place.Sequence, s.size, p.size, p.place.Record})
	s.size += int64(p.size)
	return nil
}

// read returns the records of part, which follow each other.
func (s *spool) read(part []spooled) ([]byte, error) {
	size := 0
	for _, r := range part {
		size += r.size
	}
	b := make([]byte, size)
	if _, err := s.f.ReadAt(b, part[0].at); err != nil {
		return nil, fmt.Errorf("read a record for joining: %w", err)
	}
	return b, nil
}

// drop forgets the first n records. When nothing is left the file begins anew.
func (s *spool) drop(n int) {
	s.all = append(s.all[:0], s.all[n:]...)
	if len(s.all) == 0 {
		s.size = 0
		_ = s.f.Truncate(0)
	}
}

func (s *spool) close() error { return s.f.Close() }
