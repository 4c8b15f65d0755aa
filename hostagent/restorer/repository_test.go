package restorer

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

type noProgress struct{}

func (noProgress) Add(uint64, uint64, uint64) {}
func (noProgress) Current(string)             {}

// TestThroughARepository captures a random tree into a real repository and restores it from there.
func TestThroughARepository(t *testing.T) {
	ctx := context.Background()
	dir := trees.TempDir(t)
	trees.Make(t, dir, 31, trees.Options{Deep: true, MaxFile: 12 << 20, Entries: 100})
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Init(ctx, mem.New(), id, id.Recipients(), time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	session, err := repo.Begin(ctx, repository.BeginOptions{
		Source: snapshot.Source{Host: "host", Name: "data"}, Kind: "files", State: t.TempDir(), Tool: "test", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	captured, err := files.Capture(ctx, files.Options{Roots: []string{dir}}, session, noProgress{})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := session.Commit(ctx, repository.Result{Roots: captured.Roots, Counts: captured.Counts, Problems: captured.Problems, Started: time.Now().UTC()})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := repo.Snapshot(ctx, stored)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(trees.TempDir(t), "target")
	for _, o := range []Options{{Target: target}, {Target: target, Verify: true}, {Target: target, Delete: true, DryRun: true}} {
		result, err := Restore(ctx, snap, o, nil)
		if err != nil {
			t.Fatal(err)
		}
		perfect(t, result)
		equal(t, dir, target)
		if result.Created > 0 && o.DryRun || result.Written > 0 && o.Verify {
			t.Errorf("%+v did %+v", o, result)
		}
	}
}
