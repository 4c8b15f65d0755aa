package repository_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// stranger is a new identity that pins admin.
func stranger(t *testing.T, admin keyring.PublicKey) *keyring.Identity {
	t.Helper()
	fresh, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := fresh.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyring.ParseIdentity(strings.NewReader(string(text) + "\ntrust " + admin.String() + " *\n"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestForeignSignerIsRefused has identities that trust themselves and that the repository trusts for less than what they
// want to write.
func TestForeignSignerIsRefused(t *testing.T) {
	m := mem.New()
	admin, _ := initialise(t, m)
	signer, _ := admin.Identity().Signer()
	for name, grant := range map[string]*repository.AccessSigner{
		"unknown":       nil,
		"another host":  {Host: "web-1"},
		"receipts only": {Host: src.Host, Only: []string{"receipts/host"}},
	} {
		t.Run(name, func(t *testing.T) {
			id := stranger(t, signer.Public())
			if grant != nil {
				own, _ := id.Signer()
				grant.Key = own.Public().String()
				err := admin.ChangeAccess(t.Context(), func(a *repository.Access) error {
					a.Signers = append(a.Signers, *grant)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			r := open(t, m, id)
			before := m.Keys()
			if _, err := begin(t.Context(), r, t.TempDir(), snapshot.Full); !errors.Is(err, repository.ErrForeignSigner) {
				t.Errorf("begin: %v", err)
			}
			if err := r.ChangeAccess(t.Context(), func(*repository.Access) error { return nil }); !errors.Is(err, repository.ErrForeignSigner) {
				t.Errorf("change access: %v", err)
			}
			if after := m.Keys(); len(after) != len(before) {
				t.Errorf("it has written %v", after)
			}
		})
	}
}
