package repository_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// slowHost is a host on which each file takes a while, and the store of its repository with the same clock.
type slowHost struct {
	store *mem.Store
	repo  *repository.Repository
	state string

	mu   sync.Mutex
	now  time.Time // guarded by mu
	step time.Duration
}

func newSlowHost(t *testing.T, step time.Duration) *slowHost {
	t.Helper()
	h := &slowHost{store: mem.New(), state: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), step: step}
	h.store.SetClock(h.time)
	h.repo, _ = initialise(t, h.store)
	return h
}

func (h *slowHost) time() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *slowHost) wait(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *slowHost) begin(ctx context.Context, kind snapshot.SnapshotType, told func(*repository.Stored)) (*repository.Session, error) {
	return h.repo.Begin(ctx, repository.BeginOptions{
		Source: src, Kind: "files", Type: kind, State: h.state, Tool: "test", Now: h.time,
		Checkpoint: repository.Checkpoint{Roots: []string{"/etc"}, Committed: told},
	})
}

// emit captures the files of a tree in their order, one after the other, up to the given number; it returns how many
// had to be read.
func (h *slowHost) emit(ctx context.Context, s *repository.Session, tree files, most int) (read int, err error) {
	parents := map[string]*snapshot.Entry{}
	for e, err := range s.Parent(ctx) {
		if err != nil {
			return 0, err
		}
		parents[e.Path] = e
	}
	for i, path := range slices.SortedFunc(maps.Keys(tree), snapshot.ComparePaths) {
		if i == most {
			break
		}
		e := &snapshot.Entry{Path: path, Type: snapshot.File, Mode: 0o644, Size: uint64(len(tree[path])), MTime: mtime(tree[path])}
		if p := parents[path]; p != nil && p.Size == e.Size && p.MTime == e.MTime {
			e.Extents = p.Extents
		} else {
			read++
			h.wait(h.step)
			ref, err := s.Chunk(ctx, snapshot.Content, tree[path])
			if err != nil {
				return read, err
			}
			e.Extents = []snapshot.Extent{{Ref: ref, Length: e.Size}}
		}
		if err := s.Emit(ctx, e); err != nil {
			return read, err
		}
	}
	return read, nil
}

func (h *slowHost) backup(ctx context.Context, kind snapshot.SnapshotType, tree files) (m *repository.Stored, read int, err error) {
	s, err := h.begin(ctx, kind, nil)
	if err != nil {
		return nil, 0, err
	}
	if read, err = h.emit(ctx, s, tree, -1); err != nil {
		return nil, read, errors.Join(err, s.Close())
	}
	m, err = s.Commit(ctx, repository.Result{Roots: []string{"/etc"}, Counts: snapshot.Counts{Files: uint64(len(tree))}, Started: h.time()})
	return m, read, err
}

// interrupt captures some files and gives up.
func (h *slowHost) interrupt(t *testing.T, kind snapshot.SnapshotType, tree files, most int) {
	t.Helper()
	s, err := h.begin(t.Context(), kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.emit(t.Context(), s, tree, most); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func (h *slowHost) mustBackup(t *testing.T, kind snapshot.SnapshotType, tree files) (*repository.Stored, int) {
	t.Helper()
	m, read, err := h.backup(t.Context(), kind, tree)
	if err != nil {
		t.Fatal(err)
	}
	wantRestored(t, h.repo, m, tree)
	return m, read
}

// wantVerified checks the content of all snapshots.
func wantVerified(t *testing.T, r *repository.Repository) {
	t.Helper()
	result, err := verify.Run(t.Context(), r, verify.Options{Level: verify.Content, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range result.Findings {
		if !f.Warning && !strings.HasPrefix(f.Detail, `the directory "/etc"`) { // the trees of these tests have none
			t.Errorf("verify: %+v", f)
		}
	}
}

// TestLongFull has a first full that takes ten days: it commits what it has every day, and in the end a full that is
// like any other.
func TestLongFull(t *testing.T) {
	h := newSlowHost(t, 6*time.Hour)
	tree := noise(11, 40, 60<<10)
	var told []uint64
	s, err := h.begin(t.Context(), "", func(m *repository.Stored) { told = append(told, m.Sequence) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.emit(t.Context(), s, tree, -1); err != nil {
		t.Fatal(err)
	}
	last, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Counts: snapshot.Counts{Files: 40}, Started: h.time()})
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.repo.Manifests(t.Context(), src)
	if err != nil || len(all) < 10 || len(told) != len(all)-1 {
		t.Fatalf("%d snapshots, told of %v: %v", len(all), told, err)
	}
	names := slices.SortedFunc(maps.Keys(tree), snapshot.ComparePaths)
	for _, m := range all {
		if m.Type != snapshot.Full || m.ChainStart != m.Sequence || m.Chain != last.Chain {
			t.Errorf("%s is %s of chain %s, which begins with %d", m.ID(), m.Type, m.Chain, m.ChainStart)
		}
		if m.Sequence == last.Sequence {
			break
		}
		if !m.Unfinished || !m.Partial || m.Counts.Files == 0 {
			t.Errorf("%s: unfinished %t, partial %t, %d files", m.ID(), m.Unfinished, m.Partial, m.Counts.Files)
		}
		want := files{}
		for _, path := range names[:m.Counts.Files] {
			want[path] = tree[path]
		}
		wantRestored(t, h.repo, m, want)
	}
	if last.Unfinished || last.Partial {
		t.Errorf("the last one: unfinished %t, partial %t", last.Unfinished, last.Partial)
	}
	wantRestored(t, h.repo, last, tree)
	wantVerified(t, h.repo)
	if next, read := h.mustBackup(t, snapshot.Differential, tree); next.Type != snapshot.Differential || next.Parent != last.Sequence || read != 0 {
		t.Errorf("after it comes %s on %d with %d files read", next.Type, next.Parent, read)
	}
}

// TestUnfinishedIsTakenUp kills a long full, of a host that may read neither packs nor keys, and goes on.
func TestUnfinishedIsTakenUp(t *testing.T) {
	for _, kind := range []snapshot.SnapshotType{"", snapshot.Full, snapshot.Incremental, snapshot.Differential} {
		t.Run("go on as "+string(kind), func(t *testing.T) {
			h := newSlowHost(t, 6*time.Hour)
			h.repo = open(t, h.store, writerOnly(t, h.repo.Identity()))
			h.store.SetHook(func(c mem.Call) mem.Fault {
				if c.Op == mem.Get && isPack(c.Key) {
					return mem.Fault{Err: objstore.ErrDenied}
				}
				return mem.Fault{}
			})
			tree := noise(12, 60, 100<<10)
			h.interrupt(t, "", tree, 22)
			if kind == snapshot.Full {
				h.step = 2 * time.Hour // what is stored already is only read
			}
			h.interrupt(t, kind, tree, 41)
			before := size(h.store, "/packs/")
			last, read, err := h.backup(t.Context(), kind, tree)
			if err != nil {
				t.Fatal(err)
			}
			// What was captured after the last unfinished snapshot is read again, and not stored again.
			again := 60 - 41 + 4
			if kind == snapshot.Full {
				again = 60
			}
			if last.Type != snapshot.Full || last.Unfinished || read > again {
				t.Errorf("it is %s, unfinished %t, with %d files read", last.Type, last.Unfinished, read)
			}
			if added := size(h.store, "/packs/") - before; added > (60-41)*101<<10+32<<10 {
				t.Errorf("%d bytes stored for %d files", added, 60-41)
			}
			h.store.SetHook(nil)
			all, err := h.repo.Manifests(t.Context(), src)
			if err != nil || slices.ContainsFunc(all, func(m *repository.Stored) bool { return m.Chain != last.Chain }) {
				t.Errorf("there is another chain: %v", err)
			}
		})
	}
}

func size(m *mem.Store, part string) int {
	n := 0
	for _, key := range m.Keys() {
		if b, _ := m.Object(key); strings.Contains(key, part) {
			n += len(b)
		}
	}
	return n
}

// TestUnfinishedIncremental has an incremental that is interrupted: what it did not come to is as it was before. The tree
// changes its shape where it stopped.
func TestUnfinishedIncremental(t *testing.T) {
	h := newSlowHost(t, 13*time.Hour)
	one := noise(13, 20, 50<<10)
	one["/etc/f0004/within"] = []byte("a directory that becomes a file")
	delete(one, "/etc/f0004")
	h.step = 0
	first, _ := h.mustBackup(t, "", one)
	h.step = 13 * time.Hour
	two := noise(14, 20, 50<<10)
	delete(two, "/etc/f0002")
	h.interrupt(t, "", two, 4)
	all, err := h.repo.Manifests(t.Context(), src)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d snapshots: %v", len(all), err)
	}
	want := files{}
	for path, content := range two {
		if snapshot.ComparePaths(path, "/etc/f0004") <= 0 {
			want[path] = content
		}
	}
	for path, content := range one {
		if snapshot.ComparePaths(path, "/etc/f0005") >= 0 {
			want[path] = content
		}
	}
	second := all[2]
	wantRestored(t, h.repo, second, want)
	if second.Type != snapshot.Incremental || !second.Unfinished || second.Parent != first.Sequence || second.Started.After(first.Started) {
		t.Errorf("%+v", second.Manifest)
	}
	last, read := h.mustBackup(t, snapshot.Differential, two)
	if last.Type != snapshot.Incremental || last.Unfinished || read != 19-4 {
		t.Errorf("it ends as %s, unfinished %t, with %d files read", last.Type, last.Unfinished, read)
	}
	wantVerified(t, h.repo)
}

// TestUnfinishedFullForOthers changes the recipients after a full was interrupted: a full that is asked for begins anew.
func TestUnfinishedFullForOthers(t *testing.T) {
	h := newSlowHost(t, 13*time.Hour)
	tree := noise(15, 10, 1000)
	h.interrupt(t, "", tree, 5)
	err := h.repo.ChangeAccess(t.Context(), func(a *repository.Access) error {
		_, other := initialise(t, mem.New())
		rec := other.Recipients()[0]
		a.Recipients = []repository.AccessRecipient{{Type: rec.Type, Recipient: rec.Recipient}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := h.backup(t.Context(), snapshot.Full, tree)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := h.repo.Manifest(t.Context(), snapshot.ID{Source: src, Sequence: 1}); err != nil || first.Chain == m.Chain {
		t.Errorf("the chain goes on for those who were removed: %v", err)
	}
}

// TestFaultAtCheckpoints lets each call to the store fail in turn, before and after it took effect, while a full commits
// unfinished snapshots. What is listed must restore, and the next run must succeed.
func TestFaultAtCheckpoints(t *testing.T) {
	tree := noise(16, 5, 3000)
	for _, persisted := range []bool{false, true} {
		for call, over := 1, false; !over; call++ {
			over = faultAtCheckpoint(t, call, persisted, tree)
		}
	}
}

func faultAtCheckpoint(t *testing.T, call int, persisted bool, tree files) (over bool) {
	t.Helper()
	h := newSlowHost(t, 13*time.Hour)
	before := h.store.Calls()
	h.store.SetHook(func(c mem.Call) mem.Fault {
		if c.Number == before+call {
			return mem.Fault{Err: errFault, Persisted: persisted}
		}
		return mem.Fault{}
	})
	_, _, err := h.backup(t.Context(), "", tree)
	if err == nil && h.store.Calls() < before+call {
		return true
	}
	if err != nil && !errors.Is(err, errFault) && !errors.Is(err, context.Canceled) {
		t.Fatalf("call %d: %v", call, err)
	}
	h.store.SetHook(nil)
	all, err := h.repo.Manifests(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.SortedFunc(maps.Keys(tree), snapshot.ComparePaths)
	for _, m := range all {
		want := tree
		if m.Unfinished {
			want = files{}
			for _, path := range names[:m.Counts.Files] {
				want[path] = tree[path]
			}
		}
		wantRestored(t, h.repo, m, want)
	}
	next, _, err := h.backup(t.Context(), "", tree)
	if err != nil {
		t.Fatalf("call %d, persisted %t, after %d snapshots: %v", call, persisted, len(all), err)
	}
	wantRestored(t, h.repo, next, tree)
	return false
}

// TestNoCheckpoints has runs that must not commit on the way.
func TestNoCheckpoints(t *testing.T) {
	for name, c := range map[string]repository.Checkpoint{
		"no roots": {}, "never": {Every: -1, Roots: []string{"/etc"}}, "not yet": {Every: 101 * time.Hour, Roots: []string{"/etc"}},
	} {
		h := newSlowHost(t, 10*time.Hour)
		s, err := h.repo.Begin(t.Context(), repository.BeginOptions{Source: src, Kind: "files", State: h.state, Tool: "test", Now: h.time, Checkpoint: c})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.emit(t.Context(), s, noise(17, 10, 100), -1); err != nil {
			t.Fatal(err)
		}
		if s.Sequence() != 1 {
			t.Errorf("%s: number %d comes next", name, s.Sequence())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(repository.CheckpointInterval); got != "24h0m0s" {
		t.Errorf("every %s", got)
	}
}

// TestCheckpointsBesideStoring commits after each file while other goroutines go on storing content, some of which no
// entry ever names.
func TestCheckpointsBesideStoring(t *testing.T) {
	r, _ := initialise(t, mem.New())
	s, err := r.Begin(t.Context(), repository.BeginOptions{
		Source: src, Kind: "files", State: t.TempDir(), Tool: "test", Now: time.Now,
		Checkpoint: repository.Checkpoint{Every: 1, Roots: []string{"/etc"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var others sync.WaitGroup
	for seed := range byte(3) {
		others.Go(func() {
			for _, content := range noise(30+seed, 30, 400<<10) {
				if _, err := s.Chunk(t.Context(), snapshot.Content, content); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tree := noise(33, 20, 250<<10)
	if err := store(t.Context(), s, tree); err != nil {
		t.Fatal(err)
	}
	others.Wait()
	last, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Counts: snapshot.Counts{Files: 20}, Started: time.Now()})
	if err != nil || last.Sequence < 10 {
		t.Fatalf("%+v, %v", last, err)
	}
	wantRestored(t, r, last, tree)
	wantVerified(t, r)
}
