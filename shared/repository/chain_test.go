package repository_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// noise makes n files of size bytes that do not compress.
func noise(seed byte, n, size int) files {
	rng := rand.NewChaCha8([32]byte{seed})
	out := files{}
	for i := range n {
		b := make([]byte, size)
		_, _ = rng.Read(b)
		out[fmt.Sprintf("/etc/f%04d", i)] = b
	}
	return out
}

// TestDifferentialOverJoinedLists has an incremental that uses so little of its full that it writes its lists anew, and
// then a differential that comes back to the full's content: packs that only the full's lists name.
func TestDifferentialOverJoinedLists(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	one := noise(1, 34, 1<<20)
	first := mustBackup(t, r, state, "", one)
	packs, err := r.Lists(t.Context(), first.Manifest)
	if err != nil || len(packs) < 3 {
		t.Fatalf("%d packs: %v", len(packs), err)
	}
	two := files{"/etc/small": []byte("small"), "/etc/f0000": one["/etc/f0000"]}
	second := mustBackup(t, r, state, "", two)
	if second.Lists[0] == first.Lists[0] {
		t.Fatal("the incremental did not write its lists anew")
	}
	live, err := r.Lists(t.Context(), second.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for _, p := range live {
		sum += p.Size
	}
	if second.Counts.PackBytes != sum {
		t.Errorf("it counts %d bytes of packs instead of %d", second.Counts.PackBytes, sum)
	}
	third := mustBackup(t, r, state, snapshot.Differential, one)
	if third.Type != snapshot.Differential {
		t.Fatalf("it is %s", third.Type)
	}
	wantRestored(t, r, third, one)
	four := maps.Clone(one)
	four["/etc/small"] = []byte("another")
	wantRestored(t, r, mustBackup(t, r, state, "", four), four)
}

// TestDifferentialLeavesDamagedPacksOfItsFull is TestDamagedPacksAreStoredAgain for packs that the newest snapshot does
// not use any more.
func TestDifferentialLeavesDamagedPacksOfItsFull(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	one := noise(2, 24, 1<<20)
	first := mustBackup(t, r, state, "", one)
	packs, err := r.Lists(t.Context(), first.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	mustBackup(t, r, state, "", files{"/etc/small": []byte("small")})
	bad := packs[0]
	mark(t, r, bad)
	third := mustBackup(t, r, state, snapshot.Differential, one)
	live, err := r.Lists(t.Context(), third.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range live {
		if p.ID == bad.ID {
			t.Errorf("the new snapshot uses damaged pack %d", p.Number)
		}
	}
	wantRestored(t, r, third, one)
}

// TestSlowUploadIsNoWrongClock has a host whose last packs take longer than ClockTolerance to arrive: its snapshot is
// as good a parent as any.
func TestSlowUploadIsNoWrongClock(t *testing.T) {
	m := mem.New()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var passed atomic.Int64 // packs are uploaded beside
	clock := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	m.SetClock(clock)
	r, _ := initialise(t, m)
	m.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && isPack(c.Key) {
			passed.Add(int64(2 * repository.ClockTolerance))
		}
		return mem.Fault{}
	})
	s, err := r.Begin(t.Context(), repository.BeginOptions{Source: src, Kind: "files", State: t.TempDir(), Tool: "test", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), s, files{"/etc/a": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: clock()})
	if err != nil {
		t.Fatal(err)
	}
	if repository.ClockOff(stored) {
		t.Errorf("finished at %s, arrived at %s", stored.Finished, stored.Arrived)
	}
}

// TestDifferentialNeedsTheNewest has the newest snapshot condemned: a differential would go on with its pack lists.
func TestDifferentialNeedsTheNewest(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	tree := noise(7, 3, 1000)
	mustBackup(t, r, state, "", tree)
	tree["/etc/more"] = []byte("more")
	second := mustBackup(t, r, state, "", tree)
	s, err := begin(t.Context(), r, state, snapshot.Differential)
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), s, tree); err != nil {
		t.Fatal(err)
	}
	if err := r.PutDocument(t.Context(), layout.CondemnedKey(second.ID()), map[string]uint64{"sequence": 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()}); !errors.Is(err, repository.ErrCondemned) {
		t.Errorf("commit: %v", err)
	}
	if third := mustBackup(t, r, state, snapshot.Differential, tree); third.Type != snapshot.Full {
		t.Errorf("after it comes %s", third.Type)
	}
}

// TestCommittedAllTheSame has the store fail right after the manifest was put: the snapshot exists.
func TestCommittedAllTheSame(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	m.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Stat && strings.Contains(c.Key, "/snapshots/") {
			return mem.Fault{Err: errFault}
		}
		return mem.Fault{}
	})
	mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("a")})
}

// TestOldPacksAreNotTakenUp has a host whose clock was set back, or that was asleep, between an interrupted run and the
// next one: by the store's clock its packs are so old that prune may take them at any time.
func TestOldPacksAreNotTakenUp(t *testing.T) {
	for _, kind := range []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental} {
		m := mem.New()
		now := time.Now()
		storeTime := now
		m.SetClock(func() time.Time { return storeTime })
		r, _ := initialise(t, m)
		state := t.TempDir()
		mustBackup(t, r, state, "", noise(9, 1, 1000))
		tree := noise(10, 5, 1000)
		interrupt(t, r, state, kind, tree)
		storeTime = now.AddDate(0, 0, 20)
		if _, err := backup(t.Context(), r, state, kind, tree); !errors.Is(err, repository.ErrTooOld) {
			t.Errorf("%s: %v", kind, err)
		}
		again := mustBackup(t, r, state, kind, tree)
		if again.Counts.AddedPacks == 0 {
			t.Errorf("%s: nothing was stored again", kind)
		}
		wantRestored(t, r, again, tree)
	}
}

// TestRollbackOfAccess takes the newest access document, which removed a recipient, away.
func TestRollbackOfAccess(t *testing.T) {
	m := mem.New()
	r, id := initialise(t, m)
	state := t.TempDir()
	other, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, recipient := range append(other.Recipients(), id.Recipients()...) {
		err := r.ChangeAccess(t.Context(), func(a *repository.Access) error {
			a.Recipients = []repository.AccessRecipient{{Type: recipient.Type, Recipient: recipient.Recipient}}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := noise(12, 1, 1000)
	mustBackup(t, r, state, "", tree)
	if err := m.Delete(t.Context(), layout.AccessKey(3)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := begin(t.Context(), open(t, m, id), state, "")
		if err != nil {
			t.Fatal(err)
		}
		var rollback *repository.RollbackError
		if w := s.Warnings(); len(w) != 1 || !errors.As(w[0], &rollback) || !rollback.Access || rollback.Seen != 3 || rollback.Found != 2 {
			t.Errorf("warnings: %v", w)
		}
		if err := store(t.Context(), s, tree); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMostlyDeadChainEnds keeps a tenth of what every pack holds: the next snapshot begins a new chain, so that the rest
// can go.
func TestMostlyDeadChainEnds(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	one := noise(4, 80, 1<<20)
	first := mustBackup(t, r, state, "", one)
	if c := first.Counts; c.LiveBytes < c.PackBytes*9/10 || c.LiveBytes > c.PackBytes {
		t.Errorf("of %d bytes %d are live", c.PackBytes, c.LiveBytes)
	}
	two := files{}
	for i := 0; i < 80; i += 10 {
		path := fmt.Sprintf("/etc/f%04d", i)
		two[path] = one[path]
	}
	second := mustBackup(t, r, state, "", two)
	if c := second.Counts; second.Type != snapshot.Incremental || c.LiveBytes > c.PackBytes/4 {
		t.Errorf("%s: of %d bytes %d are live", second.Type, c.PackBytes, c.LiveBytes)
	}
	s, err := begin(t.Context(), r, state, "")
	if err != nil {
		t.Fatal(err)
	}
	kind, why := s.Type()
	if kind != snapshot.Full || !strings.Contains(why, "less than half") {
		t.Errorf("the next is %s, because %q", kind, why)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	third := mustBackup(t, r, state, "", two)
	if third.Type != snapshot.Full || third.Counts.PackBytes > 10<<20 {
		t.Errorf("%s with packs of %d bytes", third.Type, third.Counts.PackBytes)
	}
	wantRestored(t, r, third, two)
}

// TestMissingListBeginsAChain loses or spoils a pack list that the next snapshot would go on with: it is a full of a new
// chain, and a full again where that is not the newest's list but its full's. A store that fails for a while is no reason.
func TestMissingListBeginsAChain(t *testing.T) {
	for name, harm := range map[string]func(m *mem.Store, key string){
		"missing": func(m *mem.Store, key string) { m.Tamper(key, nil) },
		"spoilt":  func(m *mem.Store, key string) { m.Tamper(key, []byte("HFLIST01")) },
	} {
		for _, kind := range []snapshot.SnapshotType{"", snapshot.Differential} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				m := mem.New()
				r, _ := initialise(t, m)
				state := t.TempDir()
				tree := noise(21, 3, 1000)
				first := mustBackup(t, r, state, "", tree)
				key := layout.ListKey(src, first.Lists[0].List)
				m.SetHook(func(c mem.Call) mem.Fault {
					if c.Op == mem.Get && c.Key == key {
						return mem.Fault{Err: errFault}
					}
					return mem.Fault{}
				})
				if s, err := begin(t.Context(), r, state, kind); !errors.Is(err, errFault) {
					t.Fatalf("with a store that fails: %v, %v", s, err)
				}
				m.SetHook(nil)
				harm(m, key)
				tree["/etc/more"] = []byte("more")
				s, err := begin(t.Context(), r, state, kind)
				if err != nil {
					t.Fatal(err)
				}
				if kind, why := s.Type(); kind != snapshot.Full || !strings.Contains(why, "a pack list of snapshot 1") {
					t.Errorf("%s, because %s", kind, why)
				}
				if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0].Error(), key) || !strings.Contains(w[0].Error(), "holdfast verify") {
					t.Errorf("warnings %v", w)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				second := mustBackup(t, r, state, kind, tree)
				if second.Chain == first.Chain {
					t.Error("the chain goes on")
				}
				wantRestored(t, r, second, tree)
				wantRestored(t, r, mustBackup(t, r, state, kind, tree), tree)
			})
		}
	}
}

// TestMissingPackIsStoredAgain loses a pack that no check has found yet: the next snapshot does not build on it, and is
// whole.
func TestMissingPackIsStoredAgain(t *testing.T) {
	for _, kind := range []snapshot.SnapshotType{"", snapshot.Differential} {
		m := mem.New()
		r, _ := initialise(t, m)
		state := t.TempDir()
		tree := noise(22, 34, 1<<20)
		first := mustBackup(t, r, state, "", tree)
		packs, err := r.Lists(t.Context(), first.Manifest)
		if err != nil || len(packs) < 3 {
			t.Fatalf("%d packs: %v", len(packs), err)
		}
		lost := layout.PackKey(src, mustChain(t, first), packs[1].ID)
		m.Tamper(lost, nil)
		s, err := begin(t.Context(), r, state, kind)
		if err != nil {
			t.Fatal(err)
		}
		if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0].Error(), "1 packs of the chain are missing") {
			t.Errorf("%s: warnings %v", kind, w)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		second := mustBackup(t, r, state, kind, tree)
		if second.Chain != first.Chain || second.Counts.AddedBytes > 20<<20 {
			t.Errorf("%s: %d bytes added", kind, second.Counts.AddedBytes)
		}
		wantRestored(t, r, second, tree)
		if again := mustBackup(t, r, state, "", tree); again.Counts.AddedBytes > 100<<10 {
			t.Errorf("%s: once more %d bytes", kind, again.Counts.AddedBytes)
		}
	}
}

func mustChain(t *testing.T, m *repository.Stored) snapshot.ChainID {
	t.Helper()
	chain, err := layout.ParseChain(m.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}
