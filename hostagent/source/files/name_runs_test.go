package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
)

// walked is what a walk meets, a line each.
func walked(t *testing.T, o Options, held int, temp string) []string {
	t.Helper()
	sel, err := newSelection(o)
	if err != nil {
		t.Fatal(err)
	}
	w := newWalker(sel, realSystem(), temp)
	w.held = held
	var out []string
	err = w.run(t.Context(), func(f *found) error {
		out = append(out, fmt.Sprintf("%s %v %v %v %q", strings.TrimPrefix(f.path, o.Roots[0]), f.err, f.also, f.live, f.database))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// largeDirectory makes a directory of more names than a block has, with whatever is told by names.
func largeDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i := range 3 * blockSize {
		write(t, filepath.Join(dir, fmt.Sprintf("f%d", i*7919%10007)), "")
	}
	for _, name := range []string{"a.db", "m.db", "z.db"} {
		write(t, filepath.Join(dir, name), paged.SQLiteHeader)
	}
	for _, name := range []string{"m.db-wal", "z.db-shm", "orphan-journal", "PG_VERSION", "postmaster.pid", "sub/x", "t/y", "f5/z", "global/pg_control"} {
		path := filepath.Join(dir, name)
		_ = os.Remove(filepath.Dir(path)) // f5 may be a file
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, "")
	}
	write(t, filepath.Join(dir, "sub", cacheTag), cacheSignature)
	for i := range 2 * blockSize {
		write(t, filepath.Join(dir, "sub", fmt.Sprint(i)), "")
	}
	return dir
}

// TestNameRuns walks large directories with runs of different lengths on disk, and without a place for them: all walks
// meet the same.
func TestNameRuns(t *testing.T) {
	dir := largeDirectory(t)
	for name, o := range map[string]Options{
		"all":      {},
		"selected": {Patterns: patterns(t, "f1*", "!f12*", "sub/1*", "*.pid"), CacheDirTag: true},
		"none":     {Patterns: patterns(t, "*")},
	} {
		o.Roots = []string{dir}
		want := walked(t, o, 0, "")
		if name == "all" && len(want) < 5*blockSize {
			t.Fatalf("%d names", len(want))
		}
		for _, held := range []int{7, blockSize, 2*blockSize + 1, heldNames} {
			if diff := cmp.Diff(want, walked(t, o, held, t.TempDir())); diff != "" {
				t.Errorf("%s, %d held: %s", name, held, diff)
			}
		}
		if diff := cmp.Diff(want, walked(t, o, 100, filepath.Join(dir, "missing"))); diff != "" {
			t.Errorf("%s, no place for runs: %s", name, diff)
		}
	}
}

// TestNameRunsLost cuts the file of runs: what is missing is a problem, and the rest is met.
func TestNameRunsLost(t *testing.T) {
	n := &node{runs: new(nameRuns)}
	var err error
	if n.runs.f, err = nameless(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for run := range 3 {
		n.names, n.arena = nil, nil
		for i := range 5000 {
			name := fmt.Sprintf("%05d", 3*i+run)
			n.names = append(n.names, nameRef{offset: uint32(len(n.arena)), length: uint16(len(name)), kind: 8, decision: take})
			n.arena = append(n.arena, name...)
		}
		if run < 2 {
			if err := n.runs.write(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n.runs.f.Truncate(n.runs.ends[1] - 1000); err != nil {
		t.Fatal(err)
	}
	n.runs.merge(n)
	met := 0
	for {
		arena, names, err := n.runs.next(blockSize)
		for _, r := range names {
			if got := string(r.of(arena)); got != fmt.Sprintf("%05d", met) {
				t.Fatalf("name %d is %s", met, got)
			}
			met++
		}
		if err != nil {
			break
		}
		if len(names) == 0 {
			t.Fatal("names are missing without an error")
		}
	}
	if met < 10_000 || met >= 15_000 {
		t.Errorf("%d names", met)
	}
	n.runs.close()
}

// TestNameRunsProblem has a walk that can't read its runs again: the directory is a problem.
func TestNameRunsProblem(t *testing.T) {
	at := t.TempDir()
	for i := range 4 * blockSize {
		write(t, filepath.Join(at, fmt.Sprintf("%s-%d", strings.Repeat("long", 20), i)), "")
	}
	sel, err := newSelection(Options{Roots: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWalker(sel, realSystem(), t.TempDir())
	defer w.dirs.close()
	w.held, w.tasks = blockSize, make(chan func()) // nobody takes tasks: the walk does all itself
	n := &node{dir: &dir{parent: &dir{name: filepath.Dir(at)}, name: filepath.Base(at)}, path: at, isRoot: true, done: make(chan struct{})}
	w.list(n)
	if n.err != nil || n.runs == nil {
		t.Fatal(n.err)
	}
	if err := n.runs.f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	w.stack = []frame{{node: n, block: n.first}}
	w.prepare(&w.stack[0])
	met, problems := 0, 0
	err = w.descend(t.Context(), func(f *found) error {
		if f.err == nil {
			met++
		} else if problems++; f.path != at || !errors.Is(f.err, io.ErrUnexpectedEOF) {
			t.Errorf("problem of %s: %v", f.path, f.err)
		}
		return nil
	})
	if err != nil || problems != 1 || met < blockSize || met >= 4*blockSize {
		t.Errorf("%d names, %d problems, %v", met, problems, err)
	}
}
