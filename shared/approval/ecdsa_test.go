package approval_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestECDSA has one approver with an ECDSA key, as KMS has them, beside one with Ed25519.
func TestECDSA(t *testing.T) {
	k := ecdsaKey(t, elliptic.P256())
	p := rules()
	text, err := policy.SSHLine(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	p.Approvers = append(p.Approvers, policy.Approver{Name: "kms", Key: text + " in the HSM"})
	b := encode(t, request())
	one := sign(t, b, "one", key(1))
	for range 300 { // of the two numbers each may begin with a one or a zero bit, or be short
		s, err := approval.Sign(b, "kms", k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := approval.Check(p, "web-1", id, &events.RestoreOrder{Request: b, Signatures: []events.Signature{one, s}}, created()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := approval.Sign(b, "kms", k)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, request []byte, list ...events.Signature) {
		t.Helper()
		if _, err := approval.Check(p, "web-1", id, &events.RestoreOrder{Request: request, Signatures: list}, created()); approval.Code(err) != events.Forged {
			t.Errorf("%s: %v, want forged", name, err)
		}
	}
	other := request()
	other.Target = "/srv/restore/other"
	refused("over another request", encode(t, other), sign(t, encode(t, other), "one", key(1)), s)
	refused("twice", b, s, s)
	stranger, err := approval.Sign(b, "kms", ecdsaKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	refused("a stranger's key", b, one, stranger)
	raw, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw { // each bit of each byte matters
		changed := append([]byte{}, raw...)
		changed[i] ^= 1
		refused("a bit of byte "+big.NewInt(int64(i)).String(), b, one, events.Signature{Signer: "kms", Signature: base64.StdEncoding.EncodeToString(changed)})
	}
	// A key of the one kind and a signature of the other.
	refused("kinds are mixed", b, one, events.Signature{Signer: "kms", Signature: sign(t, b, "kms", key(2)).Signature})
	if _, err := approval.Sign(b, "kms", ecdsaKey(t, elliptic.P384())); err == nil {
		t.Error("a key on another curve signs")
	}
	if _, err := approval.SignBy(b, "kms", &k.PublicKey, func([]byte) ([]byte, error) { return []byte("rubbish"), nil }); err == nil {
		t.Error("rubbish of a key elsewhere is taken")
	}
	if _, err := approval.SignBy(b, "kms", &ecdsaKey(t, elliptic.P256()).PublicKey, func(d []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, k, d[:32]) }); err == nil {
		t.Error("a signature of another key is taken")
	}
}

// TestOpenSSHByECDSA checks a signature that `ssh-keygen -Y sign -n holdfast-restore` made over testdata/request.json with
// a key of `ssh-keygen -t ecdsa -b 256`. That OpenSSH takes ours is tried where there is an OpenSSH; the two differ in
// nothing but the numbers.
func TestOpenSSHByECDSA(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	b := read("request.json")
	public, err := policy.ParseSSHKey(string(read("ecdsa.pub")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := approval.FromSSH(read("request.json.ecdsa.sig"), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := approval.Verify(b, s, public); err != nil {
		t.Error(err)
	}
	if err := approval.Verify(append(b, ' '), s, public); err == nil {
		t.Error("the signature counts for other bytes")
	}
	if line, err := policy.SSHLine(public); err != nil || line != strings.TrimSpace(string(read("ecdsa.pub"))) {
		t.Errorf("%q, %v", line, err)
	}
	tool, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return
	}
	dir := t.TempDir()
	k := ecdsaKey(t, elliptic.P256())
	ours, err := approval.Sign(b, "one", k)
	if err != nil {
		t.Fatal(err)
	}
	line, err := policy.SSHLine(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"allowed": "one " + line + "\n", "sig": "-----BEGIN SSH SIGNATURE-----\n" + ours.Signature + "\n-----END SSH SIGNATURE-----\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), tool, "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "one", "-n", approval.Namespace, "-s", filepath.Join(dir, "sig"))
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// FuzzVerifyECDSA: whatever is taken must still be two numbers over these bytes.
func FuzzVerifyECDSA(f *testing.F) {
	k := ecdsaKey(f, elliptic.P256())
	b := encode(f, request())
	good, err := approval.Sign(b, "one", k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Signature)
	f.Add(sign(f, b, "one", key(1)).Signature)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if err := approval.Verify(b, events.Signature{Signer: "one", Signature: text}, &k.PublicKey); err == nil && len(text) != len(good.Signature) && len(text) < len(good.Signature)-16 {
			t.Errorf("%q counts", text)
		}
		_ = approval.Verify(append(b, ' '), events.Signature{Signer: "one", Signature: text}, &k.PublicKey)
	})
}
