package verify_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestRollback(t *testing.T) {
	f := history(t)
	seen := run(t, f, f.Store, verify.Options{Level: verify.Structure}).Sources[0].Head
	expect := map[snapshot.Source]verify.Seen{f.Source: seen}
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Structure, Expect: expect}))

	newest := layout.ManifestKey(f.ID(4))
	store := f.Store.Clone()
	store.Tamper(newest, nil)
	wantOK(t, run(t, f, store, verify.Options{Level: verify.Structure}))
	res := run(t, f, store, verify.Options{Level: verify.Structure, Expect: expect})
	if at := find(res, newest); at == nil || at.Problem != verify.RolledBack || res.OK() {
		t.Errorf("newest gone: %+v", res.Findings)
	}
	for _, key := range store.Keys() {
		if strings.HasPrefix(key, layout.SourcePrefix(f.Source)) {
			store.Tamper(key, nil)
		}
	}
	res = run(t, f, store, verify.Options{Level: verify.Structure, Expect: expect})
	if at := find(res, newest); at == nil || at.Problem != verify.RolledBack {
		t.Errorf("all gone: %+v", res.Findings)
	}
	expect[f.Source] = verify.Seen{Sequence: 4, Manifest: snapshot.Hash{1}}
	res = run(t, f, f.Store, verify.Options{Level: verify.Structure, Expect: expect})
	if at := find(res, newest); at == nil || at.Problem != verify.RolledBack {
		t.Errorf("replaced: %+v", res.Findings)
	}
	res = run(t, f, f.Store, verify.Options{Level: verify.Structure, Access: 2})
	if at := find(res, layout.AccessKey(2)); at == nil || at.Problem != verify.RolledBack {
		t.Errorf("access: %+v", res.Findings)
	}
}

// TestReadOnlyStoreIsChecked checks that a copy to which nothing can be written is judged like any other.
func TestReadOnlyStoreIsChecked(t *testing.T) {
	for _, cause := range []error{objstore.ErrDenied, objstore.ErrFull} {
		f := history(t)
		f.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == mem.Put {
				return mem.Fault{Err: cause}
			}
			return mem.Fault{}
		})
		res := run(t, f, f.Store, verify.Options{Level: verify.Bytes, Record: true})
		wantOK(t, res)
		if res.Recorded || !errors.Is(res.Unrecorded, cause) || len(res.Snapshots) != 4 {
			t.Errorf("%v: recorded %v, %v", cause, res.Recorded, res.Unrecorded)
		}
	}
}

func TestExpiredRecordsExplainGaps(t *testing.T) {
	f := history(t)
	m, err := f.Repo.Manifest(t.Context(), f.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	key := layout.ManifestKey(f.ID(1))
	f.Store.Tamper(key, nil)
	res := run(t, f, f.Store, verify.Options{Level: verify.Structure})
	if at := find(res, key); at == nil || at.Problem != verify.Missing || res.Snapshots[0].ID != f.ID(1) || res.Snapshots[0].Pass {
		t.Errorf("stolen: %+v", res)
	}
	wrong := f.Store.Clone()
	put := func(store *mem.Store, e record.Expired) {
		if err := f.Open(t, store).PutDocument(t.Context(), layout.ExpiredKey(f.ID(1)), e); err != nil {
			t.Fatal(err)
		}
	}
	put(f.Store, record.Expired{Sequence: 1, Manifest: m.Hash.String(), Previous: m.Previous, Time: f.Now})
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
	put(wrong, record.Expired{Sequence: 1, Manifest: snapshot.Hash{}.String(), Time: f.Now})
	res = run(t, f, wrong, verify.Options{Level: verify.Structure})
	if at := find(res, layout.ManifestKey(f.ID(2))); at == nil || at.Problem != verify.Unlinked {
		t.Errorf("wrong record: %+v", res.Findings)
	}
}

func TestStoreErrorsAreNotTakenForDamage(t *testing.T) {
	f := history(t)
	store := f.Store.Clone()
	repo := f.Open(t, store)
	down := errors.New("connection reset")
	key := repotest.Keys(store, "/packs/")[0]
	store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && c.Key == key {
			return mem.Fault{Err: down}
		}
		return mem.Fault{}
	})
	res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	if at := find(res, key); at == nil || at.Problem != verify.Unreadable || res.OK() {
		t.Errorf("%+v", res.Findings)
	}
	if len(repotest.Keys(store, "/damaged/")) != 0 {
		t.Error("a pack that could not be read is recorded as damaged")
	}
	store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.List {
			return mem.Fault{Err: down}
		}
		return mem.Fault{}
	})
	if _, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Structure}); !errors.Is(err, down) {
		t.Errorf("a store that does not list: %v", err)
	}
}

// TestOthersAtWork: a backup and a prune that run meanwhile are not taken for damage.
func TestOthersAtWork(t *testing.T) {
	f := history(t)
	m, err := f.Repo.Manifest(t.Context(), f.ID(4))
	if err != nil {
		t.Fatal(err)
	}
	f.Backup(t, snapshot.Full, f.Trees[4])
	store := f.Store.Clone()
	f = f.Fork(t, store)
	var backup, prune atomic.Bool
	store.SetHook(func(c mem.Call) mem.Fault {
		switch {
		case c.Op == mem.List && c.Key == layout.SourcePrefix(f.Source) && backup.CompareAndSwap(false, true):
			f.Backup(t, snapshot.Full, f.Trees[4])
		case c.Op == mem.Get && strings.Contains(c.Key, "/lists/") && prune.CompareAndSwap(false, true):
			err := f.Repo.PutDocument(t.Context(), layout.ExpiredKey(m.ID()), record.Expired{
				Sequence: 4, Manifest: m.Hash.String(), Previous: m.Previous, Time: f.Now,
			})
			if err != nil {
				t.Error(err)
			}
			for _, key := range store.Keys() {
				if strings.Contains(key, "snapshots/0000000004") || strings.Contains(key, "/packs/"+m.Chain) || strings.Contains(key, m.Lists[0].List) {
					store.Tamper(key, nil)
				}
			}
		}
		return mem.Fault{}
	})
	res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content, Record: true})
	if err != nil || !backup.Load() || !prune.Load() {
		t.Fatal(err)
	}
	wantOK(t, res)
	if len(res.Snapshots) != 4 || len(repotest.Keys(store, "/damaged/")) != 0 {
		t.Errorf("%+v", res.Snapshots)
	}
}
