package prune_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/retention"
)

// lifecycle opens the repository as the function does that removes.
func lifecycle(t *testing.T, f *repotest.Fixture) *repository.Repository {
	t.Helper()
	return repotest.OpenAs(t, f.Store, f.Grant(t, "*", "condemned", "expired", "receipts/cloud"))
}

// TestLimitedSigner removes snapshots with a signer that can make none, and everything counts for others.
func TestLimitedSigner(t *testing.T) {
	f := history(t)
	repo := lifecycle(t, f)
	journal := map[string]bool{}
	var mu sync.Mutex
	opts := prune.Options{
		Decisions: keep(5), Force: true, Place: layout.ReceiptCloud, Workers: 4, Receipts: true, Now: func() time.Time { return f.Now },
		Journal: func(_ context.Context, keys []string) error {
			mu.Lock()
			defer mu.Unlock()
			for _, key := range keys {
				if _, there := f.Store.Object(key); !there {
					t.Errorf("%s is in the journal and not there", key)
				}
				journal[key] = true
			}
			return nil
		},
	}
	removed := 0
	for range 6 {
		before := map[string]bool{}
		for _, key := range f.Store.Keys() {
			before[key] = true
		}
		rep, err := prune.Run(t.Context(), repo, f.Source, opts)
		if err != nil {
			t.Fatal(err)
		}
		removed += len(rep.Removed)
		for _, key := range f.Store.Keys() {
			delete(before, key)
		}
		for key := range before {
			if !journal[key] {
				t.Errorf("%s was deleted and is not in the journal", key)
			}
		}
		f.Now = f.Now.Add(6 * day)
	}
	wantThere(t, f, 5)
	if removed != 4 || len(repotest.Keys(f.Store, "/receipts/host/")) != 0 {
		t.Errorf("%d removed, %v", removed, repotest.Keys(f.Store, "/receipts/host/"))
	}
	if left := repotest.Keys(f.Store, "/packs/"); len(left) > 2 {
		t.Errorf("%v", left)
	}
}

// TestReceiptsOfTheGone go when they are old enough, and no others.
func TestReceiptsOfTheGone(t *testing.T) {
	f := history(t)
	for n := uint64(1); n <= 5; n++ {
		err := f.Repo.PutDocument(t.Context(), layout.ReceiptKey(f.ID(n), layout.ReceiptHost, f.Now, "bytes"), map[string]any{"sequence": n})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		run(t, f, prune.Options{Decisions: keep(3, 5), Receipts: true, Place: layout.ReceiptCloud})
		f.Now = f.Now.Add(8 * day)
	}
	if left := repotest.Keys(f.Store, "/receipts/host/"); len(left) != 2 {
		t.Errorf("%v", left)
	}
}

// TestJournalStops has a journal that can't be written, or that somebody has frozen: nothing more goes.
func TestJournalStops(t *testing.T) {
	stop := errors.New("frozen")
	for allowed := range 8 {
		f := history(t)
		run(t, f, prune.Options{Decisions: keep(5)})
		f.Now = f.Now.Add(20 * day)
		calls, count := 0, map[string]bool{}
		_, err := prune.Run(t.Context(), f.Repo, f.Source, prune.Options{
			Decisions: keep(5), Force: true, Now: func() time.Time { return f.Now },
			Journal: func(_ context.Context, keys []string) error {
				if calls++; calls > allowed {
					return stop
				}
				for _, key := range keys {
					count[key] = true
				}
				return nil
			},
		})
		if !errors.Is(err, stop) {
			t.Fatalf("%d: %v", allowed, err)
		}
		if n := f.Store.Count(mem.Delete); n > len(count) {
			t.Errorf("%d deleted, %d in the journal", n, len(count))
		}
		f.CheckAll(t, f.Store)
		run(t, f, prune.Options{Decisions: keep(5)})
		wantThere(t, f, 5)
	}
}

// TestConfirm agrees to one plan and to no other.
func TestConfirm(t *testing.T) {
	f := history(t)
	attempt := func(confirm string, keep []retention.Decision) (*prune.Report, error) {
		return prune.Run(t.Context(), f.Repo, f.Source, prune.Options{Decisions: keep, Confirm: confirm, Now: func() time.Time { return f.Now }})
	}
	rep, err := attempt("", keep(1, 2, 5))
	if !errors.Is(err, retention.ErrTooMany) || len(rep.Plan) != 32 || len(rep.Condemned) != 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if diff := cmp.Diff([]uint64{3, 4}, sequences(rep.Blocked)); diff != "" {
		t.Error(diff)
	}
	plan := rep.Plan
	if _, err := attempt(plan, keep(2, 5)); !errors.Is(err, retention.ErrTooMany) {
		t.Errorf("another plan passes: %v", err)
	}
	if rep, err := attempt(plan, keep(1, 2, 5)); err != nil || len(rep.Condemned) != 2 || rep.Plan != "" {
		t.Errorf("%v, %+v", err, rep)
	}
}

// TestLockedSnapshots stay, without a record of their removal, until their locks end.
func TestLockedSnapshots(t *testing.T) {
	f := history(t)
	f.Store.KeepLocks(30 * day)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(10 * day)
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	if len(rep.Removed) != 0 || len(rep.Kept) < 4 || rep.Kept[0].Reason != prune.Locked || len(repotest.Keys(f.Store, "/expired/")) != 0 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 1, 2, 3, 4, 5)
	f.Now = f.Now.Add(60 * day)
	if rep := run(t, f, prune.Options{Decisions: keep(5)}); len(rep.Removed) != 4 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 5)
}
