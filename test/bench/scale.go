package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

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
		"large files have 256 MiB, of which a tenth is data of text, in 64 KiB runs between holes; sizes are with the holes",
		"on day 2 every hundredth small file has other content, and every hundredth run of data in large ones")
	for _, n := range b.files {
		label := humanize.Comma(int64(n)) + " files"
		if err := b.scaleOf(ctx, own, r, label, func(dir string) error { return smallFiles(ctx, dir, n, b.seed) }); err != nil {
			return nil, err
		}
	}
	for _, n := range b.flat {
		label := humanize.Comma(int64(n)) + " files in one directory"
		if err := b.scaleOf(ctx, own, r, label, func(dir string) error { return flatFiles(ctx, dir, n, b.seed) }); err != nil {
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
		for _, step := range []string{stepFull, stepUnchanged, stepDay2, stepVerify, stepRestore} {
			if step == stepDay2 {
				if err := b.scaleDay2(ctx, tree, round); err != nil {
					return fmt.Errorf("change %s: %w", label, err)
				}
			}
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

// scaleDay2 changes about a hundredth of a tree.
func (b *bench) scaleDay2(ctx context.Context, tree string, round int) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	random := dice(b.seed, fmt.Sprintf("scale day 2, round %d", round))
	seen := 0
	err = filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		if i.Size() >= sparseStretch {
			return changeRuns(path, i.Size(), random.Int64N(100), func() []byte { return t.bytes(random, sparseData) })
		}
		if seen++; seen%100 != 0 {
			return nil
		}
		return os.WriteFile(path, t.bytes(random, 100+random.IntN(1400)), 0o600)
	})
	if err != nil {
		return err
	}
	unix.Sync()
	return pause(ctx, settle)
}

// changeRuns writes every hundredth run of data of a large file anew, from the given one on.
func changeRuns(path string, size, first int64, data func() []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for at := first * sparseStretch; at+sparseData <= size; at += 100 * sparseStretch {
		if _, err := f.WriteAt(data(), at); err != nil {
			return err
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
		if err := smallFile(filepath.Join(d, fmt.Sprintf("f%03d.txt", i%filesPerDir)), i, t, random); err != nil {
			return err
		}
	}
	return nil
}

// flatFiles makes n files in one directory.
func flatFiles(ctx context.Context, dir string, n int, seed uint64) error {
	t, err := readText(ctx)
	if err != nil {
		return err
	}
	random := dice(seed, "flat files")
	for i := range n {
		if err := smallFile(filepath.Join(dir, fmt.Sprintf("f%07d.txt", i)), i, t, random); err != nil {
			return err
		}
	}
	return nil
}

// smallFile makes one file; its number makes it differ from all others.
func smallFile(path string, number int, t *text, random *rand.Rand) error {
	s := fmt.Sprintf("%d\n", number) + t.row(random) + t.row(random)
	return os.WriteFile(path, []byte(s[:min(len(s), 100+random.IntN(1400))]), 0o600)
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
		err := sparse(filepath.Join(dir, fmt.Sprintf("image-%04d.raw", n)), size, func() []byte { return t.bytes(random, sparseData) })
		if err != nil {
			return err
		}
		total -= size
	}
	return nil
}

// bytes makes n bytes of text.
func (t *text) bytes(random *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+1024)
	for len(b) < n {
		b = append(b, t.row(random)...)
	}
	return b[:n]
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
