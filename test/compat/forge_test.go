package compat_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/trees"
)

// forgery is a copy of a repository whose newest snapshot is not what it should be, though signed and sealed.
type forgery struct {
	Case      string
	Directory string
	Findings  []string // by the reader
}

// tolerated are cases that the reader finds and Holdfast takes, with what that means.
func tolerated() map[string]string {
	return map[string]string{
		"packs without live chunks":          "only takes room",
		"parent of another chain":            "the parent is not needed to restore",
		"mark of an unknown kind":            "holds nothing",
		"receipt, another manifest":          "counts for nothing",
		"object of no kind":                  "a note",
		"object that is no pack":             "a note",
		"counts of files":                    "counts are for people",
		"counts of bytes":                    "counts are for people",
		"entry out of all roots":             "roots say where restored trees go",
		"no roots":                           "roots say where restored trees go",
		"file id of another content":         "BUG: the next backup believes it, and takes this content for that of another file",
		"names of one file, contents of two": "BUG: one of them is restored under both names",
	}
}

// testForgeries compares what both programs say to each forgery.
func testForgeries(t *testing.T, p programs) {
	b := newBench(t, p, trees.TempDir(t))
	for seed := range uint64(3) { // of sizes that no chunk is shared between
		write(t, filepath.Join(b.tree(), "file"), 0, random(seed, 100_000))
		b.backup(t)
	}
	b.mustRun(t, "backup", "--quiet", "--files", b.tree(), "--name", "data", "--type", "differential")
	out, code := output(t, b.command("forge.py", b.repository(), filepath.Join(b.dir, "identity"), source+"@4", t.TempDir()))
	if code != 0 {
		t.Fatalf("forge: exit code %d\n%s", code, out)
	}
	for line := range strings.Lines(out) {
		var f forgery
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		t.Run(f.Case, func(t *testing.T) {
			out, code := b.on(f.Directory).run(t, "verify", "--level", "content", "--no-receipts")
			sound := strings.HasPrefix(f.Case, "sound")
			if sound != (len(f.Findings) == 0) {
				t.Errorf("the reader finds %q", f.Findings)
			}
			if _, ok := tolerated()[f.Case]; (code == 0) != (sound || ok) || code != 0 && code != 4 {
				t.Errorf("holdfast ends with exit code %d:\n%s", code, out)
			}
		})
	}
}
