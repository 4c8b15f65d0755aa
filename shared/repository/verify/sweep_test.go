package verify_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// cloud opens the fixture's repository as a function does whose signer may write receipts and records of damage.
func cloud(t *testing.T, f *repotest.Fixture) *repository.Repository {
	t.Helper()
	return repotest.OpenAs(t, f.Store, f.Grant(t, "*", "receipts/cloud", "damaged"))
}

func cloudOptions(f *repotest.Fixture) verify.Options {
	return verify.Options{Record: true, Place: layout.ReceiptCloud, Workers: 1, Now: func() time.Time { return f.Now }}
}

// receipts are the results of the control plane's receipts of a level, by snapshot.
func receipts(t *testing.T, f *repotest.Fixture, level string) map[uint64]string {
	t.Helper()
	out := map[uint64]string{}
	for _, key := range repotest.Keys(f.Store, "/receipts/cloud/") {
		var r record.Receipt
		if _, err := f.Open(t, f.Store).Document(t.Context(), key, &r); err != nil {
			t.Fatal(err)
		}
		if r.Level == level {
			out[r.Sequence] = r.Result
		}
	}
	return out
}

// sweep continues until it is done, each call with a budget of a byte, as a new process would.
func sweep(t *testing.T, f *repotest.Fixture, repo *repository.Repository, at verify.Sweep, between func(call int)) (end verify.Sweep, calls int, last *verify.Result) {
	t.Helper()
	for {
		text, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		at = verify.Sweep{}
		if err := json.Unmarshal(text, &at); err != nil {
			t.Fatal(err)
		}
		next, res, done, err := verify.Continue(t.Context(), repo, f.Source, at, verify.Budget{Bytes: 1}, cloudOptions(f))
		if err != nil {
			t.Fatal(err)
		}
		calls++
		if calls > 100 {
			t.Fatal("it never ends")
		}
		if done {
			return next, calls, res
		}
		at = next
		f.Now = f.Now.Add(time.Hour)
		if between != nil {
			between(calls)
		}
	}
}

func TestSweep(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	packs := len(repotest.Keys(f.Store, "/packs/"))
	arrival(t, f, repo, 4)
	end, calls, res := sweep(t, f, repo, verify.Sweep{}, func(call int) {
		if call == 1 {
			f.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/late": []byte("late")})
		}
		if call < 2 && len(receipts(t, f, "bytes")) > 0 {
			t.Error("a receipt before all was read")
		}
	})
	wantOK(t, res)
	if calls < 2 || end.Packs != packs {
		t.Errorf("%d calls, %+v, %d packs", calls, end, packs)
	}
	// What came later was not among them.
	if diff := gocmp.Diff(map[uint64]string{1: "pass", 2: "pass", 3: "pass", 4: "pass"}, receipts(t, f, "bytes")); diff != "" {
		t.Error(diff)
	}
	// What is new since then is read alone.
	fresh, _, res := sweep(t, f, repo, verify.Sweep{Since: end.Horizon}, nil)
	wantOK(t, res)
	if fresh.Packs != len(repotest.Keys(f.Store, "/packs/"))-packs || fresh.Packs == 0 {
		t.Errorf("%+v", fresh)
	}
	if got := receipts(t, f, "bytes"); got[5] != "pass" || len(got) != 5 {
		t.Errorf("%v", got)
	}
	wantOK(t, run(t, f, f.Store, verify.Options{Level: verify.Content}))
	// A manifest that came in the very second of the horizon is read once more rather than never.
	last, err := f.Repo.Manifest(t.Context(), f.ID(5))
	if err != nil {
		t.Fatal(err)
	}
	if again, _, _ := sweep(t, f, repo, verify.Sweep{Since: last.Arrived}, nil); again.Packs == 0 {
		t.Error("it counts as read")
	}
}

// TestSweepFindsDamage damages each pack before and in the midst of a sweep.
func TestSweepFindsDamage(t *testing.T) {
	for i := range len(repotest.Keys(history(t).Store, "/packs/")) {
		f := history(t)
		repo := cloud(t, f)
		keys := repotest.Keys(f.Store, "/packs/")
		good, _ := f.Store.Object(keys[i])
		f.Store.Tamper(keys[i], append([]byte("x"), good[1:]...))
		want := failed(run(t, f, f.Store, verify.Options{Level: verify.Bytes}))
		_, _, res := sweep(t, f, repo, verify.Sweep{}, nil)
		if diff := gocmp.Diff(want, failed(res)); diff != "" || len(want) == 0 {
			t.Error(diff)
		}
		for n, result := range receipts(t, f, "bytes") {
			if (result == "fail") != slices.Contains(want, n) {
				t.Errorf("pack %d, snapshot %d: %s", i, n, result)
			}
		}
		if len(repotest.Keys(f.Store, "/damaged/")) != 1 {
			t.Error("no record of the damage")
		}
	}
}

// TestSweepRepaired ends good where what was bad was put back, and bad where something went missing behind its back.
func TestSweepRepaired(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	keys := repotest.Keys(f.Store, "/packs/")
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(a[len(a)-64:], b[len(b)-64:]) })
	good, _ := f.Store.Object(keys[0])
	f.Store.Tamper(keys[0], good[:len(good)-1])
	at, res, done, err := verify.Continue(t.Context(), repo, f.Source, verify.Sweep{}, verify.Budget{Bytes: 1}, cloudOptions(f))
	if err != nil || done || len(at.Bad) != 1 || len(failed(res)) == 0 {
		t.Fatal(at, done, err)
	}
	for _, n := range failed(res) {
		if receipts(t, f, "bytes")[n] != "fail" {
			t.Errorf("no receipt of the failure of %d", n)
		}
	}
	f.Store.Tamper(keys[0], good)
	f.Now = f.Now.Add(time.Hour)
	end, _, res := sweep(t, f, repo, at, nil)
	if len(failed(res)) > 0 || end.TooBad {
		t.Errorf("%+v", res.Findings)
	}
	// A pack that was read and is gone by the end.
	at, _, done, err = verify.Continue(t.Context(), repo, f.Source, verify.Sweep{}, verify.Budget{Bytes: 1}, cloudOptions(f))
	if err != nil || done {
		t.Fatal(done, err)
	}
	f.Store.Tamper(keys[0], nil)
	f.Now = f.Now.Add(time.Hour)
	if _, _, res := sweep(t, f, repo, at, nil); find(res, keys[0]) == nil || len(failed(res)) == 0 {
		t.Errorf("%+v", res.Findings)
	}
}

// TestSweepStops ends a call by the clock, and by its context without losing what was found.
func TestSweepStops(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	next, _, done, err := verify.Continue(t.Context(), repo, f.Source, verify.Sweep{}, verify.Budget{Stop: func() bool { return true }}, cloudOptions(f))
	if err != nil || done || next.Packs != 0 || next.Horizon.IsZero() {
		t.Error(next, done, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && len(c.Key) > 64 && repotest.Keys(f.Store, "/packs/")[1] == c.Key {
			cancel()
		}
		return mem.Fault{}
	})
	_, _, done, err = verify.Continue(ctx, repo, f.Source, verify.Sweep{}, verify.Budget{}, cloudOptions(f))
	if !errors.Is(err, context.Canceled) || done {
		t.Error(done, err)
	}
}

// TestSweepLimitedSigner has a signer that may only write receipts.
func TestSweepLimitedSigner(t *testing.T) {
	f := history(t)
	repo := repotest.OpenAs(t, f.Store, f.Grant(t, "*", "receipts/cloud"))
	f.Store.Tamper(repotest.Keys(f.Store, "/packs/")[0], []byte("x"))
	if _, _, res := sweep(t, f, repo, verify.Sweep{}, nil); len(failed(res)) == 0 {
		t.Error("the damage was not found")
	}
	if len(repotest.Keys(f.Store, "/damaged/")) != 0 {
		t.Error("it wrote what it may not")
	}
	if res := run(t, f, f.Store, verify.Options{Level: verify.Bytes}); find(res, repotest.Keys(f.Store, "/receipts/cloud/")[0]) != nil {
		t.Error("its receipts do not count")
	}
}

// TestSweepUnreadable passes no verdict on what the store does not give.
func TestSweepUnreadable(t *testing.T) {
	f := history(t)
	repo := cloud(t, f)
	key := repotest.Keys(f.Store, "/packs/")[0]
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && c.Key == key {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	_, _, res := sweep(t, f, repo, verify.Sweep{}, nil)
	if at := find(res, key); at == nil || at.Problem != verify.Unreadable {
		t.Errorf("%+v", res.Findings)
	}
	for n, result := range receipts(t, f, "bytes") {
		if result == "fail" || slices.Contains(failed(res), n) {
			t.Errorf("%d: %s", n, result)
		}
	}
	if len(repotest.Keys(f.Store, "/damaged/")) != 0 {
		t.Error("on record as damaged")
	}
}
