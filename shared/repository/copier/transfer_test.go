package copier_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// far is a store that does not keep unfinished objects, as those behind a network.
type far struct{ objstore.Store }

func directory(t *testing.T) (objstore.Store, string) {
	t.Helper()
	dir := t.TempDir()
	store, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return store, dir
}

// TestMemory copies packs of 16 MiB. What is allocated, also if it is given back, is a small part of them.
func TestMemory(t *testing.T) {
	f := repotest.New(t)
	const size = 44 << 20
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, size)})
	near, _ := directory(t)
	run(t, f, near)
	from := f.Open(t, near)
	for name, wrap := range map[string]func(objstore.Store) objstore.Store{
		"directory": func(s objstore.Store) objstore.Store { return s },
		"far":       func(s objstore.Store) objstore.Store { return far{s} },
	} {
		t.Run(name, func(t *testing.T) {
			to, _ := directory(t)
			allocated := allocations(t, from, wrap(to))
			t.Logf("%d bytes were allocated", allocated)
			if allocated > size/4 {
				t.Errorf("%d bytes were allocated to copy %d", allocated, size)
			}
			wantVerified(t, f, to)
		})
	}
}

func allocations(t *testing.T, from *repository.Repository, to objstore.Store) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	res, err := copier.Run(t.Context(), from, to, copier.Options{Temp: t.TempDir()})
	runtime.ReadMemStats(&after)
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	return after.TotalAlloc - before.TotalAlloc
}

// TestTemp looks at where packs wait: in the target if it can keep them, else in Temp. Neither keeps anything, also not
// of what was damaged.
func TestTemp(t *testing.T) {
	f := history(t)
	damaged := f.Store.Clone()
	for _, key := range repotest.Keys(damaged, "/packs/")[:2] {
		b, _ := damaged.Object(key)
		damaged.Tamper(key, b[:len(b)-1])
	}
	from := f.Open(t, damaged)

	nowhere := copier.Options{Temp: filepath.Join(t.TempDir(), "nowhere")}
	to, dir := directory(t)
	res, err := copier.Run(t.Context(), from, to, nowhere)
	if err != nil || len(res.Findings) == 0 || len(res.Withheld) == 0 {
		t.Errorf("into a directory: %v, %+v", err, res)
	}
	wantNothingUnfinished(t, filepath.Join(dir, "tmp"))

	if _, err := copier.Run(t.Context(), from, mem.New(), nowhere); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "begin v1/") {
		t.Errorf("with nowhere to wait: %v", err)
	}
	temp := t.TempDir()
	other := mem.New()
	if res, err = copier.Run(t.Context(), from, other, copier.Options{Temp: temp}); err != nil || len(res.Findings) == 0 {
		t.Errorf("far away: %v, %+v", err, res)
	}
	wantNothingUnfinished(t, temp)
	f.CheckAll(t, to)
	f.CheckAll(t, other)
}

func wantNothingUnfinished(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v", err, left)
	}
}
