package repository_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A pack that one unfinished snapshot needed and the next does not, so that the lists drop it, may hold content of a file
// that was on its way all the time.
func TestCheckpointDropsNoPackOfTheRun(t *testing.T) {
	h := newSlowHost(t, 0)
	var committed []*repository.Stored
	told := func(m *repository.Stored) { committed = append(committed, m) }
	run := func(kind snapshot.SnapshotType, at map[string][]byte) *repository.Stored {
		t.Helper()
		ctx := t.Context()
		s, err := h.begin(ctx, kind, told)
		if err != nil {
			t.Fatal(err)
		}
		var late *snapshot.Entry
		for i := range 2000 {
			e := &snapshot.Entry{Path: fmt.Sprintf("/etc/%0100d", i), Type: snapshot.Symlink, Target: fmt.Sprintf("%0100d", i), MTime: mtime(nil)}
			if content := at[e.Path]; content != nil {
				ref, err := s.Chunk(ctx, snapshot.Content, content)
				if err != nil {
					t.Fatal(err)
				}
				h.wait(repository.CheckpointInterval + time.Minute)
				if late == nil {
					late = &snapshot.Entry{Path: "/etc/z", Type: snapshot.File, Size: uint64(len(content)), Extents: []snapshot.Extent{{Ref: ref, Length: uint64(len(content))}}}
				}
			}
			if err := s.Emit(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		if late != nil {
			if err := s.Emit(ctx, late); err != nil {
				t.Fatal(err)
			}
		}
		m, err := s.Commit(ctx, repository.Result{Roots: []string{"/etc"}, Started: h.time(), Counts: snapshot.Counts{Others: 2000, Files: uint64(len(at)) / 2, Bytes: 1000 * uint64(len(at)) / 2}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := run(snapshot.Full, nil)
	snap, err := h.repo.Snapshot(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	root, err := snap.Root(t.Context())
	if err != nil || len(root.Chunks) < 4 {
		t.Fatal(err, len(root.Chunks))
	}
	// Where a chunk of the tree ends anyway, nothing of the tree is stored but for the unfinished snapshot.
	before := func(path string) string {
		var n int
		if _, err := fmt.Sscanf(path, "/etc/%d", &n); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("/etc/%0100d", n-1)
	}
	run(snapshot.Incremental, map[string][]byte{
		before(root.Chunks[1].First): bytes.Repeat([]byte("one "), 250), before(root.Chunks[2].First): bytes.Repeat([]byte("two "), 250),
	})
	if len(committed) != 2 {
		t.Fatalf("%d unfinished snapshots", len(committed))
	}
	wantVerified(t, h.repo)
}
