package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Access says for whom new chains are sealed and who may sign. It is the payload of an access document.
type Access struct {
	Sequence   uint64            `json:"sequence"`
	Previous   string            `json:"previous"`
	Recipients []AccessRecipient `json:"recipients"`
	Signers    []AccessSigner    `json:"signers"`

	hash string // hex SHA-256 of the document's bytes
}

// AccessRecipient is someone who can open new chains.
type AccessRecipient struct {
	Type      string `json:"type"`
	Recipient string `json:"recipient"`
	Label     string `json:"label,omitempty"`
}

// AccessSigner is a key whose signatures count for a host, or for all ("*").
type AccessSigner struct {
	Key   string `json:"key"` // base64
	Host  string `json:"host"`
	Label string `json:"label,omitempty"`
	// Only limits the signer to these parts of sources, see [keyring.Grant]; nil: it is not limited.
	Only []string `json:"only,omitzero"`
}

func (s *AccessSigner) grant() (keyring.Grant, error) {
	public, err := keyring.ParsePublicKey(s.Key)
	if err != nil {
		return keyring.Grant{}, err
	}
	return keyring.Grant{TrustedSigner: keyring.TrustedSigner{Key: public, Host: s.Host}, Only: s.Only}, nil
}

// ErrAccess says that the access documents do not form a chain.
var ErrAccess = errors.New("access documents are not one signed chain")

// Access is what the newest access document says.
func (r *Repository) Access() Access { return r.access }

// Recipients are those for whom a new chain is sealed. Errors: ErrUnsupported where a newer program has added one of
// another type: nothing may be written that it could not read.
func (r *Repository) Recipients() ([]keyring.Recipient, error) { return r.access.recipients() }

// accessAge is after how long what the access documents said is asked for once more before a key is sealed.
const accessAge = time.Minute

// recipientsNow is Recipients as of now: who follows a database works for months with a repository that was opened once, and
// what is sealed must open for who was added meanwhile, and no more for who was removed. Where that can't be read, what was
// known counts, and a warning says so.
func (r *Repository) recipientsNow(ctx context.Context) (now []keyring.Recipient, warning, err error) {
	access := r.access
	if time.Since(r.accessRead) > accessAge {
		access, warning = r.accessNow(ctx)
	}
	now, err = access.recipients()
	return now, warning, err
}

// accessNow reads the newest access document, and returns the one that is known beside a warning.
func (r *Repository) accessNow(ctx context.Context) (Access, error) {
	listed := listAccess(ctx, r.store)
	err := listed.err
	if err == nil {
		var now Access
		if now, _, err = r.readAccess(ctx, listed.keys); err == nil && now.Sequence >= r.access.Sequence {
			return now, nil
		}
		if err == nil {
			err = fmt.Errorf("%w: number %d was there, now the newest is %d", ErrAccess, r.access.Sequence, now.Sequence)
		}
	}
	return r.access, fmt.Errorf("a key is sealed for the recipients that were known when the repository was opened: %w", err)
}

// recipients are those of the document.
func (a *Access) recipients() ([]keyring.Recipient, error) {
	var out []keyring.Recipient
	for _, a := range a.Recipients {
		if a.Type != keyring.TypeAge && a.Type != keyring.TypeKMS {
			return nil, fmt.Errorf("recipient %q of the repository is of type %q: %w", a.Recipient, a.Type, ErrUnsupported)
		}
		rec, err := keyring.ParseRecipient(a.Recipient)
		if err != nil {
			return nil, fmt.Errorf("recipient of the repository: %w", err)
		}
		rec.Label = a.Label
		out = append(out, rec)
	}
	return out, nil
}

// accessList is which access documents there are.
type accessList struct {
	keys   []string
	copied bool // the place says that it is a copy
	err    error
}

func listAccess(ctx context.Context, store objstore.Store) (l accessList) {
	l.err = store.List(ctx, layout.AccessPrefix, func(o objstore.Info) error {
		if o.Key == layout.CopyKey {
			l.copied = true
		} else {
			l.keys = append(l.keys, o.Key)
		}
		return nil
	})
	return l
}

// loadAccess reads all access documents in order; each must be signed by a signer for "*" that the one before trusts.
func (r *Repository) loadAccess(ctx context.Context, listed accessList) error {
	if listed.err != nil {
		return fmt.Errorf("list access documents: %w", listed.err)
	}
	access, trust, err := r.readAccess(ctx, listed.keys)
	if err != nil {
		return err
	}
	r.access, r.trust, r.copied, r.accessRead = access, trust, listed.copied, time.Now()
	return nil
}

func (r *Repository) readAccess(ctx context.Context, keys []string) (Access, *keyring.Trust, error) {
	var current Access
	trust := pinned(r.identity)
	for i, key := range keys {
		n, err := layout.ParseNumbered(layout.AccessPrefix, key)
		if err != nil || n != uint64(i+1) {
			return current, nil, fmt.Errorf("%w: %s stands where number %d should", ErrAccess, key, i+1)
		}
		doc, err := objstore.ReadAll(ctx, r.store, key, maxDocument)
		if err != nil {
			return current, nil, fmt.Errorf("read %s: %w", key, err)
		}
		payload, _, err := keyring.Open(doc, r.id, key, trust)
		if err != nil {
			return current, nil, fmt.Errorf("read %s: %w", key, err)
		}
		var next Access
		if err := snapshot.Unmarshal(payload, &next); err != nil {
			return current, nil, fmt.Errorf("read %s: %w", key, err)
		}
		if next.Sequence != n || next.Previous != current.hash {
			return current, nil, fmt.Errorf("%w: %s does not follow the one before it", ErrAccess, key)
		}
		sum := sha256.Sum256(doc)
		next.hash = hex.EncodeToString(sum[:])
		// What the document says replaces what earlier ones said; pinned keys stay.
		if trust, err = next.trust(r.identity); err != nil {
			return current, nil, fmt.Errorf("read %s: signer: %w", key, err)
		}
		current = next
	}
	return current, trust, nil
}

// trust is what the document says beside what the identity pins. An identity trusts its own signer even without a line
// that says so, unless the document limits it: what may only write receipts must not believe its own manifests either.
func (a *Access) trust(identity *keyring.Identity) (*keyring.Trust, error) {
	granted, limited, err := a.granted(identity)
	if err != nil {
		return nil, err
	}
	trust := pinned(identity)
	if limited {
		trust = identity.Trust()
	}
	for _, g := range granted {
		trust.Grant(g)
	}
	return trust, nil
}

// granted is what the document says, and whether all that it says of the identity's own signer has limits.
func (a *Access) granted(identity *keyring.Identity) (all []keyring.Grant, limited bool, err error) {
	own, signs := identity.Signer()
	free := false
	for i := range a.Signers {
		g, err := a.Signers[i].grant()
		if err != nil {
			return nil, false, err
		}
		all = append(all, g)
		if signs && g.Key == own.Public() {
			limited, free = limited || g.Only != nil, free || g.Only == nil
		}
	}
	return all, limited && !free, nil
}

// MaySign reports whether readers count the identity's signature under the object key, by what the access document in
// force says: trust that only this identity's file pins does not count.
func (r *Repository) MaySign(key string) bool {
	own, signs := r.identity.Signer()
	if !signs {
		return false
	}
	trust := new(keyring.Trust)
	granted, _, err := r.access.granted(r.identity)
	for _, g := range granted {
		trust.Grant(g)
	}
	return err == nil && trust.Allows(own.Public(), key)
}

// ErrForeignSigner says that nobody counts the identity's signature for what it would write. An identity trusts itself, so
// that without this check the number of a snapshot or of an access document would be taken by one that no other reader
// believes.
var ErrForeignSigner = errors.New("the repository does not count this identity's signature for that")

// ChangeAccess writes the next access document after change has edited a copy of the current one. Errors: ErrNoSigner,
// ErrForeignSigner.
// Two changes at the same time: one gets objstore.ErrExist and may try again after Open.
func (r *Repository) ChangeAccess(ctx context.Context, change func(*Access) error) error {
	next := Access{
		Sequence: r.access.Sequence + 1, Previous: r.access.hash,
		Recipients: slices.Clone(r.access.Recipients), Signers: slices.Clone(r.access.Signers),
	}
	key := layout.AccessKey(next.Sequence)
	if _, ok := r.identity.Signer(); ok && !r.MaySign(key) {
		return fmt.Errorf("change access: %w", ErrForeignSigner)
	}
	if err := change(&next); err != nil {
		return err
	}
	for i := range next.Signers {
		if err := keyring.CheckOnly(next.Signers[i].Only); err != nil {
			return fmt.Errorf("signer %s: %w", next.Signers[i].Key, err)
		}
	}
	if len(next.Recipients) == 0 {
		return errors.New("the last recipient can not be removed: nobody could read new snapshots")
	}
	if !slices.ContainsFunc(next.Recipients, func(a AccessRecipient) bool { return a.Type != keyring.TypeKMS }) {
		return errNoOffline
	}
	if err := r.PutDocument(ctx, key, next); err != nil {
		return err
	}
	return r.loadAccess(ctx, listAccess(ctx, r.store))
}
