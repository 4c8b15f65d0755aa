package keyring

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// signerPrefix begins the line with the signer's secret in an identity file.
const signerPrefix = "HOLDFAST-SIGNER-"

// PublicKey is the Ed25519 public key of a signer.
type PublicKey [32]byte

// ParsePublicKey parses the base64 of a public key.
func ParsePublicKey(s string) (k PublicKey, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err == nil && len(b) == len(k) {
		copy(k[:], b)
	}
	// The decoder skips line breaks: compare.
	if k.String() != s {
		return PublicKey{}, fmt.Errorf("public key %q: want the base64 of 32 bytes", short(s))
	}
	return k, nil
}

func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *PublicKey) UnmarshalText(b []byte) (err error) {
	*k, err = ParsePublicKey(string(b))
	return err
}

// Signer signs documents. It never prints its secret.
type Signer struct {
	private ed25519.PrivateKey
	public  PublicKey
}

// NewSigner returns a new random signer.
func NewSigner() *Signer {
	var seed [ed25519.SeedSize]byte
	_, _ = rand.Read(seed[:]) // never fails: the program ends where the system has no randomness
	return newSigner(seed[:])
}

func newSigner(seed []byte) *Signer {
	s := &Signer{private: ed25519.NewKeyFromSeed(seed)}
	copy(s.public[:], s.private[ed25519.SeedSize:])
	return s
}

func parseSigner(line string) (*Signer, error) {
	seed, err := bech32Decode(signerPrefix, line)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errBech32
	}
	return newSigner(seed), nil
}

// Public returns the key by which others check the signatures.
func (s *Signer) Public() PublicKey { return s.public }

// Format implements [fmt.Formatter]: whatever the verb, only the public key is shown.
func (s *Signer) Format(f fmt.State, _ rune) {
	if s == nil {
		_, _ = f.Write([]byte("<nil>"))
		return
	}
	_, _ = f.Write([]byte("signer " + s.public.String()))
}

// MarshalText implements [encoding.TextMarshaler] with the public key only.
func (s *Signer) MarshalText() ([]byte, error) { return s.public.MarshalText() }

// secret is the line of the identity file.
func (s *Signer) secret() string { return bech32Encode(signerPrefix, s.private.Seed()) }

// short cuts a text for messages.
func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
