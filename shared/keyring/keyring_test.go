package keyring

import (
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestIdentityFile(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.text() != id.text() {
		t.Fatal("the file does not hold the identity")
	}
	c := seal.Context{Repository: snapshot.RepositoryID{1}}
	key := seal.NewDataKey()
	wrapped, err := id.Recipients()[0].Wrap(t.Context(), key, c)
	if err != nil {
		t.Fatal(err)
	}
	k := snapshot.Key{Key: key.ID(c.Repository).String(), Wrapped: []snapshot.Wrapped{{Type: TypeAge, Recipient: id.Recipients()[0].Recipient, Wrapped: wrapped}}}
	if unwrapped, err := UnwrapKey(t.Context(), got, k, c); err != nil || unwrapped != key {
		t.Fatal(err)
	}
	signer, _ := got.Signer()
	doc := Sign(signer, c.Repository, "v1/repository.json", []byte(`{"a":1}`))
	if payload, _, err := Open(doc, c.Repository, "v1/repository.json", id.Trust()); err != nil || string(payload) != `{"a":1}` {
		t.Fatal(string(payload), err)
	}
}
