package restorer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// small is a tree with something of everything that is fast to make.
func small(t testing.TB) (*fake, string) {
	t.Helper()
	return snapshotOf(t, 11, trees.Options{Entries: 12, MaxFile: 200 << 10})
}

// TestEveryStepCanFail lets each changing step fail in turn as if the disk were full: the restore says so, leaves no temporary
// files, no half-written file, and a second run ends the work.
func TestEveryStepCanFail(t *testing.T) {
	f, dir := small(t)
	steps := int64(1 << 30)
	for step := int64(0); step < steps; step++ {
		target := trees.TempDir(t)
		var count atomic.Int64
		_, err := Restore(context.Background(), f, Options{Target: target, fault: func(string, string) error {
			if count.Add(1)-1 >= step {
				return unix.ENOSPC
			}
			return nil
		}}, nil)
		if err == nil {
			steps = step // it ran through
		} else if !errors.Is(err, ErrFull) {
			t.Fatalf("step %d: %v, want ErrFull", step, err)
		}
		if step%11 != 0 && err != nil {
			continue // the second run is always the same
		}
		perfect(t, restore(t, f, Options{Target: target}))
		equal(t, dir, target)
		noTemps(t, target)
	}
	if steps < 20 {
		t.Errorf("only %d steps", steps)
	}
}

// TestOneFileFails lets one file fail with an error that hits nothing else.
func TestOneFileFails(t *testing.T) {
	for _, operation := range []string{"create", "write", "metadata", "rename"} {
		f := newFake("/r")
		f.add(f.dir("/r"), f.file("/r/bad", "new"), f.file("/r/good", "new"))
		target := t.TempDir()
		if err := os.WriteFile(filepath.Join(target, "bad"), []byte("older"), 0o600); err != nil {
			t.Fatal(err)
		}
		result := restore(t, f, Options{Target: target, fault: func(op, path string) error {
			if op == operation && path == "/r/bad" {
				return unix.EIO
			}
			return nil
		}})
		if result.Failed != 1 || len(result.Problems) != 1 || result.Problems[0].Path != "/r/bad" {
			t.Errorf("%s: got %+v, want one problem", operation, result)
		}
		wantContent(t, filepath.Join(target, "bad"), "older")
		wantContent(t, filepath.Join(target, "good"), "new")
		noTemps(t, target)
	}
}

// TestDeviceThatCannotBeRenamed has the same error as a user who may not make devices, from another step: that is a failure.
func TestDeviceThatCannotBeRenamed(t *testing.T) {
	for _, operation := range []string{"create", "metadata", "rename"} {
		f := newFake("/r")
		device := f.dir("/r/null")
		device.Type, device.Major, device.Minor = snapshot.CharDevice, 1, 3
		f.add(f.dir("/r"), device)
		var struck atomic.Bool
		result := restore(t, f, Options{Target: t.TempDir(), fault: func(op, path string) error {
			if op == operation && path == device.Path {
				struck.Store(true)
				return unix.EPERM
			}
			return nil
		}})
		if failed := result.Failed == 1; failed != struck.Load() || failed == (len(result.Warnings) > 0) {
			t.Errorf("%s: got %+v, struck %v", operation, result, struck.Load())
		}
	}
}

// TestWhatCannotBeSyncedIsNotRestored runs out of descriptors where the one for the sync at the end is made.
func TestWhatCannotBeSyncedIsNotRestored(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.file("/r/f", "content"))
	target := t.TempDir()
	_, err := Restore(context.Background(), f, Options{Target: target, fault: func(operation, _ string) error {
		if operation == "duplicate" {
			return unix.EMFILE
		}
		return nil
	}}, nil)
	var place *PlaceError
	if !errors.As(err, &place) || place.Place != target || !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v, want EMFILE for %s", err, target)
	}
	if _, err := os.Lstat(filepath.Join(target, "f")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("it went on: %v", err)
	}
}

func wantContent(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: got %.40q, %v; want %.40q", path, got, err, want)
	}
}

func TestDamageLeavesTheOldFile(t *testing.T) {
	f := newFake("/r")
	bad := f.file("/r/bad", strings.Repeat("x", 200<<10))
	f.damaged[bad.Extents[2].Ref.ID] = true
	mapped := f.file("/r/mapped", strings.Repeat("y", 200<<10))
	mapped.Maps, mapped.Extents = []snapshot.MapRef{{Ref: snapshot.Ref{ID: snapshot.Hash{9}}, Length: mapped.Size}}, nil
	f.damaged[snapshot.Hash{9}] = true
	unreadable := f.file("/r/unreadable", "")
	unreadable.Unreadable = true
	f.add(f.dir("/r"), bad, mapped, unreadable, f.file("/r/good", "new"))
	bad.Extents[1] = bad.Extents[0]
	target := t.TempDir()
	for _, name := range []string{"bad", "mapped", "unreadable"} {
		if err := os.WriteFile(filepath.Join(target, name), []byte("older"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	result := restore(t, f, Options{Target: target, Delete: true})
	if result.Failed != 3 {
		t.Errorf("got %+v, want three failures", result)
	}
	for _, name := range []string{"bad", "mapped", "unreadable"} {
		wantContent(t, filepath.Join(target, name), "older")
	}
	wantContent(t, filepath.Join(target, "good"), "new")
	noTemps(t, target)
}

func TestStoreOutOfReach(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.file("/r/f", "x"))
	f.down = errors.New("no route to host")
	target := t.TempDir()
	if _, err := Restore(context.Background(), f, Options{Target: target}, nil); !errors.Is(err, f.down) {
		t.Errorf("got %v, want the store's error", err)
	}
	f.down = nil
	result := restore(t, f, Options{Target: target})
	if perfect(t, result); !result.Resumed {
		t.Error("the second run did not notice the first")
	}
	noTemps(t, target)
}

func TestSpaceIsCheckedFirst(t *testing.T) {
	f := newFake("/r")
	sparse := f.file("/r/sparse", "x")
	sparse.Size, sparse.Extents = 1<<40+1, append([]snapshot.Extent{{Hole: true, Length: 1 << 40}}, sparse.Extents...)
	f.add(f.dir("/r"), f.file("/r/f", strings.Repeat("x", 100<<10)), sparse)
	target := filepath.Join(t.TempDir(), "new")
	free := func(blocks uint64) func(string, *unix.Statfs_t) error {
		return func(_ string, st *unix.Statfs_t) error {
			*st = unix.Statfs_t{Blocks: 1 << 30, Bfree: blocks, Bavail: blocks, Frsize: 4096}
			return nil
		}
	}
	_, err := Restore(context.Background(), f, Options{Target: target, statfs: free(10)}, nil)
	var space *SpaceError
	if !errors.As(err, &space) || !errors.Is(err, ErrFull) || space.Need != 100<<10+1 || space.Free != 40960 {
		t.Errorf("got %v, want a SpaceError", err)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("the target was made")
	}
	perfect(t, restore(t, f, Options{Target: target, statfs: free(100)}))
	// Now it is there, nothing more is needed.
	perfect(t, restore(t, f, Options{Target: target, statfs: free(0)}))
}

func TestBadTargets(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.file("/r/f", "x"))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{file, filepath.Join(file, "below")} {
		if _, err := Restore(context.Background(), f, Options{Target: target}, nil); !errors.Is(err, ErrNotDirectory) {
			t.Errorf("%s: got %v, want ErrNotDirectory", target, err)
		}
	}
	wantContent(t, file, "mine")
	readOnly := func(string, string) error { return unix.EROFS }
	if _, err := Restore(context.Background(), f, Options{Target: filepath.Join(dir, "new"), fault: readOnly}, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("got %v, want ErrReadOnly", err)
	}
	busy := filepath.Join(dir, "busy")
	nested := func(operation, _ string) error {
		if operation == "rename" {
			_, err := Restore(context.Background(), f, Options{Target: busy}, nil)
			return err
		}
		return nil
	}
	result := restore(t, f, Options{Target: busy, fault: nested})
	if result.Failed != 1 || !errors.Is(result.Problems[0].Err, ErrBusy) {
		t.Errorf("got %+v, want ErrBusy", result)
	}
}

// TestKilled kills a restore in another process at many points; the next one ends the work.
func TestKilled(t *testing.T) {
	if target := os.Getenv("HOLDFAST_TEST_KILL_TARGET"); target != "" {
		killedRestore(t, target)
		return
	}
	source := trees.TempDir(t)
	trees.Make(t, source, 21, trees.Options{Entries: 20, MaxFile: 100 << 10})
	f := newFake("/srv/data")
	f.capture(t, "/srv/data", source)
	target := trees.TempDir(t)
	for _, step := range []int{1, 8, 21, 35} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_KILL_TARGET="+target, "HOLDFAST_TEST_KILL_SOURCE="+source, fmt.Sprint("HOLDFAST_TEST_KILL_STEP=", step))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Success() || !strings.Contains(exit.String(), "killed") {
			t.Fatalf("step %d: the restore was not killed: %v\n%s", step, err, out)
		}
	}
	result := restore(t, f, Options{Target: target})
	perfect(t, result)
	if !result.Resumed || result.Unchanged == 0 {
		t.Errorf("got %+v; want what the killed ones finished to be kept", result)
	}
	equal(t, source, target)
	noTemps(t, target)
}

func killedRestore(t *testing.T, target string) {
	t.Helper()
	source := os.Getenv("HOLDFAST_TEST_KILL_SOURCE")
	step, err := strconv.ParseInt(os.Getenv("HOLDFAST_TEST_KILL_STEP"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	f := newFake("/srv/data")
	f.capture(t, "/srv/data", source)
	// Two at a time, on however large a machine: many would have begun each file and finished none.
	var count atomic.Int64
	restore(t, f, Options{Target: target, Workers: 2, fault: func(string, string) error {
		if count.Add(1) == step {
			return unix.Kill(unix.Getpid(), unix.SIGKILL)
		}
		return nil
	}})
}

// TestCrashOfTheMachine leaves a mark of another boot: files that have their size and mtime may lack their content.
func TestCrashOfTheMachine(t *testing.T) {
	f := newFake("/r")
	f.add(f.dir("/r"), f.file("/r/f", "content"))
	target := t.TempDir()
	perfect(t, restore(t, f, Options{Target: target}))
	path := filepath.Join(target, "f")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 7), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if result := restore(t, f, Options{Target: target}); result.Updated != 0 {
		t.Errorf("got %+v; want size and mtime to be believed", result)
	}
	if err := os.WriteFile(filepath.Join(target, markName), []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if result := restore(t, f, Options{Target: target}); result.Updated != 1 || !result.Resumed {
		t.Errorf("got %+v; want the content to be compared", result)
	}
	wantContent(t, path, "content")
	noTemps(t, target)
}

// TestContentOfAnotherFile has an entry whose extents lead to sound chunks of another file.
func TestContentOfAnotherFile(t *testing.T) {
	f := newFake("/r")
	right, wrong := f.file("/r/right", "the right content."), f.file("/r/wrong", "some other content")
	for _, e := range []*snapshot.Entry{right, wrong} {
		e.HasFileID, e.FileID = true, f.keys.FileID(f.chunks[e.Extents[0].Ref.ID])
	}
	wrong.Extents, wrong.Size = right.Extents, right.Size
	f.add(f.dir("/r"), right, wrong)
	dir := trees.TempDir(t)
	result := restore(t, f, Options{Target: dir})
	if result.Failed != 1 {
		t.Errorf("%d files failed, want one: %+v", result.Failed, result)
	}
	if _, err := os.Lstat(filepath.Join(dir, "wrong")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the wrong content was restored: %v", err)
	}
}
