package repository_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// replace puts a document with other members in the place of one.
func replace(t *testing.T, store *mem.Store, id *keyring.Identity, repo snapshot.RepositoryID, key string, change func(map[string]any)) {
	t.Helper()
	doc, err := objstore.ReadAll(t.Context(), store, key, 1<<20)
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
	change(members)
	if payload, err = json.Marshal(members); err != nil {
		t.Fatal(err)
	}
	signer, _ := id.Signer()
	if err := store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), key, objstore.Bytes(keyring.Sign(signer, repo, key, payload))); err != nil {
		t.Fatal(err)
	}
}

// TestOpenVersions checks which repositories are refused, and as what.
func TestOpenVersions(t *testing.T) {
	for name, c := range map[string]struct {
		key    string
		change func(map[string]any)
		want   error
	}{
		"as it is":           {layout.RepositoryKey, func(map[string]any) {}, nil},
		"unknown member":     {layout.RepositoryKey, func(m map[string]any) { m["region"] = "x" }, nil},
		"draft":              {layout.RepositoryKey, func(m map[string]any) { m["features"] = []string{"draft"} }, repository.ErrDraft},
		"feature":            {layout.RepositoryKey, func(m map[string]any) { m["features"] = []string{"x"} }, repository.ErrUnsupported},
		"requires":           {layout.RepositoryKey, func(m map[string]any) { m["requires"] = []string{"x"} }, repository.ErrUnsupported},
		"minimum reader":     {layout.RepositoryKey, func(m map[string]any) { m["minimum_reader"] = 2 }, repository.ErrUnsupported},
		"format":             {layout.RepositoryKey, func(m map[string]any) { m["format"] = 2 }, repository.ErrUnsupported},
		"access requires":    {layout.AccessKey(1), func(m map[string]any) { m["requires"] = []string{"x"} }, repository.ErrUnsupported},
		"access, new member": {layout.AccessKey(1), func(m map[string]any) { m["note"] = "x" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			store := mem.New()
			r, id := initialise(t, store)
			replace(t, store, id, r.ID(), c.key, c.change)
			if _, err := repository.Open(t.Context(), store, id); !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestRecipientOfAnotherType checks that nothing is written that a recipient of a newer program could not read.
func TestRecipientOfAnotherType(t *testing.T) {
	store := mem.New()
	r, id := initialise(t, store)
	err := r.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients = append(a.Recipients, repository.AccessRecipient{Type: "newer", Recipient: a.Recipients[0].Recipient})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r = open(t, store, id)
	if _, err := backup(t.Context(), r, t.TempDir(), "", files{"/etc/a": []byte("a")}); !errors.Is(err, repository.ErrUnsupported) {
		t.Errorf("backup: %v", err)
	}
}

// TestManifestTooNew checks that a backup goes on after a snapshot that a newer program made, with a full of its own.
func TestManifestTooNew(t *testing.T) {
	store, state := mem.New(), t.TempDir()
	r, id := initialise(t, store)
	first := mustBackup(t, r, state, "", files{"/etc/a": []byte("a")})
	mustBackup(t, r, state, "", files{"/etc/a": []byte("b")})
	replace(t, store, id, r.ID(), layout.ManifestKey(snapshot.ID{Source: src, Sequence: 2}), func(m map[string]any) { m["requires"] = []string{"x"} })
	if _, err := r.Manifest(t.Context(), snapshot.ID{Source: src, Sequence: 2}); !errors.Is(err, repository.ErrUnsupported) {
		t.Errorf("read: %v", err)
	}
	third := mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("c")})
	if third.Sequence != 3 || third.Type != snapshot.Full || third.Chain == first.Chain {
		t.Errorf("%s is %s, in the chain of %d", third.ID(), third.Type, third.ChainStart)
	}
	wantRestored(t, r, third, files{"/etc/a": []byte("c")})
	wantRestored(t, r, first, files{"/etc/a": []byte("a")})
}

// TestDocumentTooNew checks the same of the small documents.
func TestDocumentTooNew(t *testing.T) {
	store := mem.New()
	r, id := initialise(t, store)
	m := mustBackup(t, r, t.TempDir(), "", files{"/etc/a": []byte("a")})
	key := layout.MarkKey(m.ID(), "000102030405060708090a0b0c0d0e0f")
	mark := record.Mark{Sequence: 1, Manifest: m.Hash.String(), Mark: record.Pin, Time: time.Now().UTC()}
	if err := r.PutDocument(t.Context(), key, mark); err != nil {
		t.Fatal(err)
	}
	replace(t, store, id, r.ID(), key, func(m map[string]any) { m["requires"] = []string{"x"} })
	if _, err := r.Document(t.Context(), key, &mark); !errors.Is(err, repository.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := r.Document(t.Context(), key, nil); err != nil {
		t.Errorf("its signature is in order: %v", err)
	}
}
