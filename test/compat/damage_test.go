package compat_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/trees"
)

// damage is what happens to a repository, and what a verification must name then.
type damage struct {
	name string
	do   func(t *testing.T, o objects) string // returns what must be named
	code int                                  // exit code of holdfast
}

func damages() []damage {
	return []damage{
		{"pack, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "/packs/", 0, 0.5) }, 4},
		{"pack, bit of the salt flipped", func(t *testing.T, o objects) string { return o.flip(t, "/packs/", 0, 0) }, 4},
		{"pack, bit at the end flipped", func(t *testing.T, o objects) string { return o.flip(t, "/packs/", 1, 1) }, 4},
		{"pack, truncated", func(t *testing.T, o objects) string { return o.truncate(t, "/packs/", 0) }, 4},
		{"pack, removed", func(t *testing.T, o objects) string { return o.remove(t, "/packs/", 1) }, 4},
		{"packs, swapped", func(t *testing.T, o objects) string { return o.swap(t, "/packs/") }, 4},
		{"list, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "/lists/", 0, 0.5) }, 4},
		{"list, truncated", func(t *testing.T, o objects) string { return o.truncate(t, "/lists/", 1) }, 4},
		{"list, removed", func(t *testing.T, o objects) string { return o.remove(t, "/lists/", 0) }, 4},
		{"lists, swapped", func(t *testing.T, o objects) string { return o.swap(t, "/lists/") }, 4},
		{"manifest, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "/snapshots/", 1, 0.5) }, 4},
		{"manifest, bit of the signature flipped", func(t *testing.T, o objects) string { return o.flip(t, "/snapshots/", 1, 0.98) }, 4},
		{"manifest, truncated", func(t *testing.T, o objects) string { return o.truncate(t, "/snapshots/", 0) }, 4},
		{"manifest, removed", func(t *testing.T, o objects) string { return o.remove(t, "/snapshots/", 0) }, 4},
		{"manifests, swapped", func(t *testing.T, o objects) string { return o.swap(t, "/snapshots/") }, 4},
		{"key, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "/keys/", 0, 0.5) }, 4},
		{"access, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "/access/", 0, 0.5) }, 4},
		{"access, removed", func(t *testing.T, o objects) string { o.remove(t, "/access/", 0); return "access" }, 4},
		{"repository document, bit flipped", func(t *testing.T, o objects) string { return o.flip(t, "repository.json", 0, 0.5) }, 4},
	}
}

// testDamage does each damage to a copy of one repository. Both programs must find and name it.
func testDamage(t *testing.T, p programs) {
	good := newBench(t, p, trees.TempDir(t))
	write(t, filepath.Join(good.tree(), "file"), 0, random(1, 200_000))
	good.backup(t)
	write(t, filepath.Join(good.tree(), "file"), 250_000, random(2, 100_000))
	good.backup(t)
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			b := bench{programs: p, dir: t.TempDir()}
			if err := os.CopyFS(b.dir, os.DirFS(good.dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(b.dir, "identity"), 0o600); err != nil { // CopyFS adds bits
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(b.dir, "state")); err != nil { // nothing must depend on what it remembers
				t.Fatal(err)
			}
			named := d.do(t, objects{b.repository()})
			out, code := b.read(t, "verify")
			if code != 1 || !strings.Contains(out, named) {
				t.Errorf("the reader does not name %s, but ends with exit code %d and\n%s", named, code, out)
			}
			out, code = b.run(t, "verify", "--level", "content", "--no-receipts")
			if code != d.code || !strings.Contains(out, named) {
				t.Errorf("holdfast does not name %s, but ends with exit code %d and\n%s", named, code, out)
			}
		})
	}
}

// objects are those of a repository's directory; the functions return the key of what they damaged.
type objects struct{ dir string }

// keys returns the keys with a part, sorted.
func (o objects) keys(t *testing.T, part string) []string {
	t.Helper()
	var keys []string
	err := filepath.WalkDir(o.dir, func(name string, entry os.DirEntry, err error) error {
		if key := strings.TrimPrefix(name, o.dir+"/"); err == nil && !entry.IsDir() && strings.Contains(key, part) {
			keys = append(keys, key)
		}
		return err
	})
	if err != nil || len(keys) == 0 {
		t.Fatalf("no objects with %s: %v", part, err)
	}
	return keys
}

func (o objects) read(t *testing.T, key string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, key))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (o objects) write(t *testing.T, key string, data []byte) {
	t.Helper()
	name := filepath.Join(o.dir, key)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip inverts a bit of the object's part (0: near its beginning, 1: its last byte).
func (o objects) flip(t *testing.T, kind string, number int, part float64) string {
	t.Helper()
	key := o.keys(t, kind)[number]
	data := o.read(t, key)
	data[max(10, int(part*float64(len(data)-1)))] ^= 1
	o.write(t, key, data)
	return key
}

func (o objects) truncate(t *testing.T, kind string, number int) string {
	t.Helper()
	key := o.keys(t, kind)[number]
	data := o.read(t, key)
	o.write(t, key, data[:len(data)-1])
	return key
}

func (o objects) remove(t *testing.T, kind string, number int) string {
	t.Helper()
	key := o.keys(t, kind)[number]
	if err := os.Remove(filepath.Join(o.dir, key)); err != nil {
		t.Fatal(err)
	}
	return key
}

// swap gives two objects of a kind each other's bytes.
func (o objects) swap(t *testing.T, kind string) string {
	t.Helper()
	keys := o.keys(t, kind)
	slices.Sort(keys)
	first, second := o.read(t, keys[0]), o.read(t, keys[1])
	if bytes.Equal(first, second) {
		t.Fatalf("%s and %s are the same", keys[0], keys[1])
	}
	o.write(t, keys[0], second)
	o.write(t, keys[1], first)
	return keys[0]
}
