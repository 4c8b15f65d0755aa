package repository_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mapped emits one file of two maps.
func mapped(ctx context.Context, t *testing.T, s *repository.Session, data files) {
	t.Helper()
	e := &snapshot.Entry{Path: "/etc/large", Type: snapshot.File, Mode: 0o644}
	for _, path := range []string{"a", "b"} {
		ref, err := s.Chunk(ctx, snapshot.Content, data[path])
		if err != nil {
			t.Fatal(err)
		}
		var extents []snapshot.Extent
		for range snapshot.MapSpan / len(data[path]) {
			extents = append(extents, snapshot.Extent{Ref: ref, Length: uint64(len(data[path]))})
		}
		m, err := s.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(extents))
		if err != nil {
			t.Fatal(err)
		}
		e.Maps = append(e.Maps, snapshot.MapRef{Ref: m, Length: snapshot.MapSpan, Packs: []snapshot.Range{{First: ref.Pack, Last: ref.Pack}}})
		e.Size += snapshot.MapSpan
	}
	if err := s.Emit(ctx, e); err != nil {
		t.Fatal(err)
	}
}

// TestMapsOfAnInterruptedRun has a host without a right to read packs take up an interrupted full: the maps that it
// stored then must be at hand for the incremental.
func TestMapsOfAnInterruptedRun(t *testing.T) {
	m := mem.New()
	admin, _ := initialise(t, m)
	r := open(t, m, writerOnly(t, admin.Identity()))
	m.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Get && isPack(c.Key) {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	state := t.TempDir()
	n := noise(6, 2, 1<<20)
	data := files{"a": n["/etc/f0000"], "b": n["/etc/f0001"]}
	for _, commit := range []bool{false, true} {
		s, err := begin(t.Context(), r, state, snapshot.Full)
		if err != nil {
			t.Fatal(err)
		}
		mapped(t.Context(), t, s, data)
		if !commit {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if packs, _ := s.Resumed(); packs == 0 {
			t.Fatal("nothing was taken up")
		}
		if _, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := begin(t.Context(), r, state, "")
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range s.Parent(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range e.Maps {
			if _, err := s.ParentMap(t.Context(), ref); err != nil {
				t.Errorf("map %s: %v", ref.Ref.ID, err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCancelledRunEnds cancels a session at its beginning, in the parent's tree and before the commit: each ends with
// the context's error and leaves the lock free.
func TestCancelledRunEnds(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	tree := noise(13, 900, 40)
	mustBackup(t, r, state, "", tree)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := begin(ctx, r, state, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("begin: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	s, err := begin(ctx, r, state, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, err := range s.Parent(ctx) {
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("parent: %v", err)
		}
		seen++
	}
	if seen >= len(tree) {
		t.Errorf("all %d entries of the parent came after the end", seen)
	}
	if _, err := s.Commit(ctx, repository.Result{Roots: []string{"/etc"}, Started: time.Now()}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	wantRestored(t, r, mustBackup(t, r, state, "", tree), tree)
}

// TestPagesOfTheFull has a differential after incrementals: it compares with the full, whose hashes must be at hand still.
func TestPagesOfTheFull(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	regions := map[snapshot.SnapshotType][]snapshot.Extent{}
	for i, kind := range []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental, snapshot.Incremental, snapshot.Differential, snapshot.Incremental} {
		s, err := begin(t.Context(), r, state, kind)
		if err != nil {
			t.Fatal(err)
		}
		parent := map[snapshot.SnapshotType]snapshot.SnapshotType{snapshot.Differential: snapshot.Full}[kind]
		if i == 4 {
			parent = snapshot.Differential
		}
		if parent != "" {
			if got, ok := s.Pages("/etc/db", 0, regions[parent]); !ok || string(got) != string(parent) {
				t.Errorf("number %d, %s: the hashes of the %s are %q, %t", i+1, kind, parent, got, ok)
			}
		}
		ref, err := s.Chunk(t.Context(), snapshot.Content, []byte{byte(i), 1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		regions[kind] = []snapshot.Extent{{Ref: ref, Length: 4}}
		s.LearnPages("/etc/db", 0, regions[kind], []byte(kind))
		if err := s.Emit(t.Context(), &snapshot.Entry{Path: "/etc/db", Type: snapshot.File, Size: 4, Extents: regions[kind]}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
}
