package repository_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// stateFiles are the files of the state directory with what they hold.
func stateFiles(t *testing.T, state string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// spoil returns b with a bit turned over, cut short, or replaced by something else.
func spoil(rng *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	switch n := rng.IntN(8); {
	case n == 0:
		b = make([]byte, rng.IntN(200))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	case n == 1:
		return append(b, b[rng.IntN(len(b)+1):]...)
	case len(b) == 0:
	case n == 2:
		return b[:rng.IntN(len(b))]
	case n == 3:
		clear(b[rng.IntN(len(b)):])
	default:
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	}
	return b
}

// TestSpoiltState spoils each file of the state directory in many ways, after a committed snapshot and after an
// interrupted full or incremental. The next backup of the host, which may not open keys, must succeed and restore.
func TestSpoiltState(t *testing.T) {
	const seed, rounds = 7, 5
	rng := rand.New(rand.NewPCG(seed, seed))
	base := mem.New()
	admin, _ := initialise(t, base)
	host := writerOnly(t, admin.Identity())
	one, two := noise(3, 5, 2<<10), noise(4, 6, 40<<10)
	for _, interrupted := range []snapshot.SnapshotType{"", snapshot.Full, snapshot.Incremental} {
		m := base.Clone()
		state := t.TempDir()
		if interrupted != snapshot.Full {
			mustBackup(t, open(t, m, host), state, "", one)
		}
		if interrupted != "" {
			interrupt(t, open(t, m, host), state, interrupted, two)
		}
		good := stateFiles(t, state)
		for path := range good {
			for round := range rounds {
				name := fmt.Sprintf("interrupted %q, %s, seed %d, round %d", interrupted, filepath.Base(path), seed, round)
				for p, b := range good {
					write(t, p, b)
				}
				write(t, path, spoil(rng, good[path]))
				store := m.Clone()
				stored, err := backup(t.Context(), open(t, store, host), state, interrupted, two)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got, err := restore(t.Context(), open(t, store, admin.Identity()), stored)
				if err != nil {
					t.Fatalf("%s: restore: %v", name, err)
				}
				wantFiles(t, name, got, two)
			}
		}
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// interrupt stores a tree and does not commit.
func interrupt(t *testing.T, r *repository.Repository, state string, kind snapshot.SnapshotType, tree files) {
	t.Helper()
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
}

func wantFiles(t *testing.T, name string, got, want files) {
	t.Helper()
	for path, content := range want {
		if !slices.Equal(got[path], content) {
			t.Fatalf("%s: %s differs", name, path)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d files instead of %d", name, len(got), len(want))
	}
}

// TestAnotherSignerAfterAnInterruptedFull gives the host a new signer between an interrupted full and the next run: the
// key objects of the pending chain are signed by the old one.
func TestAnotherSignerAfterAnInterruptedFull(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	state := t.TempDir()
	tree := noise(8, 3, 1000)
	interrupt(t, r, state, snapshot.Full, tree)
	other, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := other.Signer()
	err = r.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Signers = append(a.Signers, repository.AccessSigner{Key: signer.Public().String(), Host: src.Host})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stored := mustBackup(t, open(t, m, trusting(t, other, r.Identity())), state, "", tree)
	wantRestored(t, open(t, m, r.Identity()), stored, tree)
}

// trusting is identity id with the signer of another pinned for all hosts.
func trusting(t *testing.T, id, other *keyring.Identity) *keyring.Identity {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := other.Signer()
	out, err := keyring.ParseIdentity(bytes.NewReader(fmt.Appendf(text, "trust %s *\n", signer.Public())))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestManifestsRepeatLaterKeys adds a recipient to a chain that goes on, and loses all key objects.
func TestManifestsRepeatLaterKeys(t *testing.T) {
	m := mem.New()
	r, _ := initialise(t, m)
	state := t.TempDir()
	tree := noise(11, 3, 1000)
	mustBackup(t, r, state, "", tree)
	other, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	recipient := other.Recipients()[0]
	err = r.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients = append(a.Recipients, repository.AccessRecipient{Type: recipient.Type, Recipient: recipient.Recipient})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ShareKeys(t.Context(), recipient); err != nil {
		t.Fatal(err)
	}
	second := mustBackup(t, r, state, "", tree)
	if second.Type != snapshot.Incremental {
		t.Fatalf("it is %s", second.Type)
	}
	for _, key := range m.Keys() {
		if strings.Contains(key, "/keys/") {
			if err := m.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantRestored(t, open(t, m, trusting(t, other, r.Identity())), second, tree)
}
