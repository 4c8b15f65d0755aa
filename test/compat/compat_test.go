package compat_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/trees"
)

// TestCompat sets the reader against Holdfast.
func TestCompat(t *testing.T) {
	p := setUp(t)
	t.Run("lint", func(t *testing.T) {
		p.script(t, "-m", "ruff", "check", "--no-cache", ".")
		p.script(t, "-m", "ruff", "format", "--check", "--no-cache", ".")
	})
	t.Run("vectors", func(t *testing.T) { p.script(t, "-m", "reader.vectors", "../../docs/format.md") })
	t.Run("golden", func(t *testing.T) { testGolden(t, p) })
	t.Run("restore", func(t *testing.T) { testRestore(t, p) })
	t.Run("decoders", func(t *testing.T) { testDecoders(t, p) })
	t.Run("forgeries", func(t *testing.T) { testForgeries(t, p) })
	t.Run("scopes", func(t *testing.T) { testScopes(t, p) })
	t.Run("logs", func(t *testing.T) { testLogs(t, p) })
	t.Run("WAL", func(t *testing.T) { testWAL(t, p) })
	t.Run("damage", func(t *testing.T) { testDamage(t, p) })
}

// testRestore backs up a tree twice and lets the reader restore both snapshots.
func testRestore(t *testing.T, p programs) {
	b := newBench(t, p, trees.TempDir(t))
	fill(t, b, 1)
	b.backup(t)
	first, err := trees.Read(b.tree())
	if err != nil {
		t.Fatal(err)
	}
	change(t, b, 2)
	b.backup(t)
	second, err := trees.Read(b.tree())
	if err != nil {
		t.Fatal(err)
	}
	// A full that commits what it has, again and again; the sizes of files decide how often.
	b.mustRun(t, "backup", "--quiet", "--files", b.tree(), "--name", "data", "--type", "full", "--checkpoint", "1ns")
	if out, code := b.read(t, "restore", source+"@3", filepath.Join(b.dir, "unfinished")); code != 0 || out != "" {
		t.Errorf("restore an unfinished snapshot: exit code %d:\n%s", code, out)
	}
	if out, code := b.run(t, "snapshots", "--json", "--last", "1"); code != 0 || strings.Contains(out, "unfinished") || strings.Contains(out, source+"@3\"") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if out, code := b.read(t, "verify"); code != 0 || out != "" {
		t.Errorf("the reader finds, with exit code %d:\n%s", code, out)
	}
	for snapshot, want := range map[string][]trees.Node{source + "@1": first, source + "@2": second} {
		target := filepath.Join(b.dir, filepath.Base(snapshot))
		if out, code := b.read(t, "restore", snapshot, target); code != 0 || out != "" {
			t.Fatalf("restore %s: exit code %d:\n%s", snapshot, code, out)
		}
		got, err := trees.Read(target)
		if err != nil {
			t.Fatal(err)
		}
		for _, difference := range trees.CompareNodes(want, got) {
			t.Errorf("%s: %s", snapshot, difference)
		}
	}
}

// fill makes the first state of the tree: random ones, files of more than one map, with holes and not, and a database.
func fill(t *testing.T, b bench, seed uint64) {
	t.Helper()
	for _, name := range []string{"stays", "goes"} {
		dir := filepath.Join(b.tree(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		trees.Make(t, dir, seed, trees.Options{})
		seed++
	}
	write(t, filepath.Join(b.tree(), "large"), 0, random(seed, 20<<20+12345))
	sparse := filepath.Join(b.tree(), "sparse")
	write(t, sparse, 3<<20, random(seed, 100_000))
	write(t, sparse, 25<<20, []byte("after a hole that a map's end cuts"))
	if err := os.Truncate(sparse, 40<<20); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.tree(), "zeros"), 0, make([]byte, 9<<20))
	b.script(t, "database.py", filepath.Join(b.tree(), "database"), "50000", "1")
}

// change makes the second state: pages of the database, parts of the large files, a subtree less and one more.
func change(t *testing.T, b bench, seed uint64) {
	t.Helper()
	b.script(t, "database.py", filepath.Join(b.tree(), "database"), "50000", "2")
	write(t, filepath.Join(b.tree(), "large"), 9<<20, []byte("changed"))
	write(t, filepath.Join(b.tree(), "sparse"), 33<<20, bytes.Repeat([]byte("more"), 10_000))
	if err := trees.Remove(filepath.Join(b.tree(), "goes")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(b.tree(), "zeros"), filepath.Join(b.tree(), "renamed")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(b.tree(), "comes")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	trees.Make(t, dir, seed+100, trees.Options{})
}

// write puts data at an offset of a file, which is made if there is none.
func write(t *testing.T, name string, offset int64, data []byte) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// random returns bytes that do not compress.
func random(seed uint64, size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = source.Read(data)
	return data
}
