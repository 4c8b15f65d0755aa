package approval

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/btcdecoded/holdfast/events"
)

// Namespace is what signatures are for, so that none that was made for something else counts: the -n of ssh-keygen.
const Namespace = "holdfast-restore"

// The format of signatures, see PROTOCOL.sshsig of OpenSSH.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	sshsigHash    = "sha512"
	keyType       = "ssh-ed25519"
	armourBegin   = "-----BEGIN SSH SIGNATURE-----"
	armourEnd     = "-----END SSH SIGNATURE-----"
)

// maxSignature bounds a signature in bytes; those of Ed25519 have some 200.
const maxSignature = 4096

// ErrSignature says that a signature does not fit.
var ErrSignature = errors.New("the signature is not one over this request")

// Sign signs a request by an approver's key.
func Sign(request []byte, signer string, key ed25519.PrivateKey) (events.Signature, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PrivateKeySize {
		return events.Signature{}, errors.New("sign request: not an Ed25519 key")
	}
	signature := ed25519.Sign(key, signedData(request))
	blob := []byte(sshsigMagic)
	blob = binary.BigEndian.AppendUint32(blob, sshsigVersion)
	blob = put(blob, wireKey(public), []byte(Namespace), nil, []byte(sshsigHash), put(nil, []byte(keyType), signature))
	return events.Signature{Signer: signer, Signature: base64.StdEncoding.EncodeToString(blob)}, nil
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

// Verify checks that the signature over the request is the key's.
func Verify(request []byte, s events.Signature, key ed25519.PublicKey) error {
	by, signature, err := parse(s.Signature)
	if err != nil {
		return err
	}
	if !bytes.Equal(by, key) {
		return fmt.Errorf("%w: it was made with another key", ErrSignature)
	}
	if !ed25519.Verify(key, signedData(request), signature) {
		return ErrSignature
	}
	return nil
}

// signedData is what an SSHSIG signs instead of the message.
func signedData(message []byte) []byte {
	sum := sha512.Sum512(message)
	return put([]byte(sshsigMagic), []byte(Namespace), nil, []byte(sshsigHash), sum[:])
}

// parse takes an SSHSIG of Ed25519 in base64 apart.
func parse(text string) (key ed25519.PublicKey, signature []byte, err error) {
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
	inKey, ok := take(fields[0], 2)
	inSignature, ok2 := take(fields[4], 2)
	switch {
	case !ok || !ok2 || string(inKey[0]) != keyType || string(inSignature[0]) != keyType,
		len(inKey[1]) != ed25519.PublicKeySize, len(inSignature[1]) != ed25519.SignatureSize:
		return nil, nil, errors.New("the signature is not one of an ssh-ed25519 key")
	case string(fields[1]) != Namespace:
		return nil, nil, fmt.Errorf("the signature was made for something else: sign with -n %s", Namespace)
	case string(fields[3]) != sshsigHash || len(fields[2]) > 0:
		return nil, nil, errors.New("the signature is over another hash than sha512")
	}
	return inKey[1], inSignature[1], nil
}

func wireKey(key ed25519.PublicKey) []byte { return put(nil, []byte(keyType), key) }

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
