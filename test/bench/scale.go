package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/btcdecoded/holdfast/test/trees"
)

const (
	filesPerDir   = 1000
	sparseFile    = 256 << 20 // of each large file
	sparseData    = 64 << 10  // of data in each
	sparseStretch = 640 << 10 // stretch: a tenth is data
)

// scales measures Holdfast alone on trees of ever more files and ever more data. Memory should not follow.
func (b *bench) scales(ctx context.Context) (*report, error) {
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.tidy(); err != nil {
		return nil, err
	}
	r := b.newReport("scale", []*tool{own})
	r.Tools = nil
	r.Notes = append(r.Notes, "small files have 100 to 1,500 bytes of text, 1,000 in each directory",
		"large files have 256 MiB, of which a tenth is data of text, in 64 KiB runs between holes; sizes are with the holes")
	for _, n := range b.files {
		label := humanize.Comma(int64(n)) + " files"
		if err := b.scaleOf(ctx, own, r, label, func(dir string) error { return smallFiles(ctx, dir, n, b.seed) }); err != nil {
			return nil, err
		}
	}
	for _, n := range b.sparse {
		label := humanize.Bytes(uint64(n)) + " sparse"
		if err := b.scaleOf(ctx, own, r, label, func(dir string) error { return sparseFiles(ctx, dir, n, b.seed) }); err != nil {
			return nil, err
		}
	}
	return r, b.tidy()
}

// scaleOf makes a tree, measures the steps on it and removes it.
func (b *bench) scaleOf(ctx context.Context, own *tool, r *report, label string, fill func(dir string) error) (err error) {
	tree := filepath.Join(b.dir, "scale")
	if err := b.remove(tree); err != nil {
		return err
	}
	b.log("making %s", label)
	if err := os.Mkdir(tree, 0o700); err != nil {
		return err
	}
	if err := fill(tree); err != nil {
		return fmt.Errorf("make %s: %w", label, err)
	}
	rounds := 3
	if b.rounds > 0 {
		rounds = b.rounds
	}
	named := *own
	named.name = label
	r.Tools = append(r.Tools, label)
	s := &stage{bench: b, tools: []*tool{&named}, tree: tree, report: r, restores: true}
	defer func() { err = errors.Join(err, b.remove(tree)) }()
	for round := range rounds {
		if err := s.prepareRound(ctx, stepFull); err != nil {
			return err
		}
		for _, step := range []string{stepFull, stepUnchanged, stepVerify, stepRestore} {
			if err := s.once(ctx, &named, step, round+1); err != nil { // not 0: nothing is saved
				return err
			}
		}
		if round == 0 {
			if diffs := trees.Compare(tree, s.place(&named, 1).out); len(diffs) > 0 {
				return fmt.Errorf("restore of %s differs from the original, %d times: %s", label, len(diffs), diffs[0])
			}
		}
	}
	return nil
}

// smallFiles makes n files, whose content differs in all of them.
func smallFiles(ctx context.Context, dir string, n int, seed uint64) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	random := dice(seed, "small files")
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("%05d", i/filesPerDir))
		if i%filesPerDir == 0 {
			if err := os.Mkdir(d, 0o700); err != nil {
				return err
			}
		}
		s := fmt.Sprintf("%d\n", i) + t.row(random) + t.row(random)
		path := filepath.Join(d, fmt.Sprintf("f%03d.txt", i%filesPerDir))
		if err := os.WriteFile(path, []byte(s[:min(len(s), 100+random.IntN(1400))]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sparseFiles makes large files with total bytes, most of them in holes.
func sparseFiles(ctx context.Context, dir string, total int64, seed uint64) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	random := dice(seed, "sparse files")
	for n := 0; total > 0; n++ {
		size := min(total, sparseFile)
		err := sparse(filepath.Join(dir, fmt.Sprintf("image-%04d.raw", n)), size, func() []byte {
			b := make([]byte, 0, sparseData+1024)
			for len(b) < sparseData {
				b = append(b, t.row(random)...)
			}
			return b[:sparseData]
		})
		if err != nil {
			return err
		}
		total -= size
	}
	return nil
}

func sparse(path string, size int64, data func() []byte) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, epoch())) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at+sparseData <= size; at += sparseStretch {
		if _, err := f.WriteAt(data(), at); err != nil {
			return err
		}
	}
	return nil
}
