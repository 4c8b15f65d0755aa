package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// MaxDocument is the largest signed document in bytes.
const MaxDocument = 16 << 20

const domainDocument = "holdfast v1 document\x00"

// message returns what is signed: the payload, bound to its repository and its key.
func message(repo snapshot.RepositoryID, key string, payload []byte) []byte {
	m := make([]byte, 0, len(domainDocument)+2*len(repo)+1+len(key)+1+len(payload))
	m = append(m, domainDocument...)
	m = append(m, repo.String()...)
	m = append(append(m, 0), key...)
	return append(append(m, 0), payload...)
}

// Sign returns the whole document with this payload for the object key. The payload must be one JSON object without a raw
// newline, as [json.Marshal] writes it; another is a mistake of the program, and Sign panics.
func Sign(s *Signer, repo snapshot.RepositoryID, key string, payload []byte) []byte {
	if err := checkPayload(payload); err != nil {
		panic("keyring: sign " + key + ": " + err.Error())
	}
	signature := ed25519.Sign(s.private, message(repo, key, payload))
	doc := append(make([]byte, 0, len(payload)+len(signatureLine(PublicKey{}, nil))+96), payload...)
	return append(append(doc, '\n'), signatureLine(s.public, signature)...)
}

func signatureLine(signer PublicKey, signature []byte) string {
	return `{"signer":"` + signer.String() + `","signature":"` + base64.StdEncoding.EncodeToString(signature) + "\"}\n"
}

// checkPayload checks that the payload is one JSON object on one line.
func checkPayload(payload []byte) error {
	if len(payload) == 0 || payload[0] != '{' || payload[len(payload)-1] != '}' || bytes.IndexByte(payload, '\n') >= 0 || !json.Valid(payload) {
		return fmt.Errorf("%w: the payload is not one JSON object on one line", ErrUnsigned)
	}
	return nil
}

// split takes a document apart. Its second line has only one form, so that a document has only one.
func split(doc []byte) (payload []byte, signer PublicKey, signature []byte, err error) {
	if len(doc) > MaxDocument {
		return nil, signer, nil, fmt.Errorf("%w: %d bytes", ErrUnsigned, len(doc))
	}
	payload, line, ok := bytes.Cut(doc, []byte{'\n'})
	if !ok {
		return nil, signer, nil, ErrUnsigned
	}
	if err := checkPayload(payload); err != nil {
		return nil, signer, nil, err
	}
	var parsed struct {
		Signer    PublicKey `json:"signer"`
		Signature []byte    `json:"signature"`
	}
	if err := json.Unmarshal(line, &parsed); err != nil {
		return nil, signer, nil, fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	if string(line) != signatureLine(parsed.Signer, parsed.Signature) || len(parsed.Signature) != ed25519.SignatureSize {
		return nil, signer, nil, fmt.Errorf("%w: second line not in its exact form", ErrUnsigned)
	}
	return payload, parsed.Signer, parsed.Signature, nil
}

// Open checks a document that was read from the object key, and returns its payload, which aliases doc. It errors with
// [ErrUnsigned], [ErrSignature] (altered, moved to another key, or from another repository) or [ErrUntrusted].
func Open(doc []byte, repo snapshot.RepositoryID, key string, trust *Trust) (payload []byte, signer PublicKey, err error) {
	o, err := parseObject(key)
	if err != nil {
		return nil, signer, fmt.Errorf("open document %s: %w", key, err)
	}
	payload, signer, signature, err := split(doc)
	if err != nil {
		return nil, signer, fmt.Errorf("open document %s: %w", key, err)
	}
	if !ed25519.Verify(signer[:], message(repo, key, payload), signature) {
		return nil, signer, fmt.Errorf("open document %s: %w", key, ErrSignature)
	}
	if !trust.allows(signer, o) {
		return nil, signer, fmt.Errorf("open document %s: %w: %s, for %s", key, ErrUntrusted, signer, o)
	}
	return payload, signer, nil
}

// Peek returns the payload and the alleged signer of a document without checking the signature. It is only for learning
// the repository id from repository.json, with which the same document is then opened.
func Peek(doc []byte) (payload []byte, signer PublicKey, err error) {
	payload, signer, _, err = split(doc)
	return payload, signer, err
}
