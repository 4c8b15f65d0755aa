package restorer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// fresh is a snapshot with something of everything in directories that a restore to a new place makes.
func fresh() *fake {
	f := newFake("/r")
	long := f.file("/r/d/long", strings.Repeat("0123456789abcdef", 16<<10))
	hollow := f.file("/r/d/hollow", strings.Repeat("x", 100<<10))
	hollow.Extents = append(hollow.Extents, snapshot.Extent{Hole: true, Length: 100 << 10})
	hollow.Size += 100 << 10
	secret := f.file("/r/d/secret", "only for its owner")
	secret.Mode = 0o400
	first, second := f.file("/r/d/one", "a file of two names"), f.file("/r/e/two", "a file of two names")
	first.Linked, second.Linked, second.Inode = true, true, first.Inode
	f.add(
		f.dir("/r"), f.file("/r/top", "in the place itself"), f.dir("/r/d"), long, hollow, secret, f.file("/r/d/none", ""),
		f.symlink("/r/d/symlink", "elsewhere"), first, f.dir("/r/e"), second, f.file("/r/e/small", "small"),
	)
	return f
}

// files are the regular files of a snapshot.
func (f *fake) files() []*snapshot.Entry {
	var list []*snapshot.Entry
	for _, e := range f.entries {
		if e.Type == snapshot.File {
			list = append(list, e)
		}
	}
	return list
}

// bytes are the content of a file.
func (f *fake) bytes(e *snapshot.Entry) string {
	var b strings.Builder
	for _, x := range e.Extents {
		if x.Hole {
			b.Write(make([]byte, x.Length))
		} else {
			b.Write(f.chunks[x.Ref.ID][x.Offset:][:x.Length])
		}
	}
	return b.String()
}

// whole fails the test unless all files of a snapshot are in place.
func (f *fake) whole(t testing.TB, target string) {
	t.Helper()
	for _, e := range f.files() {
		path := filepath.Join(target, strings.TrimPrefix(e.Path, "/r"))
		wantContent(t, path, f.bytes(e))
		if st, err := stat(path); err != nil || !sameTime(&st, e.MTime) || st.Mode&0o7777 != e.Mode {
			t.Errorf("%s: mode %o, time %v, %v", path, st.Mode, st.Mtim, err)
		}
	}
	noTemps(t, target)
}

// TestIncompleteIsNeverTakenForComplete kills a restore to a new place in another process before each of its steps. What
// has its name has either all of its content or not the time of the snapshot, by which the next restore would know it; the
// place is marked; nobody else may enter a directory with such a file; and the next restore ends the work.
func TestIncompleteIsNeverTakenForComplete(t *testing.T) {
	f := fresh()
	if target := os.Getenv("HOLDFAST_TEST_FRESH_TARGET"); target != "" {
		step, err := strconv.ParseInt(os.Getenv("HOLDFAST_TEST_FRESH_STEP"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		var count atomic.Int64
		restore(t, f, Options{Target: target, fault: func(string, string) error {
			if count.Add(1) == step {
				return unix.Kill(unix.Getpid(), unix.SIGKILL)
			}
			return nil
		}})
		return
	}
	incomplete := 0
	for step := 1; ; step++ {
		target := filepath.Join(t.TempDir(), "new")
		cmd := exec.Command(os.Args[0], "-test.run=^TestIncompleteIsNeverTakenForComplete$")
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_FRESH_TARGET="+target, fmt.Sprint("HOLDFAST_TEST_FRESH_STEP=", step))
		out, err := cmd.CombinedOutput()
		if err == nil {
			f.whole(t, target)
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(exit.String(), "killed") {
			t.Fatalf("step %d: the restore was not killed: %v\n%s", step, err, out)
		}
		incomplete += f.partial(t, target)
		result := restore(t, f, Options{Target: target})
		perfect(t, result)
		f.whole(t, target)
	}
	if incomplete == 0 {
		t.Error("no restore was killed in the middle of a file that has its name")
	}
}

// partial checks what a killed restore left and returns how many files are incomplete under their names.
func (f *fake) partial(t *testing.T, target string) (incomplete int) {
	t.Helper()
	for _, e := range f.files() {
		path := filepath.Join(target, strings.TrimPrefix(e.Path, "/r"))
		st, err := stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		content, rerr := os.ReadFile(path)
		if err != nil || rerr != nil {
			t.Fatal(err, rerr)
		}
		if string(content) == f.bytes(e) {
			continue
		}
		incomplete++
		if sameTime(&st, e.MTime) {
			t.Errorf("%s has the time of the snapshot and other content", path)
		}
		if _, err := os.Lstat(filepath.Join(target, markName)); err != nil {
			t.Errorf("%s is incomplete in a place without a mark: %v", path, err)
		}
		if dir, err := stat(filepath.Dir(path)); err != nil || dir.Mode&0o7777 != 0o700 {
			t.Errorf("%s is incomplete in a directory of mode %o, %v", path, dir.Mode, err)
		}
	}
	return incomplete
}

// TestDirectOnlyWhereItIsSafe sees which files are made beside their places and renamed.
func TestDirectOnlyWhereItIsSafe(t *testing.T) {
	renamed := func(t *testing.T, f *fake, target string, fault func(operation, path string) error) string {
		t.Helper()
		var list []string
		perfect(t, restore(t, f, Options{Target: target, Workers: 1, fault: func(operation, path string) error {
			if operation == "rename" {
				list = append(list, strings.TrimPrefix(path, "/r/"))
			}
			if fault != nil {
				return fault(operation, path)
			}
			return nil
		}}))
		f.whole(t, target)
		return strings.Join(list, " ")
	}
	one := func() *fake {
		f := newFake("/r")
		f.add(f.dir("/r"), f.dir("/r/d"), f.file("/r/d/f", "content"))
		return f
	}
	at := func(t *testing.T) string { t.Helper(); return filepath.Join(t.TempDir(), "new") }
	t.Run("new", func(t *testing.T) {
		if got := renamed(t, one(), at(t), nil); got != "" {
			t.Errorf("renamed: %s", got)
		}
	})
	t.Run("the place itself", func(t *testing.T) {
		f := newFake("/r")
		f.add(f.dir("/r"), f.file("/r/f", "content"))
		if got := renamed(t, f, at(t), nil); got != "f" {
			t.Errorf("renamed: %s", got)
		}
	})
	t.Run("directory that was there", func(t *testing.T) {
		target := at(t)
		if err := os.MkdirAll(filepath.Join(target, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := renamed(t, one(), target, nil); got != "d/f" {
			t.Errorf("renamed: %s", got)
		}
	})
	t.Run("no mark", func(t *testing.T) {
		got := renamed(t, one(), at(t), func(operation, _ string) error {
			if operation == "mark" {
				return unix.EACCES
			}
			return nil
		})
		if got != "d/f" {
			t.Errorf("renamed: %s", got)
		}
	})
	t.Run("time that may come", func(t *testing.T) {
		f := one()
		f.entries[2].MTime.Sec = time.Now().Add(time.Hour).Unix()
		if got := renamed(t, f, at(t), nil); got != "d/f" {
			t.Errorf("renamed: %s", got)
		}
	})
	t.Run("name that is taken", func(t *testing.T) {
		target := at(t)
		got := renamed(t, one(), target, func(operation, path string) error {
			if operation == "create" && path == "/r/d/f" {
				return os.WriteFile(filepath.Join(target, "d", "f"), []byte("of somebody else"), 0o600)
			}
			return nil
		})
		if got != "d/f" {
			t.Errorf("renamed: %s", got)
		}
	})
}

// TestFailedFileIsTakenAway lets files in new directories fail at each step: nothing of them stays.
func TestFailedFileIsTakenAway(t *testing.T) {
	for _, operation := range []string{"create", "write", "metadata"} {
		f := fresh()
		target := filepath.Join(t.TempDir(), "new")
		result := restore(t, f, Options{Target: target, fault: func(op, path string) error {
			if op == operation && path == "/r/d/long" {
				return unix.EIO
			}
			return nil
		}})
		if result.Failed != 1 {
			t.Errorf("%s: got %+v, want one failure", operation, result)
		}
		if _, err := os.Lstat(filepath.Join(target, "d", "long")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something is there: %v", operation, err)
		}
		wantContent(t, filepath.Join(target, "d", "secret"), "only for its owner")
		noTemps(t, target)
	}
}

// TestFileOfSomebodyElseStays has a file that fails after somebody put another in its place.
func TestFileOfSomebodyElseStays(t *testing.T) {
	f := fresh()
	target := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(target, "d", "secret")
	result := restore(t, f, Options{Target: target, fault: func(op, p string) error {
		if op != "metadata" || p != "/r/d/secret" {
			return nil
		}
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("another"), 0o600)); err != nil {
			t.Error(err)
		}
		return unix.EIO
	}})
	if result.Failed != 1 {
		t.Errorf("got %+v, want one failure", result)
	}
	wantContent(t, path, "another")
}

// TestIncompleteThatStaysEndsTheRestore can't take an incomplete file away: the place must stay marked.
func TestIncompleteThatStaysEndsTheRestore(t *testing.T) {
	f := fresh()
	target := filepath.Join(t.TempDir(), "new")
	_, err := Restore(t.Context(), f, Options{Target: target, fault: func(op, p string) error {
		if (op == "metadata" || op == "take away") && p == "/r/d/secret" {
			return unix.EIO
		}
		return nil
	}}, nil)
	var place *PlaceError
	if !errors.As(err, &place) || place.Place != "/r/d/secret" {
		t.Errorf("got %v, want a PlaceError", err)
	}
	if _, err := os.Lstat(filepath.Join(target, markName)); err != nil {
		t.Errorf("no mark: %v", err)
	}
	perfect(t, restore(t, f, Options{Target: target}))
	f.whole(t, target)
}

// TestSyncsOnTheWay writes more than is left to the sync at the end; a failure of the disk ends the restore.
func TestSyncsOnTheWay(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"))
	for i := range 5 {
		f.add(f.file(fmt.Sprint("/r/", i), strings.Repeat("x", 64<<10)))
	}
	for _, want := range []error{nil, unix.EIO} {
		r := newRun(t.Context(), f, Options{Target: t.TempDir(), Workers: 1, fault: func(op, _ string) error {
			if op == "syncfs" {
				return want
			}
			return nil
		}}, silent{})
		r.syncs[1] = -1
		if want == nil {
			delete(r.syncs, 1)
		}
		r.startFlusher()
		r.wrote(syncEvery)
		r.endFlusher()
		if err := r.ended(); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if r.flusher.dirty.Load() != 0 {
			t.Error("it did not sync")
		}
	}
}

// TestWhatProvesAChunk leaves the check of a chunk's id out only where file ids prove all that is taken of it.
func TestWhatProvesAChunk(t *testing.T) {
	f := newFake("/r")
	bundle := f.chunk([]byte("first second third "))
	part := func(path string, offset uint32, length uint64, withID bool) piece {
		e := f.file(path, "")
		e.Size, e.HasFileID = 6, withID
		return piece{job: &job{entry: e}, extent: snapshot.Extent{Ref: bundle, Offset: offset, Length: length}}
	}
	for name, test := range map[string]struct {
		pieces []piece
		want   bool
	}{
		"whole files with ids": {[]piece{part("/r/a", 0, 6, true), part("/r/b", 6, 6, true)}, true},
		"one without an id":    {[]piece{part("/r/a", 0, 6, true), part("/r/b", 6, 6, false)}, false},
		"one in parts":         {[]piece{part("/r/a", 0, 5, true), part("/r/b", 6, 6, true)}, false},
	} {
		got := newFetch([][]piece{test.pieces[:1], test.pieces[1:]})
		if len(got.refs) != 1 || got.refs[0].Proven != test.want {
			t.Errorf("%s: got %+v, want proven %v", name, got.refs, test.want)
		}
	}
}
