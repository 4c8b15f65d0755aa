package verify_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func arrival(t *testing.T, f *repotest.Fixture, repo *repository.Repository, n uint64) (*verify.Result, bool) {
	t.Helper()
	res, done, err := verify.Arrival(t.Context(), repo, f.ID(n), cloudOptions(f))
	if err != nil {
		t.Fatal(err)
	}
	return res, done
}

func TestArrival(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	for n := uint64(1); n <= 4; n++ {
		res, done := arrival(t, f, repo, n)
		wantOK(t, res)
		if done || len(res.Snapshots) != 1 || res.Snapshots[0].Packs == 0 || !res.Recorded {
			t.Errorf("%d: %+v", n, res)
		}
		f.Now = f.Now.Add(time.Minute)
		if _, done := arrival(t, f, repo, n); !done {
			t.Errorf("%d: checked a second time", n)
		}
	}
	if got := receipts(t, f, "structure"); len(got) != 4 || len(repotest.Keys(f.Store, "/receipts/")) != 4 {
		t.Errorf("%v", got)
	}
	if _, _, err := verify.Arrival(t.Context(), repo, f.ID(9), cloudOptions(f)); !errors.Is(err, repository.ErrNoSnapshot) {
		t.Error(err)
	}
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
}

// TestArrivalNames damages each object in turn; what the snapshot needs must be named, and its receipt says so.
func TestArrivalNames(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	last := f.ID(3)
	keys := append(repotest.Keys(f.Store, "/packs/"), repotest.Keys(f.Store, "/lists/")...)
	keys = append(keys, repotest.Keys(f.Store, "/keys/")...)
	keys = append(keys, layout.ManifestKey(last), layout.ManifestKey(f.ID(2)))
	hits := 0
	for _, key := range keys {
		broken := f.Store.Clone()
		broken.Tamper(key, nil)
		if key == layout.ManifestKey(last) {
			doc, _ := f.Store.Object(key)
			broken.Tamper(key, append(slices.Clone(doc[:len(doc)-3]), 'A', '"', '\n'))
		}
		on := *f
		on.Store = broken
		res, _, err := verify.Arrival(t.Context(), repotest.OpenAs(t, broken, repo.Identity()), last, cloudOptions(&on))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		full := run(t, f, broken, verify.Options{Level: verify.Structure, Snapshots: []snapshot.ID{last}})
		if (find(full, key) != nil) != (find(res, key) != nil) {
			t.Errorf("%s: %+v", key, res.Findings)
		}
		if want := slices.Contains(failed(full), 3); want == res.Snapshots[0].Pass {
			t.Errorf("%s: pass is %v", key, res.Snapshots[0].Pass)
		} else if want {
			hits++
		}
	}
	if hits < 3 {
		t.Errorf("only %d hit it", hits)
	}
}

// TestArrivalForged has a manifest that the control plane's signer signed, and one after a gap.
func TestArrivalForged(t *testing.T) {
	f := history(t)
	id := f.Grant(t, "*", "receipts/cloud", "damaged")
	repo := repotest.OpenAs(t, f.Store, id)
	signer, _ := id.Signer()
	key := layout.ManifestKey(f.ID(4))
	doc, _ := f.Store.Object(key)
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		t.Fatal(err)
	}
	f.Store.Tamper(key, keyring.Sign(signer, repo.ID(), key, payload))
	res, _ := arrival(t, f, repo, 4)
	if at := find(res, key); at == nil || at.Problem != verify.Untrusted || res.OK() {
		t.Errorf("%+v", res)
	}
	f.Store.Tamper(key, doc)
	f.Store.Tamper(layout.ManifestKey(f.ID(3)), nil)
	res, _ = arrival(t, f, repo, 4)
	if at := find(res, layout.ManifestKey(f.ID(3))); at == nil || at.Problem != verify.Missing || !res.Snapshots[0].Pass {
		t.Errorf("%+v", res)
	}
}

// TestArrivalCosts the same however many snapshots there are.
func TestArrivalCosts(t *testing.T) {
	f := repotest.New(t)
	var calls []int
	for n := range 12 {
		f.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(uint64(n), 1000)})
		f.Now = f.Now.Add(time.Hour)
		repo, before := f.Repo, f.Store.Calls()
		arrival(t, f, repo, uint64(n+1))
		calls = append(calls, f.Store.Calls()-before)
	}
	if calls[11] > calls[1]+12 || f.Store.Count(mem.Put) == 0 { // each has a list of its own to read
		t.Errorf("calls of the store: %v", calls)
	}
}

// TestArrivalTrouble is no verdict.
func TestArrivalTrouble(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	trouble := objstore.Transient(errors.New("slow down"))
	for _, op := range []mem.Op{mem.Stat, mem.Get, mem.List} {
		f.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == op {
				return mem.Fault{Err: trouble}
			}
			return mem.Fault{}
		})
		if _, _, err := verify.Arrival(t.Context(), repo, f.ID(2), cloudOptions(f)); !errors.Is(err, trouble) {
			t.Errorf("%s: %v", op, err)
		}
	}
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && strings.Contains(c.Key, "/lists/") {
			return mem.Fault{Err: trouble}
		}
		return mem.Fault{}
	})
	if _, _, err := verify.Arrival(t.Context(), repo, f.ID(2), cloudOptions(f)); !errors.Is(err, verify.ErrUnreadable) {
		t.Error(err)
	}
	f.Store.SetHook(nil)
	if len(repotest.Keys(f.Store, "/receipts/")) != 0 {
		t.Error("receipts of nothing")
	}
}
