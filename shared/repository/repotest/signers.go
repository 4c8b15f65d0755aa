package repotest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// Grant makes a signer for a host, or for all ("*"), limited to parts of sources if any are named, and returns an
// identity that has only this signer and trust in the fixture's own, as a function of the control plane has.
func (f *Fixture) Grant(t testing.TB, host string, only ...string) *keyring.Identity {
	t.Helper()
	id, err := keyring.ParseIdentity(strings.NewReader(f.GrantText(t, host, only...)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// GrantText is [Fixture.Grant] with the text of the identity.
func (f *Fixture) GrantText(t testing.TB, host string, only ...string) string {
	t.Helper()
	text := f.SignerText(t)
	id, err := keyring.ParseIdentity(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := id.Signer()
	repo := f.Open(t, f.Store)
	err = repo.ChangeAccess(context.Background(), func(a *repository.Access) error {
		a.Signers = append(a.Signers, repository.AccessSigner{Key: signer.Public().String(), Host: host, Only: only})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Repo = f.Open(t, f.Store)
	return text
}

// SignerText is the text of an identity with a new signer, which nobody knows yet, and trust in the fixture's own.
func (f *Fixture) SignerText(t testing.TB) string {
	t.Helper()
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := f.Identity.Signer()
	out := "trust " + own.Public().String() + " *\n"
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "HOLDFAST-SIGNER-") {
			out += line
		}
	}
	return out
}

// OpenAs opens the repository in store with another identity.
func OpenAs(t testing.TB, store objstore.Store, id *keyring.Identity) *repository.Repository {
	t.Helper()
	r, err := repository.Open(context.Background(), store, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
