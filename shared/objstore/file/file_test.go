package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, objstore.Bytes([]byte(data))); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, s *Store, prefix string) []string {
	t.Helper()
	var got []string
	err := s.List(t.Context(), prefix, func(i objstore.Info) error { got = append(got, i.Key); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objstore.Store { return open(t, filepath.Join(t.TempDir(), "new", "repository")) })
}

func TestConformanceInSmallWindows(t *testing.T) {
	storetest.RunSmall(t, func(t *testing.T) objstore.Store {
		s := open(t, t.TempDir())
		s.window = 3
		return s
	})
}

func TestModesAndLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("opening made the directory")
	}
	put(t, s, "v1/h/s/x", "data")
	for name, mode := range map[string]os.FileMode{
		"../": 0o700, ".": 0o700, "v1": 0o700, "v1/h/s": 0o700, "tmp": 0o700, "v1/h/s/x": 0o600,
	} {
		i, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if i.Mode().Perm() != mode {
			t.Errorf("%s has mode %v", name, i.Mode())
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v %v", left, err)
	}
	if err := s.Delete(t.Context(), "v1/h/s/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "v1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty directories stay: %v", err)
	}
}

func TestStaleUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir), "v1/x", "x")
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": 23 * time.Hour} {
		p := filepath.Join(dir, "tmp", name)
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil || len(left) != 1 || left[0].Name() != "young" {
		t.Errorf("left in tmp: %v %v", left, err)
	}
	if d := cmp.Diff([]string{"v1/x"}, keys(t, s, "")); d != "" {
		t.Error(d)
	}
}

// What others put into the directory is neither listed nor followed.
func TestStrangers(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.MkdirAll(filepath.Join(outside, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "dir", "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "v1/x", "x")
	steps := []error{
		os.Symlink(secret, filepath.Join(dir, "v1", "link")),
		os.Symlink(outside, filepath.Join(dir, "v1", "out")),
		os.Symlink("../../"+filepath.Base(outside), filepath.Join(dir, "v1", "relative")),
		os.Mkdir(filepath.Join(dir, "lost+found"), 0o700),
		os.WriteFile(filepath.Join(dir, "v1", ".nfs0001"), nil, 0o600),
		unix.Mkfifo(filepath.Join(dir, "v1", "fifo"), 0o600),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"v1/x"}, keys(t, s, "")); d != "" {
		t.Error(d)
	}
	for _, key := range []string{"v1/link", "v1/out/dir/secret", "v1/relative/dir/secret", "v1/fifo"} {
		if r, err := s.Get(t.Context(), key, 0, -1); err == nil {
			_ = r.Close()
			t.Errorf("%s was opened", key)
		}
		if err := s.Put(t.Context(), key, objstore.Bytes([]byte("new"))); err == nil {
			t.Errorf("%s was written", key)
		}
	}
	for _, key := range []string{"v1/out/new", "v1/relative/new"} {
		if err := s.Put(t.Context(), key, objstore.Bytes([]byte("new"))); err == nil {
			t.Errorf("%s was written", key)
		}
	}
	_ = s.Delete(t.Context(), "v1/out/dir/secret")
	_ = s.List(t.Context(), "v1/out/", func(i objstore.Info) error { t.Errorf("%s is listed", i.Key); return nil })
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Error("written outside")
	}
}

func TestFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	s := open(t, t.TempDir())
	err = s.wrapPut("v1/x", write(t.Context(), full, objstore.Bytes([]byte("data"))))
	if !errors.Is(err, objstore.ErrFull) || !strings.Contains(err.Error(), s.Dir()) {
		t.Errorf("got %v", err)
	}
	if objstore.IsTransient(err) {
		t.Error("a full disk is not transient")
	}
}

func TestErrors(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct {
		cause error
		want  error
	}{
		{unix.EACCES, objstore.ErrDenied},
		{unix.EPERM, objstore.ErrDenied},
		{unix.EROFS, objstore.ErrDenied},
		{unix.EDQUOT, objstore.ErrFull},
		{unix.ENOENT, objstore.ErrNotExist},
		{unix.EIO, unix.EIO},
	} {
		if err := s.wrap("get", "k", fmt.Errorf("x: %w", c.cause)); !errors.Is(err, c.want) || objstore.IsTransient(err) {
			t.Errorf("%v became %v", c.cause, err)
		}
	}
	if err := s.wrap("get", "k", unix.ESTALE); !objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

func TestFileInPlaceOfDirectory(t *testing.T) {
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(p); err == nil {
		if err := s.Put(t.Context(), "k", objstore.Bytes(nil)); err == nil {
			t.Error("a file served as a directory")
		}
	}
	s := open(t, t.TempDir())
	put(t, s, "a", "")
	put(t, s, "d/x", "")
	for _, key := range []string{"a/b", "d"} {
		if err := s.Put(t.Context(), key, objstore.Bytes([]byte("x"))); err == nil {
			t.Errorf("%s was written over what is in its way", key)
		}
	}
}

// A process that died between link and sync has left the object with a second name.
func TestPutAfterCrash(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir), "v1/x", "data")
	if err := os.Link(filepath.Join(dir, "v1", "x"), filepath.Join(dir, "tmp", "unfinished")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	put(t, s, "v1/x", "data")
	if err := s.Put(t.Context(), "v1/x", objstore.Bytes([]byte("DATA"))); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("got %v", err)
	}
}

// Deleting takes empty directories away while others put into them.
func TestPutAgainstDelete(t *testing.T) {
	s := open(t, t.TempDir())
	done := make(chan error, 4)
	for i := range cap(done) {
		go func() {
			done <- func() error {
				for n := range 100 {
					key := fmt.Sprintf("v1/h/s/packs/%d", i)
					if err := s.Put(t.Context(), key, objstore.Bytes([]byte{byte(n)})); err != nil {
						return err
					}
					b, err := objstore.ReadAll(t.Context(), s, key, 10)
					if err != nil || !bytes.Equal(b, []byte{byte(n)}) {
						return fmt.Errorf("read %v: %w", b, err)
					}
					if err := s.Delete(t.Context(), key); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWindows(t *testing.T) {
	for _, names := range []string{"a b a-b c/b", "x y z a0 a. a_ b/0 b-/0 b./0", "a/1 a/2 a/3 a/4 b/1 c"} {
		for window := range 5 {
			s := open(t, t.TempDir())
			s.window = window + 1
			want := strings.Fields(names)
			for _, key := range want {
				put(t, s, key, key)
			}
			slices.Sort(want)
			if d := cmp.Diff(want, keys(t, s, "")); d != "" {
				t.Errorf("window of %d: %s", s.window, d)
			}
		}
	}
}

// A spool to which nothing is written for a day looks like that of a dead writer to others, who remove its name.
func TestSpoolOutlivesItsName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	spool, err := s.Spool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spool.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	at := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(names[0], at, at); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if err := spool.Commit(t.Context(), "v1/x"); err != nil {
		t.Fatal(err)
	}
	b, err := objstore.ReadAll(t.Context(), s, "v1/x", 10)
	if err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
}
