package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/test/trees"
)

// contents maps each file to its content's hash, permissions and mtime.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, n := range essential(nodes) {
		all[n.Path] = fmt.Sprintf("%o %x %d %q", n.Mode, n.Hash[:8], n.MTime.Sec, n.Target)
	}
	return all
}

// origin is a tree to gather from.
func origin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 200 {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i%20))
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(d, fmt.Sprintf("f%d.go", i))
		if err := os.WriteFile(path, bytes.Repeat([]byte(fmt.Sprintf("line %d\n", i)), 100), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, epoch(), epoch()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d1/f1.go", filepath.Join(dir, "d0", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCorpusIsDeterministic(t *testing.T) {
	from := origin(t)
	make := func() map[string]string {
		dir := t.TempDir()
		if err := makeLogs(dir, 300_000, dice(1, "log")); err != nil {
			t.Fatal(err)
		}
		if err := makeRandom(dir, 300_000, dice(1, "random")); err != nil {
			t.Fatal(err)
		}
		if _, err := gather(filepath.Join(dir, "go"), from, 60_000, dice(1, "go")); err != nil {
			t.Fatal(err)
		}
		return contents(t, dir)
	}
	first := make()
	if diff := cmp.Diff(first, make()); diff != "" {
		t.Errorf("equal seeds, but (-first +second):\n%s", diff)
	}
	if len(first) < 60 {
		t.Errorf("only %d entries", len(first))
	}
}

func TestDatabaseTextIsDeterministic(t *testing.T) {
	text, err := readText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hash := func(seed uint64) [32]byte {
		h := sha256.New()
		if err := text.sql(h, 200_000, dice(seed, "sqlite")); err != nil {
			t.Fatal(err)
		}
		return [32]byte(h.Sum(nil))
	}
	first := hash(1)
	if hash(1) != first {
		t.Error("equal seeds give different databases")
	}
	if hash(2) == first {
		t.Error("different seeds give the same database")
	}
}

func TestGatherKeepsToTheQuota(t *testing.T) {
	dir := t.TempDir()
	left, err := gather(dir, origin(t), 50_000, dice(1, "go"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := bytesBelow(dir)
	if err != nil {
		t.Fatal(err)
	}
	if left != 0 || n < 50_000 || n > 52_000 {
		t.Errorf("gathered %d bytes of 50,000, %d left", n, left)
	}
}

// The change of a day can be taken back, and is the same each time.
func TestDayAndBack(t *testing.T) {
	c := &corpus{dir: t.TempDir(), spec: corpusSpec{Seed: 1}, log: t.Logf}
	if _, err := gather(filepath.Join(c.tree(), "go"), origin(t), 1e6, dice(1, "go")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(c.tree(), "random"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeRandom(filepath.Join(c.tree(), "random"), 1000, dice(1, "random")); err != nil {
		t.Fatal(err)
	}
	before := contents(t, c.tree())
	var after [2]map[string]string
	for i := range after {
		random := dice(1, "day 1")
		paths, err := c.edited(random)
		if err != nil {
			t.Fatal(err)
		}
		if len(paths) != 2 || slices.ContainsFunc(paths, func(p string) bool { return topOf(".", p) == "random" }) {
			t.Fatalf("edits %q, want 1 %% of 200 files, none of them random", paths)
		}
		for _, p := range paths {
			if err := c.keep(p); err != nil {
				t.Fatal(err)
			}
			if _, err := edit(filepath.Join(c.tree(), p), epoch().AddDate(0, 0, 1), random); err != nil {
				t.Fatal(err)
			}
		}
		after[i] = contents(t, c.tree())
		if cmp.Equal(before, after[i]) {
			t.Error("nothing changed")
		}
		if err := c.takeBack(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, contents(t, c.tree())); diff != "" {
			t.Errorf("not taken back (-before +after):\n%s", diff)
		}
	}
	if diff := cmp.Diff(after[0], after[1]); diff != "" {
		t.Errorf("equal seeds, but (-first +second):\n%s", diff)
	}
	if _, err := os.Stat(c.undo()); !os.IsNotExist(err) {
		t.Errorf("undo is still there: %v", err)
	}
}

func TestPagesChanged(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	old := make([]byte, 3*pageSize)
	next := append(slices.Clone(old), make([]byte, pageSize)...)
	next[pageSize+1] = 1
	if err := os.WriteFile(a, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b, next, 0o600); err != nil {
		t.Fatal(err)
	}
	pages, changed, err := pagesChanged(a, b)
	if err != nil || pages != 4 || changed != 2 {
		t.Errorf("%d of %d pages changed, want 2 of 4; %v", changed, pages, err)
	}
}

func TestSparseFilesAreSparse(t *testing.T) {
	dir := t.TempDir()
	if err := sparseFiles(t.Context(), dir, 8<<20, 1); err != nil {
		t.Fatal(err)
	}
	nodes, err := trees.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := nodes[1]
	if n.Type() != uint32(0o100000) || n.Size != 8<<20 || len(n.Segments) < 2 {
		t.Errorf("size %d in %d segments, want 8 MiB with holes", n.Size, len(n.Segments))
	}
}

func TestSmallFiles(t *testing.T) {
	dir := t.TempDir()
	if err := smallFiles(t.Context(), dir, 1500, 1); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil || n != 1500 {
		t.Errorf("%d files, want 1,500; %v", n, err)
	}
}
