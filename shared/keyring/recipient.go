package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TypeAge is the type of recipients that are age public keys.
const TypeAge = "age"

// maxWrapped bounds a wrapped data key in bytes.
const maxWrapped = 1 << 16

// Recipient is somebody for whom data keys are wrapped.
type Recipient struct {
	Type      string `json:"type"`
	Recipient string `json:"recipient"`
	Label     string `json:"label,omitempty"` // for people
}

// Wrapper wraps a data key so that its holder can unwrap it.
type Wrapper interface {
	Wrap(ctx context.Context, key seal.DataKey, c seal.Context) ([]byte, error)
}

// Unwrapper unwraps a data key from the first of its wrapped entries that it can open. Its error is [ErrNoIdentity] when it
// opens none. It does not know which key is due: use [UnwrapKey].
type Unwrapper interface {
	Unwrap(ctx context.Context, wrapped []snapshot.Wrapped, c seal.Context) (seal.DataKey, error)
}

// ParseRecipient parses a recipient: the public key "age1…", or the ARN of a key of AWS KMS.
func ParseRecipient(s string) (Recipient, error) {
	if strings.HasPrefix(s, "arn:") {
		if !kmsARN(s) {
			return Recipient{}, fmt.Errorf("recipient %q: want the ARN of a key of AWS KMS (arn:aws:kms:REGION:ACCOUNT:key/ID), not of an alias", short(s))
		}
		return Recipient{Type: TypeKMS, Recipient: s}, nil
	}
	r := Recipient{Type: TypeAge, Recipient: s}
	if _, err := r.age(); err != nil {
		return Recipient{}, err
	}
	return r, nil
}

// age returns the recipient as age knows it.
func (r Recipient) age() (age.Recipient, error) {
	if r.Type == TypeKMS {
		return nil, fmt.Errorf("recipient %s: %w", short(r.Recipient), ErrNoKMS)
	}
	if r.Type != TypeAge {
		return nil, fmt.Errorf("recipient of type %q: %w", short(r.Type), ErrUnsupported)
	}
	if strings.HasPrefix(r.Recipient, "age1pq1") {
		if key, err := age.ParseHybridRecipient(r.Recipient); err == nil && key.String() == r.Recipient {
			return key, nil
		}
	} else if key, err := age.ParseX25519Recipient(r.Recipient); err == nil && key.String() == r.Recipient {
		return key, nil
	}
	return nil, fmt.Errorf("recipient %q: want an age public key (age1…)", short(r.Recipient))
}

// ID returns the 32 hex digits that name the recipient in keys of objects.
func (r Recipient) ID() string {
	h := sha256.Sum256([]byte(r.Type + ":" + r.Recipient))
	return hex.EncodeToString(h[:16])
}

// Wrap returns the data key, readable for the recipient only. For keys of KMS, use [Identity.Wrap].
func (r Recipient) Wrap(_ context.Context, key seal.DataKey, _ seal.Context) ([]byte, error) {
	to, err := r.age()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, fmt.Errorf("wrap data key for %s: %w", short(r.Recipient), err)
	}
	if _, err := w.Write(key[:]); err != nil {
		return nil, fmt.Errorf("wrap data key for %s: %w", short(r.Recipient), err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wrap data key for %s: %w", short(r.Recipient), err)
	}
	return out.Bytes(), nil
}

// Unwrap implements [Unwrapper]. Entries for the identity's own recipients come first, those for KMS last: what can be
// opened here needs nobody else.
func (id *Identity) Unwrap(ctx context.Context, wrapped []snapshot.Wrapped, c seal.Context) (seal.DataKey, error) {
	key, err := id.unwrapByAge(ctx, wrapped)
	if err == nil || id.kms == nil || ctx.Err() != nil {
		return key, err
	}
	key, kerr := id.openByKMS(ctx, wrapped, c)
	switch {
	case kerr == nil:
		return key, nil
	case errors.Is(kerr, ErrWrongIdentity): // nothing is wrapped for it
		return key, err
	case errors.Is(err, ErrNoIdentity):
		return key, fmt.Errorf("%w; %w", err, kerr)
	}
	return key, errors.Join(err, kerr)
}

func (id *Identity) unwrapByAge(ctx context.Context, wrapped []snapshot.Wrapped) (seal.DataKey, error) {
	if len(id.keys) == 0 {
		return seal.DataKey{}, fmt.Errorf("%w: it has no AGE-SECRET-KEY line", ErrNoIdentity)
	}
	var damaged error
	for _, own := range []bool{true, false} {
		for i := range wrapped {
			w := &wrapped[i]
			if w.Type != TypeAge || id.owns(w.Recipient) != own {
				continue
			}
			if err := ctx.Err(); err != nil {
				return seal.DataKey{}, err
			}
			key, err := id.open(w.Wrapped)
			if err == nil {
				return key, nil
			}
			var mismatch *age.NoIdentityMatchError
			if own && damaged == nil && !errors.As(err, &mismatch) {
				damaged = fmt.Errorf("unwrap data key for %s: %w", short(w.Recipient), err)
			}
		}
	}
	if damaged != nil {
		return seal.DataKey{}, damaged
	}
	return seal.DataKey{}, fmt.Errorf("%w: %s", ErrWrongIdentity, forWhom(wrapped))
}

func (id *Identity) owns(recipient string) bool {
	for i := range id.keys {
		if id.keys[i].recipient == recipient {
			return true
		}
	}
	return false
}

func (id *Identity) open(wrapped []byte) (key seal.DataKey, err error) {
	if len(wrapped) > maxWrapped {
		return key, fmt.Errorf("wrapped data key of %d bytes", len(wrapped))
	}
	all := make([]age.Identity, len(id.keys))
	for i := range id.keys {
		all[i] = id.keys[i].secret
	}
	r, err := age.Decrypt(bytes.NewReader(wrapped), all...)
	if err != nil {
		return key, err
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(len(key))+1))
	if err != nil {
		return key, err
	}
	if len(b) != len(key) {
		return key, errors.New("wrapped data key has not 32 bytes")
	}
	copy(key[:], b)
	return key, nil
}

// forWhom lists the recipients of a data key for a message.
func forWhom(wrapped []snapshot.Wrapped) string {
	if len(wrapped) == 0 {
		return "it is wrapped for nobody"
	}
	const most = 5
	var names []string
	for i := range wrapped {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(wrapped)-most))
			break
		}
		names = append(names, short(wrapped[i].Recipient))
	}
	return "it is wrapped for " + strings.Join(names, ", ")
}

// UnwrapKey unwraps the data key k and makes sure that it is the one that k names. Where entries disagree, the one that
// leads to the named key counts. It errors with [ErrNoIdentity] or [ErrKeyID].
func UnwrapKey(ctx context.Context, u Unwrapper, k snapshot.Key, c seal.Context) (seal.DataKey, error) {
	want, err := snapshot.ParseHash(k.Key)
	if err != nil {
		return seal.DataKey{}, fmt.Errorf("unwrap data key: %w", err)
	}
	fits := func(key seal.DataKey) bool {
		got := key.ID(c.Repository)
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
	key, err := u.Unwrap(ctx, k.Wrapped, c)
	if err == nil && fits(key) {
		return key, nil
	}
	if errors.Is(err, ErrNoIdentity) || ctx.Err() != nil {
		return seal.DataKey{}, fmt.Errorf("unwrap data key %s: %w", short(k.Key), err)
	}
	// One entry is damaged or exchanged; another one may still be right.
	for i := range k.Wrapped {
		if key, err := u.Unwrap(ctx, k.Wrapped[i:i+1], c); err == nil && fits(key) {
			return key, nil
		}
	}
	if err == nil {
		err = ErrKeyID
	}
	return seal.DataKey{}, fmt.Errorf("unwrap data key %s: %w", short(k.Key), err)
}
