package prune_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestBackupWhilePruning: a backup that commits between the removal of snapshots and the sweep keeps what it needs.
func TestBackupWhilePruning(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(15 * day)
	for _, op := range []string{"/receipts/", "/expired/0000000004", "/lists/"} {
		once := false
		f.Store.SetHook(func(c mem.Call) mem.Fault {
			if !once && (c.Op == mem.Put || c.Op == mem.Delete) && strings.Contains(c.Key, op) {
				once = true
				newest := uint64(len(f.Trees))
				f.Backup(t, snapshot.Incremental, f.Trees[newest].With("/srv/"+strings.ReplaceAll(op, "/", ""), repotest.Noise(newest, 9000)))
			}
			return mem.Fault{}
		})
		run(t, f, prune.Options{Decisions: keep(5)})
		f.Store.SetHook(nil)
		got := f.CheckAll(t, f.Store)
		if !slices.Contains(got, 5) {
			t.Errorf("%v", got)
		}
	}
}

func TestPrunedCopyAndOriginal(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(3, 5)})
	to := mem.New()
	to.SetClock(func() time.Time { return f.Now })
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	f.Now = f.Now.Add(15 * day)
	run(t, f, prune.Options{Decisions: keep(3, 5)})
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	// The copy has records of removals that it has not done, and does them.
	onCopy := *f
	onCopy.Store, onCopy.Repo = to, f.Open(t, to)
	wantThere(t, &onCopy, 1, 2, 3, 4, 5)
	f.Now = f.Now.Add(time.Minute)
	onCopy.Now = f.Now
	rep := run(t, &onCopy, prune.Options{Decisions: keep(3, 5)})
	if len(rep.Removed) != 3 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, &onCopy, 3, 5)
}

func TestDirectory(t *testing.T) {
	f := history(t)
	dir := t.TempDir()
	to, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	repo := f.Open(t, to)
	for range 2 {
		_, err := prune.Run(t.Context(), repo, f.Source, prune.Options{Decisions: keep(5), Force: true, Wait: time.Nanosecond, Age: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		age(t, dir, time.Hour)
	}
	if diff := cmp.Diff([]uint64{5}, f.CheckAll(t, to)); diff != "" {
		t.Error(diff)
	}
	inv := 0
	if err := to.List(t.Context(), layout.PackPrefix(f.Source), func(objstore.Info) error { inv++; return nil }); err != nil || inv != 2 {
		t.Errorf("%d packs left, %v", inv, err)
	}
}

// age lets all files below dir be older: between two runs on a fast machine no clock of a file system need go on.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := info.ModTime().Add(-by)
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

var errCrash = errors.New("crash")

// TestCrashAnywhere stops a run at each call of the store, when it took effect. Whatever is left, all
// snapshots that are listed are complete and verify finds nothing wrong; the next run comes to the same end.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	f := history(t)
	f.Abandon(t, repotest.Tree{"/srv/y": repotest.Noise(99, 10_000)})
	run(t, f, prune.Options{Decisions: keep(1, 2, 4, 5)})
	f.Now = f.Now.Add(15 * day)
	start := f.Store
	// 3 is removed, 1 is condemned, and what is left over is swept.
	decisions := keep(2, 4, 5)
	end := *f
	end.Store = start.Clone()
	end.Repo = f.Open(t, end.Store)
	run(t, &end, prune.Options{Decisions: decisions})
	wantThere(t, &end, 1, 2, 4, 5)
	want := end.Store.Keys()
	// One before a call leaves what one after the call before it leaves: calls come one after the other.
	crashes := 0
	for n := 1; ; n++ {
		g := *f
		g.Store = start.Clone()
		g.Repo = f.Open(t, g.Store)
		first := g.Store.Calls()
		g.Store.SetHook(func(c mem.Call) mem.Fault {
			switch {
			case c.Number < first+n:
				return mem.Fault{}
			case c.Number == first+n:
				return mem.Fault{Err: errCrash, Persisted: true}
			}
			return mem.Fault{Err: errCrash}
		})
		opts := prune.Options{Decisions: decisions, Force: true, Now: func() time.Time { return f.Now }}
		_, err := prune.Run(t.Context(), g.Repo, f.Source, opts)
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
		crashes++
		g.Store = g.Store.Clone()
		g.Repo = f.Open(t, g.Store)
		g.CheckAll(t, g.Store)
		if res, err := verify.Run(t.Context(), g.Repo, verify.Options{Level: verify.Content}); err != nil || len(res.Findings) > 0 {
			t.Errorf("crash at call %d: verify: %v, %+v", n, err, res.Findings)
		}
		run(t, &g, prune.Options{Decisions: decisions})
		if diff := cmp.Diff(want, without(g.Store.Keys(), "/receipts/")); diff != "" {
			t.Fatalf("crash at call %d: the next run comes to another end: %s", n, diff)
		}
		if diff := cmp.Diff([]uint64{1, 2, 4, 5}, g.CheckAll(t, g.Store)); diff != "" {
			t.Errorf("crash at call %d: %s", n, diff)
		}
	}
	if crashes < 20 {
		t.Errorf("only %d crashes", crashes)
	}
}

// without leaves out receipts: whether a run needed one to learn the time differs.
func without(keys []string, part string) []string {
	return slices.DeleteFunc(keys, func(k string) bool { return strings.Contains(k, part) })
}
