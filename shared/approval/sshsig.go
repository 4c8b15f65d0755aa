package approval

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Namespace is what signatures are for, so that none that was made for something else counts: the -n of ssh-keygen.
const Namespace = "holdfast-restore"

// The format of signatures, see PROTOCOL.sshsig of OpenSSH.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	sshsigHash    = "sha512"
	armourBegin   = "-----BEGIN SSH SIGNATURE-----"
	armourEnd     = "-----END SSH SIGNATURE-----"
)

// maxSignature bounds a signature in bytes; those of Ed25519 have some 200, those of ECDSA 350.
const maxSignature = 4096

// ErrSignature says that a signature does not fit.
var ErrSignature = errors.New("the signature is not one over this request")

// Sign signs a request by an approver's key, an [ed25519.PrivateKey] or an [*ecdsa.PrivateKey] on P-256.
func Sign(request []byte, signer string, key crypto.Signer) (events.Signature, error) {
	return SignBy(request, signer, key.Public(), func(data []byte) ([]byte, error) {
		if _, ok := key.Public().(*ecdsa.PublicKey); ok {
			sum := sha256.Sum256(data)
			return key.Sign(rand.Reader, sum[:], crypto.SHA256)
		}
		return key.Sign(rand.Reader, data, crypto.Hash(0))
	})
}

// SignBy signs a request with a key that is elsewhere. sign is given some 110 bytes and returns, for an Ed25519 key, its
// signature over them (pure Ed25519, RFC 8032), and for an ECDSA key one over their SHA-256 in ASN.1, as KMS and
// cryptographic hardware do. What comes back is checked.
func SignBy(request []byte, signer string, public crypto.PublicKey, sign func(data []byte) ([]byte, error)) (events.Signature, error) {
	wire, err := policy.WireKey(public)
	if err != nil {
		return events.Signature{}, fmt.Errorf("sign request: %w", err)
	}
	raw, err := sign(signedData(request))
	if err != nil {
		return events.Signature{}, fmt.Errorf("sign request: %w", err)
	}
	name := policy.SSHEd25519
	if _, ok := public.(*ecdsa.PublicKey); ok {
		name = policy.SSHECDSA
		if raw, err = fromASN1(raw); err != nil {
			return events.Signature{}, fmt.Errorf("sign request: %w", err)
		}
	}
	blob := []byte(sshsigMagic)
	blob = binary.BigEndian.AppendUint32(blob, sshsigVersion)
	blob = put(blob, wire, []byte(Namespace), nil, []byte(sshsigHash), put(nil, []byte(name), raw))
	s := events.Signature{Signer: signer, Signature: base64.StdEncoding.EncodeToString(blob)}
	if err := Verify(request, s, public); err != nil {
		return events.Signature{}, fmt.Errorf("sign request: the key answered with something else: %w", err)
	}
	return s, nil
}

// numbers are the two of a signature of ECDSA.
type numbers struct{ R, S *big.Int }

// fromASN1 writes a signature of ECDSA as SSH does: two mpints (RFC 5656, section 3.1.2).
func fromASN1(der []byte) ([]byte, error) {
	var n numbers
	if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 || n.R.Sign() <= 0 || n.S.Sign() <= 0 {
		return nil, errors.New("the signature is not one of ECDSA")
	}
	mpint := func(i *big.Int) []byte {
		b := i.Bytes()
		if len(b) > 0 && b[0] >= 0x80 {
			b = append([]byte{0}, b...) // it would be a negative number
		}
		return b
	}
	return put(nil, mpint(n.R), mpint(n.S)), nil
}

// toASN1 is the reverse. Only the one way to write a number is taken.
func toASN1(ssh []byte) ([]byte, error) {
	list, ok := take(ssh, 2)
	if !ok {
		return nil, ErrSignature
	}
	var n [2]*big.Int
	for i, b := range list {
		if len(b) == 0 || len(b) > 33 || b[0] >= 0x80 || b[0] == 0 && (len(b) < 2 || b[1] < 0x80) {
			return nil, ErrSignature
		}
		n[i] = new(big.Int).SetBytes(b)
	}
	return asn1.Marshal(numbers{n[0], n[1]})
}

// FromSSH turns the file that `ssh-keygen -Y sign` writes into a signature.
func FromSSH(armoured []byte, signer string) (events.Signature, error) {
	text := strings.TrimSpace(string(armoured))
	body, ok := strings.CutPrefix(text, armourBegin)
	body, ok2 := strings.CutSuffix(body, armourEnd)
	if !ok || !ok2 {
		return events.Signature{}, errors.New("read signature: not what `ssh-keygen -Y sign` writes")
	}
	joined := strings.Join(strings.Fields(body), "")
	if _, _, err := parse(joined); err != nil {
		return events.Signature{}, fmt.Errorf("read signature: %w", err)
	}
	return events.Signature{Signer: signer, Signature: joined}, nil
}

// Verify checks that the signature over the request is the key's, an [ed25519.PublicKey] or an [*ecdsa.PublicKey].
func Verify(request []byte, s events.Signature, key crypto.PublicKey) error {
	wire, err := policy.WireKey(key)
	if err != nil {
		return err
	}
	by, signature, err := parse(s.Signature)
	if err != nil {
		return err
	}
	if !bytes.Equal(by, wire) {
		return fmt.Errorf("%w: it was made with another key", ErrSignature)
	}
	data, good := signedData(request), false
	switch k := key.(type) {
	case ed25519.PublicKey:
		good = len(signature) == ed25519.SignatureSize && ed25519.Verify(k, data, signature)
	case *ecdsa.PublicKey:
		der, err := toASN1(signature)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		good = ecdsa.VerifyASN1(k, sum[:], der)
	}
	if !good {
		return ErrSignature
	}
	return nil
}

// signedData is what an SSHSIG signs instead of the message.
func signedData(message []byte) []byte {
	sum := sha512.Sum512(message)
	return put([]byte(sshsigMagic), []byte(Namespace), nil, []byte(sshsigHash), sum[:])
}

// parse takes an SSHSIG in base64 apart: the key that made it, as SSH writes it, and the signature as its kind has it.
func parse(text string) (key, signature []byte, err error) {
	if len(text) > maxSignature {
		return nil, nil, errors.New("the signature is too long")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, nil, errors.New("the signature is not base64")
	}
	rest, ok := bytes.CutPrefix(blob, []byte(sshsigMagic))
	if !ok || len(rest) < 4 || binary.BigEndian.Uint32(rest) != sshsigVersion {
		return nil, nil, errors.New("the signature is not an SSHSIG of version 1")
	}
	fields, ok := take(rest[4:], 5) // key, namespace, reserved, hash, signature
	if !ok {
		return nil, nil, errors.New("the signature is cut off, or more follows it")
	}
	public, kerr := policy.ParseWireKey(fields[0])
	inSignature, ok := take(fields[4], 2)
	switch {
	case kerr != nil || !ok || string(inSignature[0]) != kindOf(public):
		return nil, nil, fmt.Errorf("the signature is not one of a key of %s or %s", policy.SSHEd25519, policy.SSHECDSA)
	case string(fields[1]) != Namespace:
		return nil, nil, fmt.Errorf("the signature was made for something else: sign with -n %s", Namespace)
	case string(fields[3]) != sshsigHash || len(fields[2]) > 0:
		return nil, nil, errors.New("the signature is over another hash than sha512")
	}
	return fields[0], inSignature[1], nil
}

func kindOf(key crypto.PublicKey) string {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return policy.SSHECDSA
	}
	return policy.SSHEd25519
}

// put appends strings as SSH writes them (RFC 4251, section 5).
func put(b []byte, list ...[]byte) []byte {
	for _, s := range list {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // all are short
		b = append(b, s...)
	}
	return b
}

// take reads exactly n strings.
func take(b []byte, n int) (list [][]byte, ok bool) {
	for range n {
		if len(b) < 4 {
			return nil, false
		}
		size := uint64(binary.BigEndian.Uint32(b))
		if size > uint64(len(b)-4) {
			return nil, false
		}
		list = append(list, b[4:4+size])
		b = b[4+size:]
	}
	return list, len(b) == 0
}
