package observe_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const day = 24 * time.Hour

var dicePin = flag.Uint64("seed", 1, "seed of the dice; 0: another one each time")

// watched is a source that is looked at step by step.
type watched struct {
	*repotest.Fixture
	large bool // made to look like a source of more than a page
	m     *observe.Memory
}

func (w *watched) watch() *observe.Watch { return &observe.Watch{Repo: w.Repo} }

// look looks again, through a memory that was written down in between, and returns how many requests it took.
func (w *watched) look(t *testing.T, whole bool) (lists, gets int) {
	t.Helper()
	if w.m != nil {
		b, err := json.Marshal(w.m)
		if err != nil {
			t.Fatal(err)
		}
		m := &observe.Memory{}
		if err := json.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		if w.large {
			m.Objects = 5 * observe.Page
		}
		w.m = m
	}
	l, g := w.Store.Count(mem.List), w.Store.Count(mem.Get)
	m, err := w.watch().Look(t.Context(), w.Source, w.m, whole, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	w.m = m
	return w.Store.Count(mem.List) - l, w.Store.Count(mem.Get) - g
}

// same compares what was remembered with what the whole repository says.
func (w *watched) same(t *testing.T) {
	t.Helper()
	h, err := observe.Read(t.Context(), w.Repo, w.Source)
	if err != nil {
		t.Fatal(err)
	}
	o := &policy.Objectives{
		Tier: policy.High, RPO: policy.Duration(2 * time.Hour), Copies: 1, KeyCheck: policy.DefaultKeyCheck, Verify: policy.Duration(day),
	}
	want := h.Facts()
	got := w.m.Facts(w.Source)
	want.LastSeen = got.LastSeen
	want.CheckWithin, got.CheckWithin = time.Hour, time.Hour
	if !w.large {
		if got.Stored != want.Stored {
			t.Errorf("stored %d, want %d", got.Stored, want.Stored)
		}
	}
	if diff := cmp.Diff(compliance.Evaluate(o, *want, w.Now), compliance.Evaluate(o, *got, w.Now)); diff != "" {
		t.Errorf("(-whole repository +remembered):\n%s", diff)
	}
}

func (w *watched) verify(t *testing.T, level verify.Level) {
	t.Helper()
	_, err := verify.Run(t.Context(), w.Repo, verify.Options{Level: level, Sources: []snapshot.Source{w.Source}, Record: true, Now: func() time.Time { return w.Now }})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchSeesWhatTheRepositorySays(t *testing.T) {
	for _, large := range []bool{false, true} {
		t.Run(fmt.Sprintf("large %v", large), func(t *testing.T) {
			w := &watched{Fixture: repotest.New(t), large: large}
			w.look(t, false)
			w.same(t)
			tree := repotest.Tree{"/srv/a": repotest.Noise(1, 1000)}
			for i := range 20 {
				w.Now = w.Now.Add(time.Hour)
				tree = tree.With("/srv/b", repotest.Noise(uint64(i), 2000))
				w.Backup(t, snapshot.Incremental, tree)
				if _, gets := w.look(t, false); gets > 1 && i > 0 {
					t.Errorf("snapshot %d: %d reads for one manifest", i+1, gets)
				}
				w.same(t)
			}
			w.Now = w.Now.Add(time.Minute)
			w.verify(t, verify.Bytes)
			w.look(t, false)
			w.same(t)
			// A receipt of the control plane.
			m, err := w.Repo.Manifest(t.Context(), w.ID(20))
			if err != nil {
				t.Fatal(err)
			}
			key := layout.ReceiptKey(w.ID(20), layout.ReceiptCloud, w.Now, "structure")
			if err := w.Repo.PutDocument(t.Context(), key, record.Receipt{Sequence: 20, Manifest: m.Hash.String(), Level: "structure", Result: record.Pass, Finished: w.Now}); err != nil {
				t.Fatal(err)
			}
			w.look(t, false)
			w.same(t)
			// Nothing happened: one listing, whatever the size.
			w.Now = w.Now.Add(time.Minute)
			if lists, gets := w.look(t, false); lists != 1 || gets != 0 {
				t.Errorf("an unchanged source cost %d listings and %d reads", lists, gets)
			}
			w.same(t)
			damageAndLoss(t, w)
		})
	}
}

// damageAndLoss damages a pack, thins the history out, loses a manifest and breaks another.
func damageAndLoss(t *testing.T, w *watched) {
	t.Helper()
	pack := repotest.Keys(w.Store, "/packs/")[0]
	whole, _ := w.Store.Object(pack)
	broken := append([]byte{whole[0] ^ 1}, whole[1:]...)
	w.Store.Tamper(pack, broken)
	w.Now = w.Now.Add(time.Hour)
	w.verify(t, verify.Bytes)
	w.look(t, w.large) // records of damaged packs are for the audit, receipts are not
	w.same(t)
	var decisions []retention.Decision
	for n := uint64(1); n <= 20; n++ {
		decisions = append(decisions, retention.Decision{Sequence: n, Keep: n%2 == 0 || n > 15})
	}
	for range 2 {
		w.Now = w.Now.Add(8 * day)
		if _, err := prune.Run(t.Context(), w.Repo, w.Source, prune.Options{Decisions: decisions, Force: true, Now: func() time.Time { return w.Now }}); err != nil {
			t.Fatal(err)
		}
		w.look(t, w.large)
		w.same(t)
	}
	w.Store.Tamper(layout.ManifestKey(w.ID(18)), nil)
	w.look(t, false)
	w.same(t)
	w.Store.Tamper(layout.ManifestKey(w.ID(20)), []byte("garbage"))
	w.m = nil
	w.look(t, false)
	w.same(t)
}

// TestWatchAgainstTheWhole throws dice: backups, verifications, deletions, damage and losses in any order, and after each
// step what was remembered comes to the same judgement as everything that stands in the repository.
func TestWatchAgainstTheWhole(t *testing.T) {
	seed := *dicePin
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 2))
	w := &watched{Fixture: repotest.New(t), large: dice.IntN(2) == 0}
	tree := repotest.Tree{"/srv/a": repotest.Noise(1, 1000)}
	var last uint64
	steps := []func(){
		func() {
			tree = tree.With("/srv/b", repotest.Noise(dice.Uint64(), 2000))
			last = w.Backup(t, []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental}[dice.IntN(2)], tree).Sequence
		},
		func() { w.verify(t, []verify.Level{verify.Structure, verify.Bytes, verify.Content}[dice.IntN(3)]) },
		func() {
			var decisions []retention.Decision
			for n := uint64(1); n <= last; n++ {
				decisions = append(decisions, retention.Decision{Sequence: n, Keep: n+2 > last || dice.IntN(2) == 0})
			}
			_, err := prune.Run(t.Context(), w.Repo, w.Source, prune.Options{Decisions: decisions, Force: true, Now: func() time.Time { return w.Now }})
			if err != nil && !errors.As(err, new(*repository.BadManifestError)) && !errors.As(err, new(*repository.DamageError)) {
				t.Logf("prune: %v", err)
			}
		},
		func() {
			if packs := repotest.Keys(w.Store, "/packs/"); len(packs) > 0 && dice.IntN(3) == 0 {
				key := packs[dice.IntN(len(packs))]
				b, _ := w.Store.Object(key)
				b[dice.IntN(len(b))] ^= 1
				w.Store.Tamper(key, b)
			}
		},
	}
	steps[0]()
	for step := range 40 {
		w.Now = w.Now.Add(time.Duration(dice.IntN(5*24)) * time.Hour)
		if k := dice.IntN(2 * len(steps)); k < len(steps) {
			steps[k]()
		} else {
			steps[0]()
		}
		w.look(t, w.large || dice.IntN(4) == 0)
		w.same(t)
		if t.Failed() {
			t.Fatalf("seed %d, step %d", seed, step)
		}
	}
}
