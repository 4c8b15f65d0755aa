package keyring

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TypeKMS is the type of recipients that are keys of AWS KMS, named by their ARN. Whoever may use the key opens what is
// wrapped for it; the key never leaves the service.
const TypeKMS = "kms"

// KMS is the service, as far as data keys need it; package awskms has it. The encryption context is authenticated: what
// was encrypted in one is decrypted in no other, and rights can depend on it. Errors never hold the plaintext.
type KMS interface {
	// Encrypt returns plain, at most 4 KiB, encrypted under the key with this ARN.
	Encrypt(ctx context.Context, arn string, plain []byte, encryptionContext map[string]string) ([]byte, error)
	// Decrypt is the reverse of Encrypt. An answer by another key than the named one is an error.
	Decrypt(ctx context.Context, arn string, wrapped []byte, encryptionContext map[string]string) ([]byte, error)
}

// ErrNoKMS says that a key of KMS is needed and nothing is there to ask for it.
var ErrNoKMS = errors.New("keys of AWS KMS are not in use here")

// kmsContext is the encryption context of a data key: exactly these two.
func kmsContext(c seal.Context) map[string]string {
	return map[string]string{"host": c.Source.Host, "source": c.Source.Name}
}

// kmsARN is the form of a key's ARN. An alias would do for the service, but can be made to mean another key.
func kmsARN(s string) bool {
	ok, err := regexp.MatchString(`^arn:aws[a-z-]*:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,64}$`, s)
	return ok && err == nil
}

// UseKMS makes the identity open and wrap data keys with KMS too; nil: no longer. It must be called before the identity
// is used by several goroutines.
func (id *Identity) UseKMS(k KMS) { id.kms = k }

// Wrap returns the data key, readable for the recipient only: by its public key, or by KMS.
func (id *Identity) Wrap(ctx context.Context, r Recipient, key seal.DataKey, c seal.Context) ([]byte, error) {
	if r.Type != TypeKMS {
		return r.Wrap(ctx, key, c)
	}
	if id.kms == nil {
		return nil, fmt.Errorf("wrap data key for %s: %w", short(r.Recipient), ErrNoKMS)
	}
	wrapped, err := id.kms.Encrypt(ctx, r.Recipient, key[:], kmsContext(c))
	if err == nil && (len(wrapped) == 0 || len(wrapped) > maxWrapped) {
		err = fmt.Errorf("%d bytes came back", len(wrapped))
	}
	if err != nil {
		return nil, fmt.Errorf("wrap data key for %s: %w", short(r.Recipient), err)
	}
	return wrapped, nil
}

// openByKMS opens the first entry of type kms that the service opens. Keys in several regions are asked in turn.
func (id *Identity) openByKMS(ctx context.Context, wrapped []snapshot.Wrapped, c seal.Context) (key seal.DataKey, err error) {
	for i := range wrapped {
		w := &wrapped[i]
		if w.Type != TypeKMS || !kmsARN(w.Recipient) || len(w.Wrapped) > maxWrapped {
			continue
		}
		plain, kerr := id.kms.Decrypt(ctx, w.Recipient, w.Wrapped, kmsContext(c))
		switch {
		case ctx.Err() != nil:
			return key, ctx.Err()
		case kerr == nil && len(plain) == len(key):
			copy(key[:], plain)
			clear(plain)
			return key, nil
		case kerr == nil:
			kerr = errors.New("wrapped data key has not 32 bytes")
		}
		clear(plain)
		err = errors.Join(err, fmt.Errorf("%s: %w", short(w.Recipient), kerr))
	}
	if err == nil {
		err = ErrWrongIdentity
	}
	return key, err
}
