package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// parent finds the parent's files by their paths, in any order: a server sends files as its directories have them. The
// entries are in a buffer, or in a file without a name when there are very many; every 32nd path is in memory.
type parent struct {
	list   spool
	first  []blockStart
	cached int // number of the block that was read last; -1: none
	block  []*snapshot.Entry
}

type blockStart struct {
	path string
	at   int64
}

// spool keeps bytes in memory, and more than a few MiB in a file without a name.
type spool struct {
	temp string
	buf  bytes.Buffer // as long as there is no file
	file *os.File
	size int64
}

func (s *spool) Write(b []byte) (int, error) {
	if s.file == nil && s.buf.Len()+len(b) > heldEntries {
		f, err := nameless(s.temp)
		if err != nil {
			return 0, err
		}
		s.file = f
		if _, err := f.Write(s.buf.Bytes()); err != nil {
			return 0, err
		}
		s.buf = bytes.Buffer{}
	}
	s.size += int64(len(b))
	if s.file != nil {
		return s.file.Write(b)
	}
	return s.buf.Write(b)
}

// from reads what was written, from an offset on.
func (s *spool) from(at int64) io.Reader {
	var r io.ReaderAt = bytes.NewReader(s.buf.Bytes())
	if s.file != nil {
		r = s.file
	}
	return io.NewSectionReader(r, at, s.size-at)
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// readParent takes in the parent's files. A parent that can't be read only costs that what is missing is stored again.
func readParent(ctx context.Context, session Session, temp string) (*parent, error) {
	p := &parent{list: spool{temp: temp}, cached: -1}
	w := &blockWriter{w: &p.list, begun: func(path string, at int64) { p.first = append(p.first, blockStart{path, at}) }}
	for e, err := range session.Parent(ctx) {
		if err != nil {
			if ctx.Err() != nil {
				return nil, errors.Join(ctx.Err(), p.close())
			}
			break
		}
		if e.Type != snapshot.File || e.Unreadable {
			continue
		}
		if err := w.add(e); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	if err := w.flush(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// find returns the parent's entry of a file; nil: it has none.
func (p *parent) find(path string) (*snapshot.Entry, error) {
	n := sort.Search(len(p.first), func(i int) bool { return snapshot.ComparePaths(p.first[i].path, path) > 0 }) - 1
	if n < 0 {
		return nil, nil
	}
	if n != p.cached {
		block, err := readBlock(p.list.from(p.first[n].at))
		if err != nil {
			return nil, fmt.Errorf("read the parent's list again: %w", err)
		}
		p.cached, p.block = n, block
	}
	for _, e := range p.block {
		if e.Path == path {
			return e, nil
		}
	}
	return nil, nil
}

func (p *parent) close() error { return p.list.close() }
