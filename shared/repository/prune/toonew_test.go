package prune_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// require makes a document one that needs an addition to the format, as a newer program would write it.
func require(t *testing.T, f *repotest.Fixture, key string) {
	t.Helper()
	doc, err := objstore.ReadAll(t.Context(), f.Store, key, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(payload, &members); err != nil {
		t.Fatal(err)
	}
	members["requires"] = []string{"holographic-packs"}
	if payload, err = json.Marshal(members); err != nil {
		t.Fatal(err)
	}
	signer, _ := f.Identity.Signer()
	if err := f.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := f.Store.Put(t.Context(), key, objstore.Bytes(keyring.Sign(signer, f.Repo.ID(), key, payload))); err != nil {
		t.Fatal(err)
	}
}

// TestTooNewManifest checks that an older program removes nothing of a source in which a newer one has made a snapshot: it
// can't know what that needs. Verification says so and calls nothing else wrong, and a copy does not get it.
func TestTooNewManifest(t *testing.T) {
	f := history(t)
	require(t, f, layout.ManifestKey(f.ID(5))) // the newest: nothing links to it yet
	f.Now = f.Now.Add(60 * day)
	before := f.Store.Keys()
	_, err := prune.Run(t.Context(), f.Repo, f.Source, prune.Options{
		Decisions: keep(4), Force: true, Wait: time.Nanosecond, Age: time.Nanosecond, Now: func() time.Time { return f.Now },
	})
	if !errors.Is(err, prune.ErrBroken) || !errors.Is(err, repository.ErrUnsupported) {
		t.Errorf("prune: %v", err)
	}
	if !slices.Equal(before, f.Store.Keys()) {
		t.Error("prune has changed the repository")
	}
	result, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content})
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range result.Findings {
		if finding.Problem != verify.TooNew && !finding.Warning {
			t.Errorf("verify: %s %s", finding.Key, finding.Problem)
		}
	}
	if len(result.Findings) == 0 {
		t.Error("verify says nothing of it")
	}
	copied, err := copier.Run(t.Context(), f.Repo, mem.New(), copier.Options{})
	if err != nil || len(copied.Withheld) != 1 || copied.Withheld[0].Sequence != 5 {
		t.Errorf("copy: %v, withheld %v", err, copied.Withheld)
	}
}

// TestTooNewMark checks that a mark of a newer program keeps its snapshot, whatever it means.
func TestTooNewMark(t *testing.T) {
	f := history(t)
	put := func(n uint64, kind record.MarkKind) string {
		key := layout.MarkKey(f.ID(n), "000102030405060708090a0b0c0d0e0f")
		err := f.Repo.PutDocument(t.Context(), key, record.Mark{Sequence: n, Mark: kind, Value: "x", Time: f.Now})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	put(1, "freeze")
	require(t, f, put(2, record.Tag))
	put(3, record.Tag)
	rep := run(t, f, prune.Options{Decisions: keep(5)})
	if got := sequences(rep.Condemned); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("condemned: %v, want 3 and 4", got)
	}
}
