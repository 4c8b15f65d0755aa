package lock_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const day = 24 * time.Hour

// world is a source of which snapshots come and go, with the locks that its objects really have.
type world struct {
	now     time.Time
	objects []lock.Object
	locked  map[string]time.Time
	holds   map[string]bool
	puts    map[string]int
	snaps   []lock.Snapshot
	fail    func(key string) error
	done    int // calls so far
	most    int // objects that a pass locks; 0: all
}

func (w *world) LockOf(context.Context, string) (objstore.Lock, error) { return objstore.Lock{}, nil }

func (w *world) ExtendLock(_ context.Context, key string, _ objstore.LockMode, until time.Time) error {
	w.done++
	if w.fail != nil {
		if err := w.fail(key); err != nil {
			return err
		}
	}
	w.puts[key]++
	if w.locked[key].Before(until) {
		w.locked[key] = until
	}
	return nil
}

func (w *world) HoldLock(_ context.Context, key string, on bool) error {
	w.holds[key] = on
	return nil
}

func (w *world) object() int {
	key := fmt.Sprintf("%08x", uint32(len(w.objects)+1)*0x9E3779B1) //nolint:gosec // each another name, in no order
	w.objects = append(w.objects, lock.Object{Key: key, Arrived: w.now})
	w.locked[key] = w.now.Add(lock.Default)
	return len(w.objects) - 1
}

// backup adds a snapshot that shares all objects of the one before it and has some of its own.
func (w *world) backup(full bool) {
	s := lock.Snapshot{Sequence: uint64(len(w.snaps) + 1), Arrived: w.now, Keep: true, Verified: true}
	if n := len(w.snaps); n > 0 && !full {
		s.Objects = append(s.Objects, w.snaps[n-1].Objects[1:]...)
	}
	own := []int{w.object(), w.object(), w.object()}
	s.Objects = append(own, s.Objects...)
	w.snaps = append(w.snaps, s)
}

// serial makes the locker one call at a time, for a world without locks.
type serial struct {
	*world
	turn chan struct{}
}

func (s serial) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.world.ExtendLock(ctx, key, mode, until)
}

func (s serial) HoldLock(ctx context.Context, key string, on bool) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.world.HoldLock(ctx, key, on)
}

// pass does what a pass does, and checks that nothing is believed that is not so.
func (w *world) pass(t *testing.T, state lock.State, stop func() bool) lock.State {
	t.Helper()
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	state = lock.State{}
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	p := lock.New(w.objects, w.snaps, state, lock.Rules{Mode: objstore.Governance}, w.now, w.now)
	all := p.Extend
	if w.most > 0 {
		p.Extend = all[:min(w.most, len(all))]
	}
	done, err := p.Apply(t.Context(), serial{w, make(chan struct{}, 1)}, stop)
	p.Extend = all
	if err != nil {
		t.Fatal(err)
	}
	next := p.Next(done)
	said, wanted := p.UntilOf(), w.wantHolds()
	for i := range w.snaps {
		s := &w.snaps[i]
		for _, o := range s.Objects {
			have := w.locked[w.objects[o].Key]
			if until := next.Snapshots[s.Sequence]; have.Before(until) {
				t.Fatalf("snapshot %d is believed locked until %s, an object is until %s", s.Sequence, until, have)
			}
			if until := said[s.Sequence]; have.Before(until) {
				t.Fatalf("snapshot %d is said to be locked until %s, an object is until %s", s.Sequence, until, have)
			}
			if complete := stop == nil && w.fail == nil && w.most == 0; complete && s.Keep && s.Verified && have.Before(w.now.Add(lock.Slack)) {
				t.Fatalf("an object of snapshot %d is locked until %s at %s", s.Sequence, have, w.now)
			}
			if have.After(w.now.Add(lock.Slack + lock.Step)) {
				t.Fatalf("an object is locked until %s at %s", have, w.now)
			}
			if w.holds[w.objects[o].Key] != wanted[o] {
				t.Fatalf("object %d: hold is %v", o, w.holds[w.objects[o].Key])
			}
		}
	}
	return next
}

// wantHolds are the objects of held snapshots.
func (w *world) wantHolds() map[int]bool {
	out := map[int]bool{}
	for i := range w.snaps {
		if w.snaps[i].Held {
			for _, o := range w.snaps[i].Objects {
				out[o] = true
			}
		}
	}
	return out
}

func newWorld() *world {
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), locked: map[string]time.Time{}, holds: map[string]bool{}, puts: map[string]int{}}
}

// TestYear lives through most of a year of daily snapshots, with a full a month and retention of 60 days.
func TestYear(t *testing.T) {
	w := newWorld()
	var state lock.State
	total := 0
	for n := range 200 {
		w.backup(n%30 == 0)
		for i := range w.snaps {
			w.snaps[i].Keep = w.now.Sub(w.snaps[i].Arrived) <= 60*day
		}
		state = w.pass(t, state, nil)
		w.now = w.now.Add(day)
	}
	for _, n := range w.puts {
		total += n
	}
	// Each object is kept for 60 to 90 days: three steps, and half a step for what shares its fate with others.
	if per := float64(total) / float64(len(w.objects)); per > 4.5 {
		t.Errorf("%.1f requests for an object", per)
	}
}

// TestRandomPasses fails and stops at random; what is believed is always so.
func TestRandomPasses(t *testing.T) {
	for seed := range uint64(12) {
		dice := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // only dice
		w := newWorld()
		var state lock.State
		for range 120 {
			if dice.IntN(3) > 0 {
				w.backup(dice.IntN(10) == 0)
			}
			for i := range w.snaps {
				s := &w.snaps[i]
				if dice.IntN(20) == 0 {
					s.Keep = !s.Keep
				}
				if dice.IntN(20) == 0 {
					s.Verified = !s.Verified
				}
				if dice.IntN(40) == 0 {
					s.Held = !s.Held
				}
			}
			var stop func() bool
			w.fail, w.most = nil, 0
			switch dice.IntN(6) {
			case 0:
				salt := dice.Uint32()
				w.fail = func(key string) error { // by the key: whoever comes first
					if (crc32.ChecksumIEEE([]byte(key))^salt)%5 == 0 {
						return objstore.ErrDenied
					}
					return nil
				}
			case 1:
				w.most = 1 + dice.IntN(9)
			case 2:
				state = lock.State{Held: state.Held, HeldAt: state.HeldAt} // lost but for the holds
			}
			state = w.pass(t, state, stop)
			w.now = w.now.Add(time.Duration(dice.IntN(60)) * time.Hour)
		}
	}
}

// TestManyObjects are done in as many passes as it takes.
func TestManyObjects(t *testing.T) {
	w := newWorld()
	w.backup(true)
	for range 2000 {
		w.snaps[0].Objects = append(w.snaps[0].Objects, w.object())
	}
	var state lock.State
	for passes := 1; ; passes++ {
		before, asked := w.done, 0
		state = w.pass(t, state, func() bool { asked++; return asked > 1 })
		if w.done == before {
			t.Fatal("no progress")
		}
		if state.Partial == nil {
			if passes < 3 || w.done != 2003 {
				t.Errorf("%d passes, %d requests for 2003 objects", passes, w.done)
			}
			return
		}
		w.now = w.now.Add(time.Hour)
		w.backup(true)
		w.snaps = w.snaps[:1]
	}
}

// TestUnverified is left to the bucket's default, and said.
func TestUnverified(t *testing.T) {
	w := newWorld()
	w.backup(true)
	w.snaps[0].Verified = false
	p := lock.New(w.objects, w.snaps, lock.State{}, lock.Rules{}, w.now, w.now)
	if len(p.Extend) != 0 {
		t.Error("locked without a check")
	}
	if _, _, _, ok := p.Protected(); ok {
		t.Error("an alarm about what has just arrived")
	}
	later := w.now.Add(25 * time.Hour)
	p = lock.New(w.objects, w.snaps, lock.State{}, lock.Rules{}, w.now, later)
	n, until, wanted, ok := p.Protected()
	if !ok || n != 1 || !until.Equal(w.now.Add(lock.Default)) || !wanted.Equal(later.Add(lock.Slack)) {
		t.Error(n, until, wanted, ok)
	}
	if d := (lock.Done{}); d.Err() != nil {
		t.Error(d.Err())
	}
}

// TestRepository locks the objects of real snapshots in a store that locks.
func TestRepository(t *testing.T) {
	f := repotest.New(t)
	f.Store.KeepLocks(lock.Default)
	for n := range uint64(4) {
		kind := snapshot.Incremental
		if n%2 == 0 {
			kind = snapshot.Full
		}
		f.Backup(t, kind, repotest.Tree{"/srv/a": repotest.Noise(n, 1000), "/srv/b": repotest.Noise(9, 50_000)})
		f.Now = f.Now.Add(time.Hour)
	}
	m, err := f.Repo.Manifest(t.Context(), f.ID(2))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		f.Repo.PutDocument(t.Context(), layout.MarkKey(f.ID(2), "00112233445566778899aabbccddeeff"), record.Mark{Sequence: 2, Manifest: m.Hash.String(), Mark: record.Hold}),
		f.Repo.PutDocument(t.Context(), layout.ExpiredKey(f.ID(9)), record.Expired{Sequence: 9}),
	)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := f.Repo.Manifests(t.Context(), f.Source)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Take(t.Context(), f.Store, f.Source)
	if err != nil {
		t.Fatal(err)
	}
	objects, snaps, err := lock.Gather(t.Context(), f.Repo, inv, manifests)
	if err != nil {
		t.Fatal(err)
	}
	for i := range snaps {
		snaps[i].Keep = snaps[i].Sequence != 1
		snaps[i].Verified, snaps[i].Held = true, snaps[i].Sequence == 2
	}
	p := lock.New(objects, snaps, lock.State{}, lock.Rules{Mode: objstore.Governance}, inv.Newest, f.Now)
	done, err := p.Apply(t.Context(), f.Store, nil)
	if err != nil || done.Err() != nil {
		t.Fatal(err, done.Err())
	}
	short := []string{}
	held := 0
	for _, key := range f.Store.Keys() {
		l, err := f.Store.LockOf(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if l.Hold {
			held++
		}
		if !l.Until.Equal(p.Until) {
			short = append(short, key)
		}
	}
	// What only the first snapshot needs, and what belongs to the repository as a whole.
	want := []string{"v1/access/0000000001.json", "v1/repository.json"}
	for _, key := range f.Store.Keys() {
		if key == layout.ManifestKey(f.ID(1)) {
			want = append(want, key)
		}
	}
	for _, l := range manifests[0].Lists {
		shared := false
		for _, other := range manifests[1].Lists {
			shared = shared || l.List == other.List
		}
		if !shared {
			want = append(want, layout.ListKey(f.Source, l.List))
		}
	}
	if diff := cmp.Diff(len(want), len(short)); diff != "" {
		t.Errorf("%v", short)
	}
	if held < 5 {
		t.Errorf("%d objects on hold", held)
	}
	if err := f.Store.Delete(t.Context(), layout.ManifestKey(f.ID(3))); !errors.Is(err, objstore.ErrLocked) {
		t.Error(err)
	}
	// A store that can't lock says so.
	plain := mem.New()
	if _, err := p.Apply(t.Context(), plain, nil); !errors.Is(err, objstore.ErrNoLocks) {
		t.Error(err)
	}
}
