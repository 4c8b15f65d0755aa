package repository_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var errFault = errors.New("the test's fault")

// TestFaultAtEveryCall lets each call to the store fail in turn, before and after it took effect, while a full and an
// incremental are written. After each the repository is opened anew: what is listed must restore, and the next run
// must succeed.
func TestFaultAtEveryCall(t *testing.T) {
	one := randomFiles(6, 10, 20<<10)
	two := randomFiles(7, 10, 20<<10)
	for _, persisted := range []bool{false, true} {
		for _, kind := range []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental, snapshot.Differential} {
			t.Run(fmt.Sprintf("%s persisted=%t", kind, persisted), func(t *testing.T) {
				for call := 1; ; call++ {
					if faultAt(t, kind, call, persisted, one, two) {
						t.Logf("%d calls", call-1)
						return
					}
				}
			})
		}
	}
}

// faultAt runs the story with a fault at one call; it reports true when the story has fewer calls.
func faultAt(t *testing.T, kind snapshot.SnapshotType, call int, persisted bool, one, two files) (over bool) {
	t.Helper()
	m := mem.New()
	r, id := initialise(t, m)
	state := t.TempDir()
	first := mustBackup(t, r, state, "", one)
	before := m.Calls()
	m.SetHook(func(c mem.Call) mem.Fault {
		if c.Number == before+call {
			return mem.Fault{Err: errFault, Persisted: persisted}
		}
		return mem.Fault{}
	})
	_, err := backup(t.Context(), r, state, kind, two)
	if err == nil && m.Calls() < before+call {
		return true
	}
	if err != nil && !errors.Is(err, errFault) && !errors.Is(err, context.Canceled) {
		t.Fatalf("call %d: %v", call, err)
	}
	m.SetHook(nil)
	again := open(t, m, id)
	wantRestored(t, again, first, one)
	stored, err := again.Manifests(t.Context(), src)
	if err != nil {
		t.Fatalf("call %d: %v", call, err)
	}
	for _, s := range stored[1:] {
		wantRestored(t, again, s, two)
	}
	next := mustBackup(t, again, state, "", two)
	wantRestored(t, again, next, two)
	return false
}

// TestWriteOnlyHost has a host that may neither read packs nor open keys: it goes on with its chain from the state
// directory alone, and begins a new chain when that is lost.
func TestWriteOnlyHost(t *testing.T) {
	m := mem.New()
	admin, _ := initialise(t, m)
	// The host's identity can sign and has no key of its own.
	host := writerOnly(t, admin.Identity())
	r := open(t, m, host)
	m.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && isPack(c.Key) {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	state := t.TempDir()
	tree := randomFiles(8, 40, 100<<10)
	mustBackup(t, r, state, "", tree)
	tree["/etc/more"] = []byte("more")
	second := mustBackup(t, r, state, "", tree)
	if second.Type != snapshot.Incremental {
		t.Errorf("with its state the host writes %s", second.Type)
	}
	third := mustBackup(t, r, t.TempDir(), "", tree)
	if third.Type != snapshot.Full || third.Chain == second.Chain {
		t.Errorf("without its state the host writes %s", third.Type)
	}
	m.SetHook(nil)
	wantRestored(t, admin, second, tree)
	wantRestored(t, admin, third, tree)
	if _, err := restore(t.Context(), r, second); !errors.Is(err, keyring.ErrNoIdentity) {
		t.Errorf("the host reads its own backups: %v", err)
	}
}

// TestDamagedPacksAreStoredAgain checks that nothing of a pack that failed a check is used by the next snapshot.
func TestDamagedPacksAreStoredAgain(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	state := t.TempDir()
	tree := randomFiles(9, 200, 400<<10)
	first := mustBackup(t, r, state, "", tree)
	packs, err := r.Lists(t.Context(), first.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	bad := packs[0]
	mark(t, r, bad)
	second := mustBackup(t, r, state, "", tree)
	live, err := r.Lists(t.Context(), second.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range live {
		if p.ID == bad.ID {
			t.Errorf("the new snapshot uses damaged pack %d", p.Number)
		}
	}
	if second.Type != snapshot.Incremental || len(packs) > 1 && len(live) < len(packs) {
		t.Errorf("%s with %d packs after %d", second.Type, len(live), len(packs))
	}
	wantRestored(t, r, second, tree)
}

func TestClockFarOff(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	state := t.TempDir()
	tree := files{"/etc/a": []byte("a")}
	s, err := r.Begin(t.Context(), repository.BeginOptions{Source: src, Kind: "files", State: state, Tool: "test", Now: func() time.Time { return time.Now().AddDate(73, 0, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := store(t.Context(), s, tree); err != nil {
		t.Fatal(err)
	}
	first, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now().AddDate(73, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if !repository.ClockOff(first) {
		t.Error("a snapshot from 2099 is not shown so")
	}
	second := mustBackup(t, r, state, "", tree)
	if second.Type != snapshot.Full || second.Sequence != 2 {
		t.Errorf("after it comes %s %d", second.Type, second.Sequence)
	}
}

// brittleStore is a store whose spools fail at one write, which takes half of what it is given.
type brittleStore struct {
	objstore.Store
	dir    string
	failAt int // the number of the write; guarded by the one goroutine that writes
	open   atomic.Int32
}

type brittleSpool struct {
	objstore.Spool
	store *brittleStore
	once  sync.Once
}

func (s *brittleStore) Spool(ctx context.Context) (objstore.Spool, error) {
	spool, err := objstore.NewSpool(ctx, s.Store, s.dir)
	s.open.Add(1)
	return &brittleSpool{Spool: spool, store: s}, err
}

func (s *brittleSpool) Write(p []byte) (int, error) {
	if s.store.failAt--; s.store.failAt == 0 {
		n, _ := s.Spool.Write(p[:len(p)/2])
		return n, errFault
	}
	return s.Spool.Write(p)
}

func (s *brittleSpool) Commit(ctx context.Context, key string) error {
	err := s.Spool.Commit(ctx, key)
	if err == nil {
		s.ended()
	}
	return err
}

func (s *brittleSpool) Discard() error {
	s.ended()
	return s.Spool.Discard()
}

func (s *brittleSpool) ended() { s.once.Do(func() { s.store.open.Add(-1) }) }

// TestTornWriteOfAPack has each write of packs fail half-way, as on a full disk that has room again a moment later. No
// pack with a hole may reach the store, no spool may be left, and the next run must succeed.
func TestTornWriteOfAPack(t *testing.T) {
	tree := noise(5, 6, 200<<10)
	for at := 1; ; at++ {
		m := mem.New()
		r, id := initialise(t, m)
		state := t.TempDir()
		brittle := &brittleStore{Store: m, dir: t.TempDir(), failAt: at}
		_, err := backup(t.Context(), open(t, brittle, id), state, "", tree)
		if brittle.failAt > 0 {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if !errors.Is(err, errFault) {
			t.Fatalf("write %d: %v", at, err)
		}
		if n := brittle.open.Load(); n != 0 {
			t.Errorf("write %d: %d spools are left", at, n)
		}
		next := mustBackup(t, open(t, m, id), state, "", tree)
		wantRestored(t, r, next, tree)
		result, err := verify.Run(t.Context(), open(t, m, id), verify.Options{Level: verify.Content, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range result.Findings {
			if isPack(f.Key) {
				t.Errorf("write %d: %s: %s: %s", at, f.Key, f.Problem, f.Detail)
			}
		}
	}
}
