package prune_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const day = 24 * time.Hour

// history makes two chains: 1 full, 2 and 3 incremental; 4 full, 5 incremental.
func history(t *testing.T) *repotest.Fixture {
	f := repotest.New(t)
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 30_000), "/srv/d/b": repotest.Noise(2, 20_000)}
	for n := uint64(1); n <= 5; n++ {
		kind := snapshot.Incremental
		if n == 1 || n == 4 {
			kind = snapshot.Full
		}
		tree = tree.With("/srv/a", repotest.Noise(10+n, 30_000))
		f.Backup(t, kind, tree)
		f.Now = f.Now.Add(time.Hour)
	}
	return f
}

// keep are the decisions to keep these snapshots and no other.
func keep(numbers ...uint64) []retention.Decision {
	var out []retention.Decision
	for n := uint64(1); n <= 9; n++ {
		d := retention.Decision{Sequence: n, Keep: slices.Contains(numbers, n), Reasons: []string{"no rule keeps it"}}
		if d.Keep {
			d.Reasons = []string{"daily"}
		}
		out = append(out, d)
	}
	return out
}

func run(t *testing.T, f *repotest.Fixture, opts prune.Options) *prune.Report {
	t.Helper()
	opts.Force = true
	if opts.Now == nil {
		opts.Now = func() time.Time { return f.Now }
	}
	rep, err := prune.Run(t.Context(), f.Repo, f.Source, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func sequences(actions []prune.Action) []uint64 {
	var out []uint64
	for _, a := range actions {
		out = append(out, a.Snapshot.Sequence)
	}
	return out
}

func wantThere(t *testing.T, f *repotest.Fixture, want ...uint64) {
	t.Helper()
	if diff := cmp.Diff(want, f.CheckAll(t, f.Store)); diff != "" {
		t.Errorf("snapshots: %s", diff)
	}
	res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content})
	if err != nil || len(res.Findings) > 0 {
		t.Errorf("verify: %v, %+v", err, res.Findings)
	}
}

func TestTwoPhases(t *testing.T) {
	f := history(t)
	decisions := keep(3, 5)
	rep := run(t, f, prune.Options{Decisions: decisions})
	if diff := cmp.Diff([]uint64{1, 2, 4}, sequences(rep.Condemned)); diff != "" || len(rep.Removed) != 0 || rep.Freed != 0 {
		t.Errorf("%s; %+v", diff, rep)
	}
	if rep.Condemned[0].Reasons[0] != "no rule keeps it" {
		t.Errorf("%+v", rep.Condemned)
	}
	wantThere(t, f, 1, 2, 3, 4, 5)

	f.Now = f.Now.Add(7*day - time.Minute)
	rep = run(t, f, prune.Options{Decisions: decisions})
	if len(rep.Waiting) != 3 || len(rep.Removed)+len(rep.Condemned) != 0 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 1, 2, 3, 4, 5)

	f.Now = f.Now.Add(2 * time.Minute)
	rep = run(t, f, prune.Options{Decisions: decisions})
	if diff := cmp.Diff([]uint64{1, 2, 4}, sequences(rep.Removed)); diff != "" || rep.Packs != 0 || rep.Lists != 0 || len(rep.Kept) == 0 {
		t.Errorf("%s; %+v", diff, rep)
	}
	wantThere(t, f, 3, 5)
	if left := repotest.Keys(f.Store, "/condemned/"); len(left) != 0 {
		t.Errorf("announcements left: %v", left)
	}

	packs := len(repotest.Keys(f.Store, "/packs/"))
	f.Now = f.Now.Add(7 * day)
	rep = run(t, f, prune.Options{Decisions: decisions})
	if rep.Packs != 1 || rep.Freed < 30_000 {
		t.Errorf("%+v", rep)
	}
	if n := len(repotest.Keys(f.Store, "/packs/")); n != packs-rep.Packs {
		t.Errorf("%d packs, then %d", packs, n)
	}
	wantThere(t, f, 3, 5)
	puts := f.Store.Count(mem.Put)
	rep = run(t, f, prune.Options{Decisions: decisions})
	if rep.Freed != 0 || f.Store.Count(mem.Put) != puts {
		t.Errorf("nothing is left to do, but: %+v", rep)
	}
	// Backups go on as before.
	m := f.Backup(t, snapshot.Incremental, f.Trees[5].With("/srv/x", []byte("x")))
	if m.Sequence != 6 || m.Type != snapshot.Incremental {
		t.Errorf("%+v", m.Manifest)
	}
	wantThere(t, f, 3, 5, 6)
}

func TestChainsGoWithTheirKeys(t *testing.T) {
	f := history(t)
	keys := len(repotest.Keys(f.Store, "/keys/"))
	run(t, f, prune.Options{Decisions: keep(4, 5)})
	f.Now = f.Now.Add(8 * day)
	rep := run(t, f, prune.Options{Decisions: keep(4, 5)})
	if rep.Keys != 0 || len(rep.Removed) != 3 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 4, 5)
	f.Now = f.Now.Add(7 * day)
	rep = run(t, f, prune.Options{Decisions: keep(4, 5)})
	if rep.Keys != 1 || rep.Packs != 3 || rep.Lists != 3 || len(repotest.Keys(f.Store, "/keys/")) != keys-1 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 4, 5)
}

func TestKilledBackups(t *testing.T) {
	f := history(t)
	f.Abandon(t, repotest.Tree{"/srv/y": repotest.Noise(99, 10_000)})
	f.Now = f.Now.Add(13 * day)
	f.Abandon(t, repotest.Tree{"/srv/z": repotest.Noise(98, 10_000)})
	all := keep(1, 2, 3, 4, 5)
	rep := run(t, f, prune.Options{Decisions: all})
	if rep.Packs+rep.Keys != 0 || len(rep.Kept) != 4 {
		t.Errorf("%+v", rep)
	}
	f.Now = f.Now.Add(2 * day)
	rep = run(t, f, prune.Options{Decisions: all})
	if rep.Packs != 1 || rep.Keys != 1 || len(rep.Kept) != 2 {
		t.Errorf("%+v", rep)
	}
	wantThere(t, f, 1, 2, 3, 4, 5)
}

// TestWrongClocks: only the store's clock counts.
func TestWrongClocks(t *testing.T) {
	f := history(t)
	f.Abandon(t, repotest.Tree{"/srv/y": repotest.Noise(99, 10_000)})
	for _, now := range []time.Time{time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0), f.Now} {
		for range 3 {
			rep := run(t, f, prune.Options{Decisions: keep(5), Now: func() time.Time { return now }})
			now = now.Add(time.Second)
			if len(rep.Removed) != 0 || rep.Packs+rep.Lists+rep.Keys != 0 {
				t.Errorf("at %s: %+v", now, rep)
			}
		}
	}
	wantThere(t, f, 1, 2, 3, 4, 5)
	f.Now = f.Now.Add(8 * day)
	now := time.Unix(5, 0)
	if rep := run(t, f, prune.Options{Decisions: keep(5), Now: func() time.Time { return now }}); len(rep.Removed) != 4 {
		t.Errorf("%+v", rep)
	}
}

// TestHostClockJumps: a store on the host has the host's clock. When it jumps ahead nothing is removed early; daily
// runs let time pass as usual.
func TestHostClockJumps(t *testing.T) {
	f := history(t)
	opts := prune.Options{Decisions: keep(5), HostClock: true}
	run(t, f, opts)
	f.Now = f.Now.Add(day)
	for _, jump := range []time.Time{time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)} {
		real := f.Now
		f.Now = jump
		f.Backup(t, snapshot.Full, f.Trees[5])
		for range 3 {
			f.Now = f.Now.Add(time.Second)
			if rep := run(t, f, opts); len(rep.Removed) != 0 || rep.Packs+rep.Keys+rep.Lists != 0 {
				t.Errorf("%s: %+v", f.Now, rep)
			}
		}
		f.Now = real.Add(time.Hour)
	}
	days := 0
	for ; days < 20; days++ {
		f.Now = f.Now.Add(day)
		if rep := run(t, f, opts); len(rep.Removed) != 0 {
			break
		}
	}
	// One day passed before the jump, and the gap of the jumps does not lie in the past any more.
	if days != 5 {
		t.Errorf("removed after %d more days", days)
	}
}

func TestNewestAndUnknownAreKept(t *testing.T) {
	f := history(t)
	rep := run(t, f, prune.Options{Decisions: keep()[:2]})
	if diff := cmp.Diff([]uint64{1, 2}, sequences(rep.Condemned)); diff != "" {
		t.Error(diff)
	}
	rep = run(t, f, prune.Options{Decisions: keep()})
	if diff := cmp.Diff([]uint64{3, 4}, sequences(rep.Condemned)); diff != "" {
		t.Error(diff)
	}
	f.Now = f.Now.Add(30 * day)
	run(t, f, prune.Options{Decisions: keep()})
	wantThere(t, f, 5)
}

func TestGuard(t *testing.T) {
	f := history(t)
	before := f.Store.Keys()
	_, err := prune.Run(t.Context(), f.Repo, f.Source, prune.Options{Decisions: keep(1, 2, 5)})
	var many *retention.TooMany
	if !errors.As(err, &many) || many.Drop != 2 || many.Total != 5 || !errors.Is(err, retention.ErrTooMany) {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff(before, f.Store.Keys()); diff != "" {
		t.Error(diff)
	}
	rep, err := prune.Run(t.Context(), f.Repo, f.Source, prune.Options{Decisions: keep(1, 2, 3, 5)})
	if err != nil || len(rep.Condemned) != 1 {
		t.Errorf("a single one: %v, %+v", err, rep)
	}
}

func TestRetentionTakesItBack(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(8 * day)
	rep := run(t, f, prune.Options{Decisions: keep(2, 5)})
	if diff := cmp.Diff([]uint64{2}, sequences(rep.Withdrawn)); diff != "" {
		t.Error(diff)
	}
	wantThere(t, f, 2, 5)
	if _, err := f.Repo.Manifest(t.Context(), f.ID(1)); !errors.Is(err, repository.ErrNoSnapshot) {
		t.Errorf("%v", err)
	}
	if err := prune.Uncondemn(t.Context(), f.Repo, f.ID(1)); !errors.Is(err, repository.ErrNoSnapshot) {
		t.Errorf("%v", err)
	}
}

func TestForgedAnnouncementDoesNotCount(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(2, 3, 4, 5)})
	b, _ := f.Store.Object(layout.CondemnedKey(f.ID(1)))
	f.Store.Tamper(layout.CondemnedKey(f.ID(2)), b) // replayed
	f.Now = f.Now.Add(8 * day)
	rep := run(t, f, prune.Options{Decisions: keep(3, 4, 5)})
	if diff := cmp.Diff([]uint64{1}, sequences(rep.Removed)); diff != "" {
		t.Error(diff)
	}
	rep = run(t, f, prune.Options{Decisions: keep(3, 4, 5)})
	if diff := cmp.Diff([]uint64{2}, sequences(rep.Condemned)); diff != "" {
		t.Error(diff)
	}
	wantThere(t, f, 2, 3, 4, 5)
}

func TestDryRun(t *testing.T) {
	f := history(t)
	before := f.Store.Clone()
	rep := run(t, f, prune.Options{Decisions: keep(5), DryRun: true})
	if diff := cmp.Diff(before.Keys(), f.Store.Keys()); diff != "" || len(rep.Condemned) != 4 || !rep.DryRun {
		t.Errorf("%s; %+v", diff, rep)
	}
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(15 * day)
	before = f.Store.Clone()
	dry := run(t, f, prune.Options{Decisions: keep(5), DryRun: true})
	if diff := cmp.Diff(before.Keys(), f.Store.Keys()); diff != "" {
		t.Error(diff)
	}
	real := run(t, f, prune.Options{Decisions: keep(5)})
	dry.DryRun = false
	if diff := cmp.Diff(dry, real); diff != "" || len(real.Removed) != 4 || real.Packs == 0 {
		t.Errorf("a dry run shows something else: %s", diff)
	}
}

func TestBrokenManifestOrListStopsAll(t *testing.T) {
	for _, part := range []string{"/snapshots/", "/lists/"} {
		f := history(t)
		run(t, f, prune.Options{Decisions: keep(3, 5)})
		f.Now = f.Now.Add(15 * day)
		m, err := f.Repo.Manifest(t.Context(), f.ID(3))
		if err != nil {
			t.Fatal(err)
		}
		key := layout.ManifestKey(f.ID(3))
		if part == "/lists/" {
			key = layout.ListKey(f.Source, m.Lists[0].List)
		}
		b, _ := f.Store.Object(key)
		b[len(b)/2] ^= 1
		f.Store.Tamper(key, b)
		packs := repotest.Keys(f.Store, "/packs/")
		_, err = prune.Run(t.Context(), f.Repo, f.Source, prune.Options{Decisions: keep(3, 5), Now: func() time.Time { return f.Now }})
		if !errors.Is(err, prune.ErrBroken) {
			t.Errorf("%s: %v", part, err)
		}
		if diff := cmp.Diff(packs, repotest.Keys(f.Store, "/packs/")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestLockedObjects(t *testing.T) {
	f := history(t)
	run(t, f, prune.Options{Decisions: keep(5)})
	f.Now = f.Now.Add(15 * day)
	f.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Delete && !strings.HasSuffix(c.Key, "0000000001.json") {
			return mem.Fault{Err: objstore.ErrLocked}
		}
		return mem.Fault{}
	})
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	f.Store.SetHook(nil)
	if diff := cmp.Diff([]uint64{1}, sequences(rep.Removed)); diff != "" || rep.Packs+rep.Lists+rep.Keys != 0 || len(rep.Kept) != 3 {
		t.Errorf("%s; %+v", diff, rep)
	}
	wantThere(t, f, 2, 3, 4, 5)
	run(t, f, prune.Options{Decisions: keep(5), Now: func() time.Time { return f.Now.Add(time.Second) }})
	wantThere(t, f, 5)
}
