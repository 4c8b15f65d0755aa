package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// faulty is a system on which before is called before each opening of a name, with the error to return, and reading
// after each reading of an open file.
func faulty(before func(name string, flags int) error, reading func(fd int, name string) error) *system {
	sys := realSystem()
	open, read := sys.openat, sys.pread
	sys.openat = func(dirFD int, name string, flags int) (int, error) {
		if before != nil {
			if err := before(name, flags); err != nil {
				return -1, err
			}
		}
		return open(dirFD, name, flags)
	}
	sys.pread = func(fd int, p []byte, offset int64) (int, error) {
		n, err := read(fd, p, offset)
		if reading != nil && err == nil {
			path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err := reading(fd, filepath.Base(path)); err != nil {
				return 0, err
			}
		}
		return n, err
	}
	return sys
}

// sizes are those of files that are read in different ways.
var sizes = map[string]int{"small": 100, "large": 300_000, "mapped": snapshot.MapSpan + 1<<20}

func TestChangedOnceIsReadAgain(t *testing.T) {
	for name, size := range sizes {
		dir := tempDir(t)
		path := filepath.Join(dir, name)
		write(t, path, bytesOf(1, size))
		var once sync.Once
		s := newSession()
		r := captureSystem(t, s, Options{Roots: []string{dir}}, faulty(nil, func(int, string) error {
			once.Do(func() { write(t, path, bytesOf(2, size+1)) })
			return nil
		}))
		compareTree(t, s, dir)
		if len(r.Problems) > 0 || s.entry(t, path).Changed {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestChangedAlwaysIsMarked(t *testing.T) {
	for name, size := range sizes {
		for what, change := range map[string]func(path string, n int) error{
			"grows": func(path string, n int) error {
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.Write(make([]byte, n))
				return err
			},
			"shrinks":    func(path string, n int) error { return os.Truncate(path, int64(max(0, size-n*10))) },
			"to nothing": func(path string, _ int) error { return os.Truncate(path, 0) },
			"touched":    func(path string, n int) error { return os.Chtimes(path, time.Now(), time.Unix(int64(n), 0)) },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				dir := tempDir(t)
				path := filepath.Join(dir, name)
				write(t, path, bytesOf(1, size))
				write(t, dir+"/z", "the rest")
				var mu sync.Mutex
				n := 0
				s := newSession()
				r := captureSystem(t, s, Options{Roots: []string{dir}}, faulty(nil, func(_ int, base string) error {
					mu.Lock()
					defer mu.Unlock()
					if n++; base == name {
						return change(path, n)
					}
					return nil
				}))
				e := s.entry(t, path)
				wantChanged := what != "to nothing" // read a second time it is an empty file
				if e.Changed != wantChanged || wantChanged != (len(r.Problems) == 1) {
					t.Errorf("changed %v, problems %+v", e.Changed, r.Problems)
				}
				if uint64(len(s.content(t, e))) != e.Size {
					t.Errorf("%d bytes of content for a size of %d", len(s.content(t, e)), e.Size)
				}
				if string(s.content(t, s.entry(t, dir+"/z"))) != "the rest" {
					t.Error("the rest is not there")
				}
				// The next capture does not trust it.
				next := s.child(later())
				captured(t, next, Options{Roots: []string{dir}})
				compareTree(t, next, dir)
			})
		}
	}
}

func TestUnreadable(t *testing.T) {
	for name, size := range sizes {
		for what, sys := range map[string]*system{
			"open": faulty(func(base string, _ int) error {
				if base == name {
					return unix.EACCES
				}
				return nil
			}, nil),
			"read": faulty(nil, func(_ int, base string) error {
				if base == name {
					return unix.EIO
				}
				return nil
			}),
		} {
			dir := tempDir(t)
			write(t, filepath.Join(dir, name), bytesOf(1, size))
			write(t, dir+"/z", "the rest")
			s := newSession()
			r := captureSystem(t, s, Options{Roots: []string{dir}}, sys)
			e := s.entry(t, filepath.Join(dir, name))
			if !e.Unreadable || e.Size != 0 || e.Mode != 0o600 {
				t.Errorf("%+v", e)
			}
			if len(r.Problems) != 1 || r.Problems[0].Operation != what || string(r.Problems[0].Path) != e.Path || r.Counts.Errors != 1 {
				t.Errorf("%+v", r)
			}
			s.entry(t, dir+"/z")
			next := s.child(later())
			captured(t, next, Options{Roots: []string{dir}})
			compareTree(t, next, dir)
		}
	}
}

func TestUnreadableDirectory(t *testing.T) {
	dir := tempDir(t)
	for _, name := range []string{"a", "secret/x", "z/y"} {
		write(t, filepath.Join(dir, name), name)
	}
	s := newSession()
	r := captureSystem(t, s, Options{Roots: []string{dir}}, faulty(func(base string, _ int) error {
		if base == "secret" {
			return unix.EACCES
		}
		return nil
	}, nil))
	if e := s.entry(t, dir+"/secret"); !e.Unreadable || e.Type != snapshot.Directory {
		t.Errorf("%+v", e)
	}
	s.entry(t, dir+"/z/y")
	if len(r.Problems) != 1 || r.Problems[0].Operation != "list" {
		t.Errorf("%+v", r.Problems)
	}
}

func TestVanishedAndReplaced(t *testing.T) {
	for what, replace := range map[string]func(path string) error{
		"vanished":  func(string) error { return nil },
		"symlink":   func(path string) error { return os.Symlink("/etc/passwd", path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"socket":    func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		for _, name := range []string{"file", "directory"} {
			t.Run(name+" becomes "+what, func(t *testing.T) {
				dir := tempDir(t)
				write(t, dir+"/a", "a")
				write(t, dir+"/file", "file")
				write(t, dir+"/directory/inside", "inside")
				write(t, dir+"/z", "z")
				path := filepath.Join(dir, name)
				var once sync.Once
				s := newSession()
				r := captureSystem(t, s, Options{Roots: []string{dir}}, faulty(func(base string, _ int) error {
					if base != name {
						return nil
					}
					once.Do(func() {
						if err := errors.Join(os.RemoveAll(path), replace(path)); err != nil {
							t.Error(err)
						}
					})
					return nil
				}, nil))
				if name == what {
					return // one directory for another is no problem: it is captured as it was listed
				}
				if len(r.Problems) != 1 || string(r.Problems[0].Path) != path {
					t.Errorf("problems %+v", r.Problems)
				}
				for _, e := range s.entries {
					if strings.HasPrefix(e.Path, path) && !(e.Type == snapshot.Directory && e.Unreadable) {
						t.Errorf("%q is there", e.Path)
					}
				}
				s.entry(t, dir+"/a")
				s.entry(t, dir+"/z")
			})
		}
	}
}

func TestMovedDirectoryIsNotFollowed(t *testing.T) {
	// A symbolic link that takes the place of a directory must not lead the capture out of the tree.
	dir, outside := tempDir(t), tempDir(t)
	write(t, dir+"/d/inside", "inside")
	write(t, outside+"/inside", "outside")
	s := newSession()
	captureSystem(t, s, Options{Roots: []string{dir}}, faulty(func(base string, _ int) error {
		if base == "d" {
			return errors.Join(os.Rename(dir+"/d", dir+"/elsewhere"), os.Symlink(outside, dir+"/d"))
		}
		return nil
	}, nil))
	for _, e := range s.entries {
		if e.Type == snapshot.File && string(s.content(t, e)) == "outside" {
			t.Errorf("%q was read from outside", e.Path)
		}
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	dir := tempDir(t)
	long := strings.Repeat("n", 200)
	for i := range 100 {
		write(t, fmt.Sprintf("%s/%s%d", dir, long, i), "x")
	}
	s := newSession()
	r := captureSystem(t, s, Options{Roots: []string{dir}}, faulty(func(base string, _ int) error {
		if strings.HasPrefix(base, long) {
			return unix.EACCES
		}
		return nil
	}, nil))
	if r.Counts.Errors != 100 || len(r.Problems) != 100 {
		t.Errorf("%d errors, %d problems", r.Counts.Errors, len(r.Problems))
	}
	c := &capture{result: &Result{}}
	for range 100_000 {
		c.note([]snapshot.Problem{problem("/"+long, "open", "x")})
	}
	if c.result.Counts.Errors != 100_000 || uint64(len(c.result.Problems))+c.unnamed != 100_000 || len(c.result.Problems) > 20_000 {
		t.Errorf("%d errors, %d problems, %d unnamed", c.result.Counts.Errors, len(c.result.Problems), c.unnamed)
	}
}

func TestFailingSessionEndsTheCapture(t *testing.T) {
	dir := tempDir(t)
	for i := range 400 {
		write(t, fmt.Sprintf("%s/%d", dir, i), bytesOf(uint64(i), 20_000))
	}
	write(t, dir+"/large", bytesOf(1, 30<<20))
	full := errors.New("disk full")
	for _, kind := range []snapshot.Kind{snapshot.Content, snapshot.Map} {
		before := runtime.NumGoroutine()
		s := newSession()
		s.stored = func(k snapshot.Kind, _ []byte) error {
			if k == kind {
				return full
			}
			return nil
		}
		_, err := Capture(t.Context(), Options{Roots: []string{dir}}, s, nil)
		if !errors.Is(err, full) {
			t.Errorf("kind %c: %v", kind, err)
		}
		left := time.After(2 * time.Minute)
		for runtime.NumGoroutine() > before { // the last ones are about to end
			select {
			case <-left:
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			case <-time.After(time.Millisecond):
			}
		}
	}
}

func TestEndOfContext(t *testing.T) {
	dir := tempDir(t)
	for i := range 300 {
		write(t, fmt.Sprintf("%s/%d/%d", dir, i%50, i), "x")
	}
	write(t, dir+"/large", bytesOf(1, 9<<20))
	for _, after := range []int{0, 1, 3} {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSession()
		n := 0
		var mu sync.Mutex
		s.stored = func(snapshot.Kind, []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > after {
				cancel()
			}
			return nil
		}
		if after == 0 {
			cancel()
		}
		_, err := Capture(ctx, Options{Roots: []string{dir}}, s, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d chunks: %v", after, err)
		}
		cancel()
	}
}

func TestDamagedParent(t *testing.T) {
	dir := tempDir(t)
	for _, name := range []string{"a", "b", "c"} {
		write(t, filepath.Join(dir, name), name)
	}
	s := newSession()
	captured(t, s, Options{Roots: []string{dir}})
	next := s.child(later())
	next.parent, next.fault = next.parent[:2], errors.New("the tree is damaged")
	r := captured(t, next, Options{Roots: []string{dir}})
	compareTree(t, next, dir)
	if len(r.Problems) != 1 || r.Problems[0].Operation != OperationParent || r.Counts.Errors != 0 || r.Counts.ReadBytes != 2 {
		t.Errorf("%+v", r)
	}
}
