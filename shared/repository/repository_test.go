package repository_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
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

var src = snapshot.Source{Host: "governance-1", Name: "etc"}

// files is a tree of regular files: path to content.
type files map[string][]byte

func open(t *testing.T, store objstore.Store, id *keyring.Identity) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), store, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func initialise(t *testing.T, store objstore.Store) (*repository.Repository, *keyring.Identity) {
	t.Helper()
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := repository.Init(t.Context(), store, id, id.Recipients(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r, id
}

func begin(ctx context.Context, r *repository.Repository, state string, kind snapshot.SnapshotType) (*repository.Session, error) {
	return r.Begin(ctx, repository.BeginOptions{Source: src, Kind: "files", Type: kind, State: state, Tool: "test", Now: time.Now})
}

// store writes the tree through a session, as the source of kind files does, and stops before the commit.
func store(ctx context.Context, s *repository.Session, tree files) error {
	parents := map[string]*snapshot.Entry{}
	for e, err := range s.Parent(ctx) {
		if err != nil {
			return err
		}
		parents[e.Path] = e
	}
	for _, path := range slices.SortedFunc(maps.Keys(tree), snapshot.ComparePaths) {
		e := &snapshot.Entry{Path: path, Type: snapshot.File, Mode: 0o644, Size: uint64(len(tree[path])), MTime: mtime(tree[path])}
		if p := parents[path]; p != nil && p.Size == e.Size && p.MTime == e.MTime {
			e.Extents = p.Extents
		} else {
			for part := range slices.Chunk(tree[path], 300<<10) {
				ref, err := s.Chunk(ctx, snapshot.Content, part)
				if err != nil {
					return err
				}
				e.Extents = append(e.Extents, snapshot.Extent{Ref: ref, Length: uint64(len(part))})
			}
		}
		if err := s.Emit(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// mtime stands for the time of change: it differs when the content does.
func mtime(b []byte) snapshot.Time {
	return snapshot.Time{Sec: int64(crc32.ChecksumIEEE(b))}
}

func backup(ctx context.Context, r *repository.Repository, state string, kind snapshot.SnapshotType, tree files) (*repository.Stored, error) {
	s, err := begin(ctx, r, state, kind)
	if err != nil {
		return nil, err
	}
	if err := store(ctx, s, tree); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s.Commit(ctx, repository.Result{Roots: []string{"/etc"}, Counts: snapshot.Counts{Files: uint64(len(tree))}, Started: time.Now()})
}

func mustBackup(t *testing.T, r *repository.Repository, state string, kind snapshot.SnapshotType, tree files) *repository.Stored {
	t.Helper()
	m, err := backup(t.Context(), r, state, kind, tree)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func restore(ctx context.Context, r *repository.Repository, m *repository.Stored) (files, error) {
	s, err := r.Snapshot(ctx, m)
	if err != nil {
		return nil, err
	}
	out := files{}
	for e, err := range s.Entries(ctx, "") {
		if err != nil {
			return nil, err
		}
		var content []byte
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

func wantRestored(t *testing.T, r *repository.Repository, m *repository.Stored, want files) {
	t.Helper()
	got, err := restore(t.Context(), r, m)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%s restores %d files that differ from the %d that were stored", m.ID(), len(got), len(want))
	}
}

// randomFiles makes n files below size bytes each, of which half compress well.
func randomFiles(seed uint64, n int, size int) files {
	rng := rand.New(rand.NewPCG(seed, 1))
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	out := files{}
	for i := range n {
		b := make([]byte, rng.IntN(size))
		if i%2 == 0 {
			_, _ = noise.Read(b)
		} else {
			b = bytes.Repeat(fmt.Appendf(nil, "line %d of a file that compresses\n", i), len(b)/30+1)
		}
		out[fmt.Sprintf("/etc/d%02d/f%04d", i%7, i)] = b
	}
	return out
}

func TestBackupsOfAChain(t *testing.T) {
	r, id := initialise(t, mem.New())
	state := t.TempDir()
	one := randomFiles(1, 120, 200<<10)
	first := mustBackup(t, r, state, "", one)
	two := maps.Clone(one)
	two["/etc/new"] = []byte("new")
	delete(two, "/etc/d00/f0000")
	second := mustBackup(t, r, state, "", two)
	three := maps.Clone(two)
	three["/etc/new"] = []byte("changed")
	third := mustBackup(t, r, state, snapshot.Differential, three)
	fourth := mustBackup(t, r, state, snapshot.Full, three)

	type row struct {
		Sequence, Parent, ChainStart uint64
		Type                         snapshot.SnapshotType
	}
	var got []row
	stored, err := open(t, r.Store(), id).Manifests(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range stored {
		got = append(got, row{m.Sequence, m.Parent, m.ChainStart, m.Type})
	}
	want := []row{
		{1, 0, 1, snapshot.Full},
		{2, 1, 1, snapshot.Incremental},
		{3, 1, 1, snapshot.Differential},
		{4, 0, 4, snapshot.Full},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantRestored(t, r, first, one)
	wantRestored(t, r, second, two)
	wantRestored(t, r, third, three)
	wantRestored(t, r, fourth, three)
	if second.Counts.AddedBytes*20 > first.Counts.AddedBytes {
		t.Errorf("one small new file added %d bytes to %d", second.Counts.AddedBytes, first.Counts.AddedBytes)
	}
	for i, m := range stored[1:] {
		if m.Previous != stored[i].Hash.String() {
			t.Errorf("manifest %d does not link to the one before", m.Sequence)
		}
	}
}

func TestUnchangedAddsOnePack(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	tree := randomFiles(2, 100, 10<<10)
	mustBackup(t, r, state, "", tree)
	m := mustBackup(t, r, state, "", tree)
	if m.Counts.AddedPacks != 0 {
		t.Errorf("an unchanged tree added %d packs of %d bytes", m.Counts.AddedPacks, m.Counts.AddedBytes)
	}
	wantRestored(t, r, m, tree)
}

func TestStateCanBeLost(t *testing.T) {
	r, id := initialise(t, mem.New())
	tree := randomFiles(3, 50, 10<<10)
	mustBackup(t, r, t.TempDir(), "", tree)
	m := mustBackup(t, open(t, r.Store(), id), t.TempDir(), "", tree)
	if m.Type != snapshot.Incremental || m.Counts.AddedPacks != 0 {
		t.Errorf("with an identity, lost state leads to %s with %d packs", m.Type, m.Counts.AddedPacks)
	}
	wantRestored(t, r, m, tree)
}

func TestSecondRunIsLocked(t *testing.T) {
	r, _ := initialise(t, mem.New())
	state := t.TempDir()
	s, err := begin(t.Context(), r, state, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begin(t.Context(), r, state, ""); !errors.Is(err, repository.ErrLocked) {
		t.Errorf("second run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustBackup(t, r, state, "", files{"/etc/a": []byte("a")})
}

func TestTwoHostsOfOneName(t *testing.T) {
	r, _ := initialise(t, mem.New())
	mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("a")})
	slow, err := begin(t.Context(), r, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("b")})
	if err := store(t.Context(), slow, files{"/etc/a": []byte("c")}); err != nil {
		t.Fatal(err)
	}
	_, err = slow.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()})
	if !errors.Is(err, repository.ErrConflict) {
		t.Errorf("the slower commit: %v", err)
	}
}

func TestResume(t *testing.T) {
	for _, kind := range []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental} {
		t.Run(string(kind), func(t *testing.T) {
			r, _ := initialise(t, mem.New())
			state := t.TempDir()
			if kind == snapshot.Incremental {
				mustBackup(t, r, state, "", randomFiles(4, 5, 1000))
			}
			tree := randomFiles(5, 250, 300<<10)
			s, err := begin(t.Context(), r, state, kind)
			if err != nil {
				t.Fatal(err)
			}
			if err := store(t.Context(), s, tree); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, err = begin(t.Context(), r, state, kind)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := s.Resumed(); n == 0 {
				t.Error("the second run found no packs of the first")
			}
			if err := store(t.Context(), s, tree); err != nil {
				t.Fatal(err)
			}
			if s.Added() > 100 {
				t.Errorf("the second run stored %d bytes again", s.Added())
			}
			m, err := s.Commit(t.Context(), repository.Result{Roots: []string{"/etc"}, Started: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			wantRestored(t, r, m, tree)
		})
	}
}

func TestRollback(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	state := t.TempDir()
	mustBackup(t, r, state, "", files{"/etc/a": []byte("a")})
	earlier := m.Clone()
	mustBackup(t, r, state, "", files{"/etc/a": []byte("b")})
	back := open(t, earlier, r.Identity())
	s, err := begin(t.Context(), back, state, "")
	if err != nil {
		t.Fatal(err)
	}
	var rollback *repository.RollbackError
	if w := s.Warnings(); len(w) != 1 || !errors.As(w[0], &rollback) || rollback.Seen != 2 || rollback.Found != 1 {
		t.Errorf("warnings: %v", w)
	}
	if s.Sequence() != 3 {
		t.Errorf("the backup after a rollback takes number %d", s.Sequence())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIdentities(t *testing.T) {
	r, _ := initialise(t, mem.New())
	m := mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("a")})
	stranger, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository.Open(t.Context(), r.Store(), stranger); !errors.Is(err, keyring.ErrUntrusted) {
		t.Errorf("a stranger opens the repository: %v", err)
	}
	if _, err := repository.Init(t.Context(), r.Store(), r.Identity(), r.Identity().Recipients(), time.Now()); !errors.Is(err, repository.ErrRepositoryExists) {
		t.Errorf("second init: %v", err)
	}
	// A new recipient opens old chains once the keys are shared with it.
	if _, err := r.ShareKeys(t.Context(), stranger.Recipients()[0]); err != nil {
		t.Fatal(err)
	}
	signer, _ := r.Identity().Signer()
	path := filepath.Join(t.TempDir(), "identity")
	if err := stranger.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := keyring.ParseIdentity(bytes.NewReader(fmt.Appendf(text, "trust %s *\n", signer.Public())))
	if err != nil {
		t.Fatal(err)
	}
	wantRestored(t, open(t, r.Store(), pinned), m, files{"/etc/a": []byte("a")})
}

// writerOnly is an identity that signs like id and opens nothing.
func writerOnly(t *testing.T, id *keyring.Identity) *keyring.Identity {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("AGE-SECRET-KEY")) {
			kept = append(kept, line...)
		}
	}
	out, err := keyring.ParseIdentity(bytes.NewReader(kept))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func isPack(key string) bool { return strings.Contains(key, "/packs/") }

// mark notes that a pack failed a check.
func mark(t *testing.T, r *repository.Repository, p snapshot.PackInfo) {
	t.Helper()
	if err := r.PutDocument(t.Context(), layout.DamagedKey(src, p.ID), map[string]string{"pack": p.ID.String()}); err != nil {
		t.Fatal(err)
	}
}
