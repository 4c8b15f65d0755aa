// Package repotest makes small repositories with real backups in them, for the tests of what works on repositories.
// Use [New], then [Fixture.Backup].
package repotest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Root is the root of all trees.
const Root = "/srv"

// chunkSize is the size of the chunks that backups make, in bytes.
const chunkSize = 256 << 10

// Tree is a tree of regular files: path to content. Directories are added where they are needed.
type Tree map[string][]byte

// With returns a copy of the tree with one file changed; nil content removes it.
func (t Tree) With(path string, content []byte) Tree {
	out := maps.Clone(t)
	out[path] = content
	if content == nil {
		delete(out, path)
	}
	return out
}

// Noise returns n bytes that do not compress, always the same for a seed.
func Noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

// Fixture is a repository in memory with what it takes to back up into it.
type Fixture struct {
	Store    *mem.Store
	Identity *keyring.Identity
	Repo     *repository.Repository
	Source   snapshot.Source
	Now      time.Time // of the store's clock and the host's; tests move it
	Trees    map[uint64]Tree
	Log      *snapshot.LogPlace // that the next snapshots name; nil: none
	state    string
}

// New makes an empty repository.
func New(t testing.TB) *Fixture {
	t.Helper()
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	f := &Fixture{
		Store: mem.New(), Identity: id, Source: snapshot.Source{Host: "governance-1", Name: "app"},
		Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Trees: map[uint64]Tree{}, state: t.TempDir(),
	}
	f.Store.SetClock(func() time.Time { return f.Now })
	f.Repo, err = repository.Init(context.Background(), f.Store, id, id.Recipients(), f.Now)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Open opens the repository in another store with the fixture's identity.
func (f *Fixture) Open(t testing.TB, store objstore.Store) *repository.Repository {
	t.Helper()
	r, err := repository.Open(context.Background(), store, f.Identity)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Fork is another host that works on store with the same identity and a state of its own.
func (f *Fixture) Fork(t testing.TB, store *mem.Store) *Fixture {
	t.Helper()
	fork := *f
	fork.Store, fork.Repo, fork.state, fork.Trees = store, f.Open(t, store), t.TempDir(), maps.Clone(f.Trees)
	return &fork
}

// ID is the name of the source's snapshot n.
func (f *Fixture) ID(n uint64) snapshot.ID { return snapshot.ID{Source: f.Source, Sequence: n} }

// Backup makes the next snapshot, incremental where possible unless kind says otherwise, and remembers its tree.
func (f *Fixture) Backup(t testing.TB, kind snapshot.SnapshotType, tree Tree) *repository.Stored {
	t.Helper()
	m, err := f.backup(context.Background(), kind, tree)
	if err != nil {
		t.Fatal(err)
	}
	f.Trees[m.Sequence] = tree
	return m
}

// TryBackup is Backup where it may fail; the state of the host stays as that leaves it.
func (f *Fixture) TryBackup(ctx context.Context, kind snapshot.SnapshotType, tree Tree) (*repository.Stored, error) {
	m, err := f.backup(ctx, kind, tree)
	if err == nil {
		f.Trees[m.Sequence] = tree
	}
	return m, err
}

// Abandon stores the tree's content and gives up before the commit, as a run that was killed does. The state of the
// host is lost with it.
func (f *Fixture) Abandon(t testing.TB, tree Tree) {
	t.Helper()
	ctx := context.Background()
	s, err := f.begin(ctx, snapshot.Full, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store(ctx, s, tree), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// Options are those with which Backup begins.
func (f *Fixture) Options(kind snapshot.SnapshotType) repository.BeginOptions {
	return repository.BeginOptions{
		Source: f.Source, Kind: "files", Type: kind, State: f.state, Tool: "test", Now: func() time.Time { return f.Now },
	}
}

func (f *Fixture) begin(ctx context.Context, kind snapshot.SnapshotType, state string) (*repository.Session, error) {
	o := f.Options(kind)
	o.State = state
	return f.Repo.Begin(ctx, o)
}

func (f *Fixture) backup(ctx context.Context, kind snapshot.SnapshotType, tree Tree) (*repository.Stored, error) {
	s, err := f.begin(ctx, kind, f.state)
	if err != nil {
		return nil, err
	}
	if err := store(ctx, s, tree); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s.Commit(ctx, repository.Result{
		Roots: []string{Root}, Counts: snapshot.Counts{Files: uint64(len(tree))}, Started: f.Now, Log: f.Log,
		Problems: []snapshot.Problem{{Path: []byte(Root + "/gone"), Operation: "open", Error: "vanished"}},
	})
}

// entries lists the tree's files and the directories that hold them, in order.
func entries(tree Tree) []string {
	all := map[string]bool{Root: true}
	for path := range tree {
		all[path] = true
		for dir := snapshot.Parent(path); snapshot.Within(Root, dir); dir = snapshot.Parent(dir) {
			all[dir] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), snapshot.ComparePaths)
}

// store writes the tree through a session, as the source of kind files does, and stops before the commit.
func store(ctx context.Context, s *repository.Session, tree Tree) error {
	parents := map[string]*snapshot.Entry{}
	for e, err := range s.Parent(ctx) {
		if err != nil {
			return err
		}
		parents[e.Path] = e
	}
	for _, path := range entries(tree) {
		content, isFile := tree[path]
		e := &snapshot.Entry{Path: path, Type: snapshot.Directory, Mode: 0o755}
		if isFile {
			sum := sha256.Sum256(content)
			e.Type, e.Mode, e.Size = snapshot.File, 0o644, uint64(len(content))
			e.MTime.Sec = int64(binary.BigEndian.Uint32(sum[:])) // another one whenever the content is
			if p := parents[path]; p != nil && p.Size == e.Size && p.MTime == e.MTime {
				e.Extents, e.Maps = p.Extents, p.Maps
			} else if err := storeContent(ctx, s, e, content); err != nil {
				return err
			}
		}
		if err := s.Emit(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func storeContent(ctx context.Context, s *repository.Session, e *snapshot.Entry, content []byte) error {
	var err error
	if len(content) <= snapshot.MapSpan {
		e.Extents, err = storeChunks(ctx, s, content)
		return err
	}
	for span := range slices.Chunk(content, snapshot.MapSpan) {
		extents, err := storeChunks(ctx, s, span)
		if err != nil {
			return err
		}
		ref, err := s.Chunk(ctx, snapshot.Map, snapshot.EncodeMap(extents))
		if err != nil {
			return err
		}
		m := snapshot.MapRef{Ref: ref, Length: uint64(len(span))}
		var numbers []uint64
		for _, x := range extents {
			numbers = append(numbers, x.Ref.Pack)
		}
		slices.Sort(numbers)
		for _, n := range numbers {
			if k := len(m.Packs); k > 0 && m.Packs[k-1].Last+1 >= n {
				m.Packs[k-1].Last = n
			} else {
				m.Packs = append(m.Packs, snapshot.Range{First: n, Last: n})
			}
		}
		e.Maps = append(e.Maps, m)
	}
	return nil
}

func storeChunks(ctx context.Context, s *repository.Session, content []byte) ([]snapshot.Extent, error) {
	var out []snapshot.Extent
	for part := range slices.Chunk(content, chunkSize) {
		ref, err := s.Chunk(ctx, snapshot.Content, part)
		if err != nil {
			return nil, err
		}
		out = append(out, snapshot.Extent{Ref: ref, Length: uint64(len(part))})
	}
	return out, nil
}

// Restore reads a snapshot's files.
func Restore(ctx context.Context, r *repository.Repository, m *repository.Stored) (Tree, error) {
	s, err := r.Snapshot(ctx, m)
	if err != nil {
		return nil, err
	}
	out := Tree{}
	for e, err := range s.Entries(ctx, "") {
		if err != nil {
			return nil, err
		}
		if e.Type != snapshot.File {
			continue
		}
		content := make([]byte, 0, e.Size)
		err := s.Extents(ctx, e, func(x snapshot.Extent) error {
			plain, err := s.Chunk(ctx, snapshot.Content, x.Ref)
			if err != nil {
				return err
			}
			content = append(content, plain[x.Offset:uint64(x.Offset)+x.Length]...)
			return nil
		})
		if err != nil {
			return nil, err
		}
		out[e.Path] = content
	}
	return out, nil
}

// CheckAll restores every snapshot that is listed in store and compares it with the tree that was backed up. It
// returns their numbers.
func (f *Fixture) CheckAll(t testing.TB, store objstore.Store) []uint64 {
	t.Helper()
	ctx := context.Background()
	r := f.Open(t, store)
	manifests, err := r.Manifests(ctx, f.Source)
	if err != nil {
		t.Fatal(err)
	}
	var out []uint64
	for _, m := range manifests {
		got, err := Restore(ctx, r, m)
		if err != nil {
			t.Fatalf("restore %s: %v", m.ID(), err)
		}
		if err := compare(got, f.Trees[m.Sequence]); err != nil {
			t.Fatalf("restore %s: %v", m.ID(), err)
		}
		out = append(out, m.Sequence)
	}
	return out
}

func compare(got, want Tree) error {
	for path, content := range want {
		if !bytes.Equal(got[path], content) {
			return fmt.Errorf("%s differs", path)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d files instead of %d", len(got), len(want))
	}
	return nil
}

// Keys returns the keys of the objects in store that contain part.
func Keys(store *mem.Store, part string) []string {
	return slices.DeleteFunc(store.Keys(), func(k string) bool { return !strings.Contains(k, part) })
}

// WantSame reports where the objects of two stores differ, but for what says that one is a copy.
func WantSame(t testing.TB, got, want *mem.Store) {
	t.Helper()
	keys := func(s *mem.Store) []string {
		return slices.DeleteFunc(s.Keys(), func(key string) bool { return key == layout.CopyKey })
	}
	if diff := cmp.Diff(keys(want), keys(got)); diff != "" {
		t.Errorf("keys differ: %s", diff)
	}
	for _, key := range keys(want) {
		x, _ := got.Object(key)
		y, _ := want.Object(key)
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs", key)
		}
	}
}
