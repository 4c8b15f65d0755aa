package restorer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// hollowed is a restored file of which only size and time are left, as after a power cut.
func hollowed(t *testing.T, path string, size int) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, make([]byte, size), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func marked(t *testing.T, place string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(place, markName))
	return err == nil
}

// twoFiles is a snapshot with one file in each of two directories.
func twoFiles() *fake {
	f := newFake("/r")
	f.add(f.dir("/r"), f.dir("/r/d"), f.file("/r/d/f", "content"), f.dir("/r/e"), f.file("/r/e/g", "another"))
	return f
}

// TestDiskThatFailed loses the content that a failed sync told of: the next run, in the same boot, must not believe it.
func TestDiskThatFailed(t *testing.T) {
	f := twoFiles()
	target := filepath.Join(t.TempDir(), "new")
	_, err := Restore(t.Context(), f, Options{Target: target, fault: func(op, _ string) error {
		if op == "syncfs" {
			return unix.EIO
		}
		return nil
	}}, nil)
	if !errors.Is(err, unix.EIO) || !marked(t, target) {
		t.Fatalf("got %v, marked %v", err, marked(t, target))
	}
	hollowed(t, filepath.Join(target, "d", "f"), 7)
	perfect(t, restore(t, f, Options{Target: target}))
	f.whole(t, target)
}

// TestPartLeavesTheMark restores a part of what a crash of the machine interrupted: the rest stays in doubt.
func TestPartLeavesTheMark(t *testing.T) {
	f := twoFiles()
	place := filepath.Join(t.TempDir(), "new")
	to := map[string]string{"/r": place}
	_, err := Restore(t.Context(), f, Options{Map: to, fault: func(op, _ string) error {
		if op == "syncfs" {
			return unix.EINTR
		}
		return nil
	}}, nil)
	if !marked(t, place) {
		t.Fatalf("no mark; %v", err)
	}
	hollowed(t, filepath.Join(place, "d", "f"), 7)
	perfect(t, restore(t, f, Options{Map: to, Select: []string{"/r/e"}}))
	if !marked(t, place) {
		t.Error("a restore of a part took the mark away")
	}
	perfect(t, restore(t, f, Options{Map: to}))
	f.whole(t, place)
}

// TestFailureLeavesTheMark can't write a file anew that an interrupted run left incomplete.
func TestFailureLeavesTheMark(t *testing.T) {
	f := twoFiles()
	target := filepath.Join(t.TempDir(), "new")
	perfect(t, restore(t, f, Options{Target: target}))
	hollowed(t, filepath.Join(target, "d", "f"), 7)
	if err := os.WriteFile(filepath.Join(target, markName), []byte("another boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := f.entries[2].Extents[0].Ref.ID
	f.damaged[ref] = true
	if result := restore(t, f, Options{Target: target}); result.Failed != 1 || !marked(t, target) {
		t.Errorf("got %+v, marked %v", result, marked(t, target))
	}
	delete(f.damaged, ref)
	perfect(t, restore(t, f, Options{Target: target}))
	f.whole(t, target)
}

// TestMarkThatWasCutOff goes on from a mark whose last line the machine did not write, again and again.
func TestMarkThatWasCutOff(t *testing.T) {
	f := twoFiles()
	place := t.TempDir()
	path := filepath.Join(place, markName)
	owed := work{"/r/d", "d"}.line()
	if err := os.WriteFile(path, []byte("another boot\n"+owed+"\"/r"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	to := map[string]string{"/r": place}
	for range 3 {
		_, err := Restore(t.Context(), f, Options{Map: to, Select: []string{"/r/e"}, fault: func(op, _ string) error {
			if op == "mkdir" {
				return unix.ENOSPC
			}
			return nil
		}}, nil)
		st, serr := stat(path)
		if !errors.Is(err, unix.ENOSPC) || serr != nil {
			t.Fatal(err, serr)
		}
		sizes = append(sizes, st.Size)
	}
	if sizes[2] > sizes[0]+4 {
		t.Errorf("the mark grows: %d", sizes)
	}
	perfect(t, restore(t, f, Options{Map: to, Select: []string{"/r/e"}}))
	if !marked(t, place) {
		t.Error("/r/d is owed, but the mark is gone")
	}
	perfect(t, restore(t, f, Options{Map: to}))
	f.whole(t, place)
}

// TestMarkOfAPlaceAbove restores to a directory in a place that a crash of the machine left unfinished.
func TestMarkOfAPlaceAbove(t *testing.T) {
	f := twoFiles()
	top := t.TempDir()
	target := filepath.Join(top, "a", "b")
	perfect(t, restore(t, f, Options{Target: target}))
	hollowed(t, filepath.Join(target, "d", "f"), 7)
	if err := os.WriteFile(filepath.Join(top, markName), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	perfect(t, restore(t, f, Options{Target: target}))
	if !marked(t, top) {
		t.Error("the mark of the place above is gone")
	}
	if err := os.Remove(filepath.Join(top, markName)); err != nil {
		t.Fatal(err)
	}
	f.whole(t, target)
}

// TestMarkThatCannotBeRead has something else of that name: nothing is known of what was before.
func TestMarkThatCannotBeRead(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"symlink":  func(path string) error { return os.Symlink("nowhere", path) },
		"FIFO":     func(path string) error { return unix.Mkfifo(path, 0o600) },
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"torn":     func(path string) error { return os.WriteFile(path, make([]byte, 36), 0o600) },
		"no lines": func(path string) error { return os.WriteFile(path, []byte("\n\n"), 0o600) },
		"mount": func(path string) error {
			return os.WriteFile(path, []byte(strings.Fields(memoryOf(unix.AT_FDCWD, "/"))[0]+" 0"), 0o600)
		},
		"not known": func(path string) error { return os.WriteFile(path, []byte(noBoot), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			f := twoFiles()
			target := filepath.Join(t.TempDir(), "new")
			perfect(t, restore(t, f, Options{Target: target}))
			hollowed(t, filepath.Join(target, "d", "f"), 7)
			if err := plant(filepath.Join(target, markName)); err != nil {
				t.Fatal(err)
			}
			perfect(t, restore(t, f, Options{Target: target}))
			f.whole(t, target)
		})
	}
	if m := (&mark{found: true, boot: noBoot}); !m.doubted(noBoot) {
		t.Error("two boots that nobody knows were taken for one")
	}
}

// TestMarkComesFirst wants the mark to be durable before anything is made.
func TestMarkComesFirst(t *testing.T) {
	var mu sync.Mutex
	var before []string
	target := filepath.Join(t.TempDir(), "new")
	restore(t, twoFiles(), Options{Target: target, fault: func(op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if path != target {
			before = append(before, op)
		} else if op == "sync mark" {
			for _, op := range before {
				if op != "duplicate" {
					t.Errorf("%s came before", op)
				}
			}
			before = append(before, "synced")
		}
		return nil
	}})
	if len(before) < 2 || before[0] != "synced" && before[1] != "synced" {
		t.Errorf("got %q", before)
	}
}

// TestIncompleteThatCannotBeReplaced kills a restore in a file, whose content is damaged when it is done again: nobody else
// may enter the directory in which it has its name, before a restore succeeds.
func TestIncompleteThatCannotBeReplaced(t *testing.T) {
	f := twoFiles()
	target := filepath.Join(t.TempDir(), "new")
	dir := filepath.Join(target, "d")
	// As a killed run leaves it.
	err := errors.Join(
		os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "f"), []byte("cont"), 0o600),
		os.WriteFile(filepath.Join(target, markName), []byte(memoryOf(unix.AT_FDCWD, target)+"\n"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	mode := func() uint32 {
		st, err := stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode & 0o7777
	}
	ref := f.entries[2].Extents[0].Ref.ID
	f.damaged[ref] = true
	result := restore(t, f, Options{Target: target})
	if result.Failed != 2 || mode() != 0o700 || !marked(t, target) {
		t.Errorf("got %+v, mode %o, marked %v", result, mode(), marked(t, target))
	}
	wantContent(t, filepath.Join(target, "e", "g"), "another")
	delete(f.damaged, ref)
	perfect(t, restore(t, f, Options{Target: target}))
	if mode() != 0o755 {
		t.Errorf("mode %o", mode())
	}
	f.whole(t, target)
}

// TestWhatIncludesWork compares selections with what an earlier run was to restore.
func TestWhatIncludesWork(t *testing.T) {
	for _, test := range []struct {
		path, rel string
		work      work
		want      bool
	}{
		{"/r", "", work{"/r", ""}, true},
		{"/r", "", work{"/r/d", "d"}, true},
		{"/r", "", work{"/r/d", ""}, false}, // a selected directory that went into the target itself
		{"/r/d", "d", work{"/r", ""}, false},
		{"/r", "r", work{"/r/d/f", "r/d/f"}, true},
		{"/r", "r", work{"/r2", "r2"}, false},
		{"/", "", work{"/r/d", "r/d"}, true},
		{"/", "x", work{"/r/d", "x/r/d"}, true},
	} {
		s := selection{path: test.path, rel: test.rel}
		if got := s.includes(test.work); got != test.want {
			t.Errorf("%q at %q, %q: got %v", test.path, test.rel, test.work, got)
		}
	}
}

// FuzzMark reads marks of any content.
func FuzzMark(f *testing.F) {
	f.Add("boot")
	f.Add("boot\n" + work{"/r\n\xff", "r"}.line() + work{"/", ""}.line())
	f.Add("boot\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		m := mark{whole: true}
		m.parse(text)
		again := mark{whole: true}
		text = m.boot + "\n"
		for _, w := range m.owed {
			text += w.line()
		}
		again.parse(text)
		if !again.whole || len(again.owed) != len(m.owed) {
			t.Errorf("%q: got %+v", text, again)
		}
		for i, w := range again.owed {
			if w != m.owed[i] {
				t.Errorf("got %q, want %q", w, m.owed[i])
			}
		}
	})
}
