package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

func newIdentity(t testing.TB) *Identity {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parse(t testing.TB, text string) *Identity {
	t.Helper()
	id, err := ParseIdentity(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sampleSigner() *Signer {
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	return newSigner(seed)
}

func TestIdentityFile(t *testing.T) {
	id := newIdentity(t)
	path := filepath.Join(t.TempDir(), "identity")
	if err := id.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	got, err := LoadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(id.text(), got.text()); diff != "" {
		t.Fatal(diff)
	}
	if err := newIdentity(t).WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second identity in the same file: %v", err)
	}
	if again, err := LoadIdentity(path); err != nil || again.text() != id.text() {
		t.Fatal("the identity was overwritten", err)
	}
	if err := id.WriteFile(filepath.Join(t.TempDir(), "missing", "identity")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestIdentityPermissions(t *testing.T) {
	id := newIdentity(t)
	for _, c := range []struct {
		text string
		mode fs.FileMode
		want error
	}{
		{id.text(), 0o600, nil},
		{id.text(), 0o400, nil},
		{id.text(), 0o640, ErrPermissions},
		{id.text(), 0o604, ErrPermissions},
		{id.text(), 0o620, ErrPermissions},
		{id.Public(), 0o644, nil},
		{id.Public(), 0o664, ErrPermissions},
		{id.Public(), 0o646, ErrPermissions},
	} {
		path := filepath.Join(t.TempDir(), "identity")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		_, err := LoadIdentity(path)
		if !errors.Is(err, c.want) {
			t.Errorf("mode %o: %v, want %v", c.mode, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("no hint in %v", err)
		}
	}
}

func TestParseIdentity(t *testing.T) {
	signer := sampleSigner()
	other := NewSigner().Public()
	id := parse(t, "\r\n# comment\n  "+signer.secret()+"  \r\ntrust "+other.String()+"\tweb\n trust "+other.String()+" web\ntrust "+other.String()+" *\n")
	if s, ok := id.Signer(); !ok || s.Public() != signer.Public() {
		t.Error("signer is lost")
	}
	if diff := cmp.Diff([]TrustedSigner{{other, "web"}, {other, AllHosts}}, id.Trusted()); diff != "" {
		t.Error(diff)
	}
	if len(id.Recipients()) != 0 {
		t.Error("recipients of no keys")
	}
}

// TestIdentityKinds reads both kinds of age keys, and several.
func TestIdentityKinds(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	id := parse(t, hybrid.String()+"\n"+x25519.String()+"\n")
	want := []Recipient{{Type: TypeAge, Recipient: hybrid.Recipient().String()}, {Type: TypeAge, Recipient: x25519.Recipient().String()}}
	if diff := cmp.Diff(want, id.Recipients()); diff != "" {
		t.Fatal(diff)
	}
	for _, r := range want {
		if _, err := ParseRecipient(r.Recipient); err != nil {
			t.Error(err)
		}
	}
}

func TestParseIdentityRefuses(t *testing.T) {
	id := newIdentity(t)
	secret, signer, public := id.keys[0].line, id.signer.secret(), id.signer.Public().String()
	typo := func(s string) string {
		b := []byte(s)
		if b[len(b)-3]++; b[len(b)-3] > 'Z' || b[len(b)-3] == 'B' || b[len(b)-3] == 'I' || b[len(b)-3] == 'O' {
			b[len(b)-3] = 'Q'
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"empty":              "",
		"only comments":      "# nothing\n\n",
		"unknown line":       "secret 1\n",
		"lower-case secret":  strings.ToLower(secret),
		"mistyped secret":    typo(secret),
		"cut secret":         secret[:len(secret)-1],
		"secret twice":       secret + "\n" + secret,
		"mistyped signer":    typo(signer),
		"cut signer":         signer[:len(signer)-1],
		"short signer":       bech32Encode(signerPrefix, make([]byte, 31)),
		"two signers":        signer + "\n" + NewSigner().secret(),
		"trust alone":        "trust",
		"trust for no host":  "trust " + public,
		"trust for two":      "trust " + public + " web db",
		"trust in a typo":    "trust " + public[1:] + " web",
		"trust for access":   "trust " + public + " access",
		"trust for any path": "trust " + public + " ../x",
		"too long":           strings.Repeat("#\n", maxIdentity),
	} {
		got, err := ParseIdentity(strings.NewReader(text))
		if err == nil {
			t.Errorf("%s: passes as %v", name, got)
			continue
		}
		for _, secret := range []string{secret[20:40], signer[20:40]} {
			if strings.Contains(strings.ToUpper(err.Error()), secret) {
				t.Errorf("%s: the error shows a secret: %v", name, err)
			}
		}
	}
}

// TestIdentityPublic checks that the public half tells no secret, parses, and trusts the same.
func TestIdentityPublic(t *testing.T) {
	id := newIdentity(t)
	got := parse(t, id.Public())
	if got.secret() || !cmp.Equal(got.Trusted(), id.Trusted()) {
		t.Fatal(got.text())
	}
	if !strings.Contains(id.Public(), id.Recipients()[0].Recipient) || !strings.Contains(id.Public(), id.signer.Public().String()) {
		t.Fatal(id.Public())
	}
}

// TestIdentitySecrets prints an identity in every way: no secret may come out.
func TestIdentitySecrets(t *testing.T) {
	id := newIdentity(t)
	text, err := json.Marshal(map[string]any{"id": id, "signer": id.signer})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d ", id, id, id, id, id, id, id) + fmt.Sprintf("%v %+v %#v %s %q %x %d ", id.signer, id.signer, id.signer, id.signer, id.signer, id.signer, id.signer) +
		fmt.Sprintf("%+v %#v ", struct{ I *Identity }{id}, []*Signer{id.signer}) + id.String() + id.GoString() + string(text) + id.Public()
	for _, secret := range []string{id.keys[0].line, id.signer.secret(), fmt.Sprintf("%x", id.signer.private.Seed()), "AGE-SECRET", "HOLDFAST-SIGNER"} {
		if strings.Contains(all, secret) {
			t.Errorf("%s shows up in %s", secret, all)
		}
	}
}

// TestBech32 pins the form of a signer's line, and that any single mistake in it is found.
func TestBech32(t *testing.T) {
	s := sampleSigner().secret()
	const want = "HOLDFAST-SIGNER-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0S9TG4L4" // of nobody
	if s != want {
		t.Fatal(s)
	}
	// age reads what is written here, and the other way round.
	line := bech32Encode("AGE-SECRET-KEY-", sampleSigner().private.Seed())
	if _, err := age.ParseX25519Identity(line); err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := bech32Decode("AGE-SECRET-KEY-", other.String()); err != nil || bech32Encode("AGE-SECRET-KEY-", secret) != other.String() {
		t.Fatal(err)
	}
	for i := len(signerPrefix) + 1; i < len(s); i++ {
		for _, c := range []byte(strings.ToUpper(bech32Charset)) {
			b := []byte(s)
			if b[i] == c {
				continue
			}
			b[i] = c
			if _, err := parseSigner(string(b)); err == nil {
				t.Fatalf("character %d as %c passes", i, c)
			}
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add(sampleSigner().secret() + "\ntrust " + sampleSigner().Public().String() + " *\n")
	f.Add("trust " + sampleSigner().Public().String() + " web\n# x\n")
	f.Add(bech32Encode("AGE-SECRET-KEY-", sampleSigner().private.Seed()))
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseIdentity(strings.NewReader(text))
		if err != nil {
			return
		}
		again := parse(t, id.text())
		if diff := cmp.Diff(id.text(), again.text()); diff != "" {
			t.Fatal(diff)
		}
	})
}
