package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// change is what a day changes.
type change struct {
	Files      int   `json:"files"`       // edited
	Bytes      int64 `json:"bytes"`       // of these files after it
	Pages      int64 `json:"pages"`       // of the SQLite database
	Changed    int64 `json:"changed"`     // of these pages
	PageBytes  int64 `json:"page_bytes"`  // that the changed pages have
	LowerBound int64 `json:"lower_bound"` // edited files and changed pages, uncompressed
}

const (
	editedPerMille = 10      // files
	updatedPart    = 0.05    // of the database's pages
	largestEdited  = 1 << 20 // people don't edit larger files by hand
	pageSize       = 4096
)

// day changes the tree as one day of work does: 1 % of the files are edited, 5 % of the SQLite database's pages are changed
// by UPDATE statements. Files keep their inodes. With keep, what is changed is copied first, for [corpus.takeBack].
func (c *corpus) day(ctx context.Context, n int, pages float64, keep bool) (*change, error) {
	random := dice(c.spec.Seed, fmt.Sprintf("day %d", n))
	paths, err := c.edited(random)
	if err != nil {
		return nil, err
	}
	database := filepath.Join("sqlite", "app.db")
	if keep {
		for _, p := range append(paths, database) {
			if err := c.keep(p); err != nil {
				return nil, fmt.Errorf("keep %s: %w", p, err)
			}
		}
	}
	at := epoch().AddDate(0, 0, n)
	done := &change{Files: len(paths)}
	for _, p := range paths {
		size, err := edit(filepath.Join(c.tree(), p), at, random)
		if err != nil {
			return nil, fmt.Errorf("edit %s: %w", p, err)
		}
		done.Bytes += size
	}
	path := filepath.Join(c.tree(), database)
	if err := updateSQLite(ctx, path, pages, random); err != nil {
		return nil, err
	}
	if err := os.Chtimes(path, at, at); err != nil {
		return nil, err
	}
	if keep {
		if done.Pages, done.Changed, err = pagesChanged(filepath.Join(c.undo(), database), path); err != nil {
			return nil, err
		}
		done.PageBytes = done.Changed * pageSize
		done.LowerBound = done.PageBytes + done.Bytes
	}
	return done, nil
}

// edited chooses the files to edit. Databases are left to their servers, and media don't change.
func (c *corpus) edited(random *rand.Rand) ([]string, error) {
	var all []string
	err := filepath.WalkDir(c.tree(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{"sqlite", "postgresql", "random"}, topOf(c.tree(), path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		i, err := d.Info()
		if err == nil && i.Size() > 0 && i.Size() <= largestEdited {
			rel, rerr := filepath.Rel(c.tree(), path)
			all, err = append(all, rel), rerr
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	chosen := all[:min(len(all), max(1, len(all)*editedPerMille/1000))]
	slices.Sort(chosen)
	return chosen, nil
}

// edit puts a line somewhere into a file, writes over a few bytes elsewhere, and sets its mtime.
func edit(path string, at time.Time, random *rand.Rand) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for i := range b[:min(8, len(b))] {
		b[(random.IntN(len(b))+i)%len(b)] = 'a' + byte(random.IntN(26))
	}
	line := fmt.Appendf(nil, "\n// edited %s, %x\n", at.Format(time.DateOnly), random.Uint64())
	b = slices.Insert(b, random.IntN(len(b)+1), line...)
	if err := overwrite(path, b); err != nil {
		return 0, err
	}
	return int64(len(b)), os.Chtimes(path, at, at)
}

// overwrite replaces the content and keeps inode and mode, also of files that are read-only.
func overwrite(path string, b []byte) error {
	i, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, i.Mode().Perm()|0o200); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path, b, i.Mode().Perm()), os.Chmod(path, i.Mode().Perm()))
}

func (c *corpus) keep(rel string) error {
	to := filepath.Join(c.undo(), rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	_, err := copyFile(to, filepath.Join(c.tree(), rel), 1<<62)
	return err
}

// takeBack undoes the change of a day, if there was one.
func (c *corpus) takeBack() error {
	err := filepath.WalkDir(c.undo(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.undo(), path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(c.tree(), rel)
		return errors.Join(overwrite(to, b), os.Chtimes(to, i.ModTime(), i.ModTime()))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take back the change of the day: %w", err)
	}
	return os.RemoveAll(c.undo())
}

// pagesChanged compares two databases page by page.
func pagesChanged(before, after string) (pages, changed int64, err error) {
	a, err := os.Open(before)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = a.Close() }()
	b, err := os.Open(after)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = b.Close() }()
	x, y := make([]byte, pageSize), make([]byte, pageSize)
	for ; ; pages++ {
		_, err := io.ReadFull(b, y)
		if errors.Is(err, io.EOF) {
			return pages, changed, nil
		}
		if err != nil {
			return 0, 0, err
		}
		switch _, err := io.ReadFull(a, x); {
		case errors.Is(err, io.EOF): // the page is new
			changed++
		case err != nil:
			return 0, 0, err
		case !bytes.Equal(x, y):
			changed++
		}
	}
}
