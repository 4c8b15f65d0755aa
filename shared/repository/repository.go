// Package repository is a Holdfast repository in an object store: its documents, snapshots and packs, as
// docs/format.md specifies them.
//
// Use [Init] once and [Open] afterwards. [Repository.Begin] writes a snapshot; [Repository.Snapshot] reads one.
// Verification, copying and pruning are in the packages below this one.
//
// A snapshot exists when its manifest exists; the manifest is written last, by put-if-absent on the next sequence
// number. Whatever a crash leaves before that is reused by the next run or removed by prune; no lock is ever left.
package repository

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Format is the version of the repository format that this package reads and writes.
const Format = 1

// draft was a feature of all repositories before version 1 of the format was settled. What is in them may be of any of
// the forms that it had until then.
const draft = "draft"

// maxDocument bounds the size of a signed document, in bytes.
const maxDocument = keyring.MaxDocument

var (
	// ErrNoRepository says that there is no repository in the store.
	ErrNoRepository = errors.New("no repository here")
	// ErrRepositoryExists says that Init found a repository.
	ErrRepositoryExists = errors.New("a repository is here already")
	// ErrCopyBegun says that a copy of a repository was begun in the place and has not got far enough to be opened. It is
	// ErrNoRepository as well.
	ErrCopyBegun = fmt.Errorf("%w yet: a copy of one was begun, and interrupted", ErrNoRepository)
	// ErrRemains says that objects of a repository are in the place, and its own document is gone. It is ErrNoRepository as
	// well.
	ErrRemains = fmt.Errorf("%w any more: its own document %s is gone, and other objects are here", ErrNoRepository, layout.RepositoryKey)
	// ErrUnsupported says that the repository, or something in it, needs a newer reader.
	ErrUnsupported = snapshot.ErrUnsupported
	// ErrDraft says that the repository was made before the format was settled.
	ErrDraft = errors.New("the repository is of a draft of the format, from before version 1")
	// ErrUnfinished says that init was interrupted, or that the access documents are gone.
	ErrUnfinished = errors.New("repository has no access document: init did not finish, or it was removed")
	// ErrNoSigner says that the identity can not sign, which writing needs.
	ErrNoSigner = errors.New("identity has no signer")
)

// Repository is an open repository. It is safe for concurrent use.
type Repository struct {
	store    objstore.Store
	identity *keyring.Identity
	id       snapshot.RepositoryID
	created  time.Time
	codec    *seal.Codec
	buffers  *buffers
	trust    *keyring.Trust
	access   Access
	copied   bool       // the place says so
	also     *elsewhere // nil: what is damaged here is damaged

	accessRead time.Time // when access was read, by this host's clock
}

// description is the payload of repository.json.
type description struct {
	Format        int       `json:"format"`
	ID            string    `json:"id"`
	Created       time.Time `json:"created"`
	MinimumReader int       `json:"minimum_reader"`
	Features      []string  `json:"features"`
}

// Init makes a repository in an empty store, for recipients, with identity's signer as the one that is trusted.
//
// Write order: 1. repository.json, 2. the first access document. After a crash between them the repository has no
// recipients and Open says so; Init with the same identity finishes it.
//
// A place where anything of a repository is already is left alone: a new one would take the keys that the old one's
// missing objects must have.
//
// Errors: ErrRepositoryExists, ErrCopyBegun, ErrRemains, ErrNoSigner.
func Init(ctx context.Context, store objstore.Store, identity *keyring.Identity, recipients []keyring.Recipient, now time.Time) (*Repository, error) {
	signer, ok := identity.Signer()
	if !ok {
		return nil, ErrNoSigner
	}
	if len(recipients) == 0 {
		return nil, errors.New("no recipient to encrypt for")
	}
	if !slices.ContainsFunc(recipients, func(r keyring.Recipient) bool { return r.Type != keyring.TypeKMS }) {
		return nil, errNoOffline
	}
	r, err := open(ctx, store, identity)
	switch {
	case errors.Is(err, ErrNoRepository):
		if err := Vacant(ctx, store); err != nil {
			return nil, err
		}
		if r, err = create(ctx, store, identity, now); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case r.access.Sequence > 0:
		return nil, ErrRepositoryExists
	case r.copied:
		return nil, ErrCopyBegun // its access documents are those of the original
	}
	first := Access{Sequence: 1, Signers: []AccessSigner{{Key: signer.Public().String(), Host: "*", Label: "init"}}}
	for _, rec := range recipients {
		first.Recipients = append(first.Recipients, AccessRecipient{Type: rec.Type, Recipient: rec.Recipient, Label: rec.Label})
	}
	if err := r.PutDocument(ctx, layout.AccessKey(1), first); err != nil {
		return nil, err
	}
	return Open(ctx, store, identity)
}

// Vacant reports whether a new repository can be made in the store: nothing of one is there.
// Errors: ErrCopyBegun, ErrRemains.
func Vacant(ctx context.Context, store objstore.Store) error {
	var found error
	err := store.List(ctx, layout.Prefix, func(o objstore.Info) error {
		if o.Key == layout.CopyKey {
			found = ErrCopyBegun
		} else {
			found = fmt.Errorf("%w (%s)", ErrRemains, o.Key)
		}
		return found
	})
	if found != nil {
		return found
	}
	if err != nil {
		return fmt.Errorf("list what is there: %w", err)
	}
	return nil
}

func create(ctx context.Context, store objstore.Store, identity *keyring.Identity, now time.Time) (*Repository, error) {
	r := &Repository{store: store, identity: identity, created: now.UTC(), codec: seal.NewCodec(), buffers: new(buffers), trust: pinned(identity)}
	if _, err := rand.Read(r.id[:]); err != nil {
		return nil, fmt.Errorf("make a repository id: %w", err)
	}
	d := description{Format: Format, ID: r.id.String(), Created: r.created, MinimumReader: Format, Features: []string{}}
	if err := r.PutDocument(ctx, layout.RepositoryKey, d); err != nil {
		return nil, err
	}
	return r, nil
}

// Open opens the repository in store. The identity's trust lines (and its own signer) are where trust begins; it needs
// no secret key to list and check, and one to read content.
//
// Errors: ErrNoRepository, ErrCopyBegun, ErrRemains, ErrUnsupported, ErrUnfinished, those of [keyring.Open].
func Open(ctx context.Context, store objstore.Store, identity *keyring.Identity) (*Repository, error) {
	r, err := open(ctx, store, identity)
	if err != nil {
		return nil, err
	}
	if r.access.Sequence == 0 {
		return nil, ErrUnfinished
	}
	return r, nil
}

func open(ctx context.Context, store objstore.Store, identity *keyring.Identity) (*Repository, error) {
	// Which access documents there are is asked for at the same time: each round trip to a store far away counts.
	listed := make(chan accessList, 1)
	go func() { listed <- listAccess(ctx, store) }()
	doc, err := objstore.ReadAll(ctx, store, layout.RepositoryKey, maxDocument)
	access := <-listed
	if errors.Is(err, objstore.ErrNotExist) {
		switch {
		case len(access.keys) > 0:
			return nil, ErrRemains
		case access.copied:
			return nil, ErrCopyBegun
		}
		return nil, ErrNoRepository
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", layout.RepositoryKey, err)
	}
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", layout.RepositoryKey, err)
	}
	var d description
	if err := snapshot.Unmarshal(payload, &d); err != nil {
		return nil, fmt.Errorf("read %s: %w", layout.RepositoryKey, err)
	}
	id, err := layout.ParseRepository(d.ID)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: id %w", layout.RepositoryKey, snapshot.ErrFormat, err)
	}
	r := &Repository{store: store, identity: identity, id: id, created: d.Created, codec: seal.NewCodec(), buffers: new(buffers), trust: pinned(identity)}
	if _, _, err := keyring.Open(doc, id, layout.RepositoryKey, r.trust); err != nil {
		return nil, fmt.Errorf("read %s: %w", layout.RepositoryKey, err)
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if err := r.loadAccess(ctx, access); err != nil {
		return nil, err
	}
	return r, nil
}

func (d description) check() error {
	switch {
	case slices.Contains(d.Features, draft):
		return ErrDraft
	case len(d.Features) > 0:
		return fmt.Errorf("%w: the repository has the feature %q", ErrUnsupported, d.Features[0])
	case d.Format != Format || d.MinimumReader > Format:
		return fmt.Errorf("%w: the repository is of format %d and asks for readers of %d, this one knows %d", ErrUnsupported, d.Format, d.MinimumReader, Format)
	}
	return nil
}

// pinned is the trust that an identity file states by itself.
func pinned(identity *keyring.Identity) *keyring.Trust {
	trust := new(keyring.Trust)
	if signer, ok := identity.Signer(); ok {
		trust.Add(signer.Public(), "*")
	}
	for _, t := range identity.Trusted() {
		trust.Add(t.Key, t.Host)
	}
	return trust
}

// Copied reports whether the place says that it is a copy of a repository: what is in it was made before it arrived there.
func (r *Repository) Copied() bool { return r.copied }

// ID is the repository's id.
func (r *Repository) ID() snapshot.RepositoryID { return r.id }

// Created is when the repository was made, by the clock of the host that made it.
func (r *Repository) Created() time.Time { return r.created }

// Store is the object store that holds the repository.
func (r *Repository) Store() objstore.Store { return r.store }

// Trust is who may sign for which host.
func (r *Repository) Trust() *keyring.Trust { return r.trust }

// Identity is what the repository was opened with.
func (r *Repository) Identity() *keyring.Identity { return r.identity }

// Codec compresses and decompresses chunks.
func (r *Repository) Codec() *seal.Codec { return r.codec }

// PutDocument signs v, as JSON, and stores it under key. Errors: ErrNoSigner, those of [objstore.Store].
func (r *Repository) PutDocument(ctx context.Context, key string, v any) error {
	_, err := r.putDocument(ctx, key, v)
	return err
}

func (r *Repository) putDocument(ctx context.Context, key string, v any) ([]byte, error) {
	signer, ok := r.identity.Signer()
	if !ok {
		return nil, fmt.Errorf("sign %s: %w", key, ErrNoSigner)
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	doc := keyring.Sign(signer, r.id, key, payload)
	if len(doc) > keyring.MaxDocument {
		return nil, fmt.Errorf("store %s: %d bytes are more than a document may have", key, len(doc))
	}
	if err := r.store.Put(ctx, key, objstore.Bytes(doc)); err != nil {
		return nil, fmt.Errorf("store %s: %w", key, err)
	}
	return doc, nil
}

// Document reads the signed document under key, checks its signature and decodes it into v (unless v is nil).
// It returns the object's bytes.
func (r *Repository) Document(ctx context.Context, key string, v any) ([]byte, error) {
	doc, err := objstore.ReadAll(ctx, r.store, key, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if err := r.DecodeDocument(key, doc, v); err != nil {
		return doc, err
	}
	return doc, nil
}

// DecodeDocument checks the signature of doc as the object under key and decodes it into v (unless v is nil). Errors: those
// of [keyring.Open] and [snapshot.Unmarshal].
func (r *Repository) DecodeDocument(key string, doc []byte, v any) error {
	payload, _, err := keyring.Open(doc, r.id, key, r.trust)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if v == nil {
		return nil
	}
	if err := snapshot.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}
