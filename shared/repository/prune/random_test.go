package prune_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestRandomHistories backs up from two hosts of one name, kills backups, marks packs as damaged, condemns and removes,
// in any order. Whatever is listed must restore and verify after every step.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			randomHistory(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func randomHistory(t *testing.T, rng *rand.Rand) {
	f := repotest.New(t)
	hosts := []*repotest.Fixture{f, f.Fork(t, f.Store)}
	tree := repotest.Tree{"/srv/keep": repotest.Noise(1, 30_000)}
	past := []repotest.Tree{tree}
	var keys []string // of all objects, a step before
	for range 40 {
		f.Now = f.Now.Add(time.Duration(rng.IntN(80)) * time.Hour)
		switch n := rng.IntN(10); {
		case n == 0:
			f.Abandon(t, tree.With("/srv/killed", repotest.Noise(rng.Uint64(), 9_000)))
		case n == 1:
			damage(t, f, rng)
		case n == 2:
			tree = past[rng.IntN(len(past))] // comes back
		case n == 5:
			tree = repotest.Tree{"/srv/other": repotest.Noise(rng.Uint64(), 30_000)} // nothing stays
		case n <= 4:
			var decisions []retention.Decision
			for n := uint64(1); n <= 60; n++ {
				decisions = append(decisions, retention.Decision{Sequence: n, Keep: rng.IntN(6) > 0})
			}
			run(t, f, prune.Options{Decisions: decisions})
		default:
			path := fmt.Sprintf("/srv/d%d/f%d", rng.IntN(3), rng.IntN(12))
			content := repotest.Noise(rng.Uint64(), 1+rng.IntN(60_000))
			if rng.IntN(4) == 0 {
				content = nil
			}
			tree = tree.With(path, content)
			past = append(past, tree)
		}
		kind := []snapshot.SnapshotType{"", "", snapshot.Differential, snapshot.Differential, snapshot.Full}[rng.IntN(17)/4]
		host := hosts[rng.IntN(2)]
		host.Now = f.Now
		m := host.Backup(t, kind, tree)
		for _, h := range hosts {
			h.Trees[m.Sequence] = tree
		}
		now := f.Store.Keys()
		if slices.ContainsFunc(keys, func(key string) bool { _, there := slices.BinarySearch(now, key); return !there }) {
			f.CheckAll(t, f.Store)
		} else { // nothing was removed: what was whole is
			wantWhole(t, f, m)
		}
		keys = now
	}
	f.CheckAll(t, f.Store)
	res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("verify: %v, %+v", err, res.Findings)
	}
}

// wantWhole restores a snapshot and compares it with what was backed up.
func wantWhole(t *testing.T, f *repotest.Fixture, m *repository.Stored) {
	t.Helper()
	got, err := repotest.Restore(t.Context(), f.Open(t, f.Store), m)
	if err != nil {
		t.Fatalf("restore %s: %v", m.ID(), err)
	}
	if !maps.EqualFunc(got, f.Trees[m.Sequence], bytes.Equal) {
		t.Fatalf("%s restores as another tree", m.ID())
	}
}

// damage marks a pack of some snapshot. It is in order: what matters is that later snapshots do without.
func damage(t *testing.T, f *repotest.Fixture, rng *rand.Rand) {
	t.Helper()
	manifests, err := f.Repo.Manifests(t.Context(), f.Source)
	if err != nil || len(manifests) == 0 {
		return
	}
	m := manifests[rng.IntN(len(manifests))]
	packs, err := f.Repo.Lists(t.Context(), m.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	p := packs[rng.IntN(len(packs))]
	key := layout.DamagedKey(f.Source, p.ID)
	if slices.Contains(f.Store.Keys(), key) {
		return
	}
	if err := f.Repo.PutDocument(t.Context(), key, record.Damaged{Pack: p.ID.String(), Chain: m.Chain, Time: f.Now, Problem: "test"}); err != nil {
		t.Fatal(err)
	}
}
