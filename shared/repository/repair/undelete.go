package repair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/overlay"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// UndeleteOptions says how to undelete.
type UndeleteOptions struct {
	DryRun  bool // remove nothing
	Workers int  // objects under way at the same time; 0: DefaultWorkers
}

// Healed is one object of which an authentic version is current again.
type Healed struct {
	Key     string `json:"key"`
	Version string `json:"version"` // id of the authentic version
	Markers int    `json:"markers"` // delete markers over it
	Garbage int    `json:"garbage"` // versions over it that do not authenticate
	// Rewritten says that a version over it is locked, so that the authentic bytes were stored again on top.
	Rewritten bool `json:"rewritten"`
}

// Undeleted is what [Undelete] did, or would do.
type Undeleted struct {
	DryRun bool     `json:"dry_run"`
	Healed []Healed `json:"healed"` // ascending by key
	Left   []Item   `json:"left"`   // objects of which no version authenticates, or that could not be healed
}

// Undelete makes the current version of each object again one that authenticates: it removes the delete markers and the
// versions over the newest one whose bytes match its name, bear a valid signature or, of logs, are the records that they
// should be. Holdfast itself deletes with all versions and never overwrites, so that markers and second versions are always
// somebody else's. Records of damaged packs are left alone: repair may hide one that is locked.
//
// The oldest of what is in the way goes first, the current one last: until then nothing changes for readers. A crash
// leaves some of it: the next run goes on.
//
// Errors: objstore.ErrNoVersions, those of the store and of [repository.Open] where not even the repository's own
// documents have an authentic version.
func Undelete(ctx context.Context, store objstore.Store, identity *keyring.Identity, opts UndeleteOptions) (*Undeleted, error) {
	u := &undeleter{opts: opts, epochs: map[string]*epochProof{}, result: &Undeleted{DryRun: opts.DryRun, Healed: []Healed{}, Left: []Item{}}}
	if u.opts.Workers <= 0 {
		u.opts.Workers = DefaultWorkers
	}
	var ok bool
	if u.past, ok = store.(objstore.Versioned); !ok {
		return u.result, objstore.ErrNoVersions
	}
	err := u.healRepository(ctx, identity)
	if err == nil {
		err = u.healAll(ctx)
	}
	slices.SortFunc(u.result.Healed, func(a, b Healed) int { return strings.Compare(a.Key, b.Key) })
	slices.SortFunc(u.result.Left, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return u.result, err
}

// undeleter is one run.
type undeleter struct {
	opts UndeleteOptions
	past objstore.Versioned
	repo *repository.Repository // with the repository's own documents as they will be

	reading sync.Mutex
	epochs  map[string]*epochProof // by the key of the head; guarded by reading

	mu     sync.Mutex
	result *Undeleted // guarded by mu
}

// healRepository heals the repository's own document and the access documents in order: each authenticates the next.
func (u *undeleter) healRepository(ctx context.Context, identity *keyring.Identity) error {
	docs := map[string][]byte{}
	key := layout.RepositoryKey
	for n := uint64(1); ; n++ {
		all, err := u.versions(ctx, key)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			break
		}
		good, err := u.heal(ctx, all, u.signed(func(b []byte) bool {
			docs[key] = b
			_, err := repository.Open(ctx, overlay.Store{Documents: docs}, identity)
			return err == nil || errors.Is(err, repository.ErrUnfinished) && key == layout.RepositoryKey
		}))
		if err != nil {
			return err
		}
		if delete(docs, key); good == nil {
			break
		}
		if docs[key], err = u.read(ctx, *good); err != nil {
			return err
		}
		key = layout.AccessKey(n)
	}
	var err error
	if u.repo, err = repository.Open(ctx, overlay.Store{Documents: docs}, identity); err != nil {
		return fmt.Errorf("open the repository with the versions that authenticate: %w", err)
	}
	return nil
}

// versions returns all versions of one key, newest first.
func (u *undeleter) versions(ctx context.Context, key string) ([]objstore.Version, error) {
	var all []objstore.Version
	err := u.past.ListVersions(ctx, key, func(v objstore.Version) error {
		if v.Key == key {
			all = append(all, v)
		}
		return nil
	})
	return all, err
}

// healAll goes through all other objects.
func (u *undeleter) healAll(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Workers)
	var group []objstore.Version
	flush := func() error {
		all := group
		group = nil
		if len(all) == 0 || len(all) == 1 && !all[0].DeleteMarker {
			return gctx.Err() // nothing is over it
		}
		g.Go(func() error { return u.healOne(gctx, all) })
		return gctx.Err()
	}
	err := u.past.ListVersions(gctx, layout.Prefix, func(v objstore.Version) error {
		if len(group) > 0 && group[0].Key != v.Key {
			if err := flush(); err != nil {
				return err
			}
		}
		group = append(group, v)
		return nil
	})
	if err == nil {
		err = flush()
	}
	if werr := g.Wait(); werr != nil {
		return werr
	}
	return err
}

func (u *undeleter) healOne(ctx context.Context, all []objstore.Version) error {
	key := all[0].Key
	parts := strings.Split(strings.TrimPrefix(key, layout.Prefix), "/")
	if key == layout.RepositoryKey || strings.HasPrefix(key, layout.AccessPrefix) || len(parts) < 3 || parts[2] == "damaged" {
		return nil
	}
	if src, o, ok := logObject(key); ok {
		_, err := u.heal(ctx, all, u.piece(src, o))
		return err
	}
	if parts[2] != "packs" && parts[2] != "lists" {
		_, err := u.heal(ctx, all, u.signed(func(b []byte) bool { return u.repo.DecodeDocument(key, b, nil) == nil }))
		return err
	}
	name, err := layout.ParseHash(parts[len(parts)-1])
	if err != nil {
		return nil //nolint:nilerr // the format has no such object; verify names it
	}
	_, err = u.heal(ctx, all, u.named(name))
	return err
}

// proof reads a version and tells whether it authenticates.
type proof func(context.Context, objstore.Version) (bool, error)

// signed is the proof of a document.
func (u *undeleter) signed(valid func([]byte) bool) proof {
	return func(ctx context.Context, v objstore.Version) (bool, error) {
		if v.Size > maxDocument {
			return false, nil
		}
		b, err := u.read(ctx, v)
		return err == nil && valid(b), err
	}
}

// named is the proof of an object that is named by its bytes.
func (u *undeleter) named(name snapshot.Hash) proof {
	return func(ctx context.Context, v objstore.Version) (bool, error) {
		if v.Size > maxNamed {
			return false, nil
		}
		body, err := u.past.GetVersion(ctx, v.Key, v.ID, 0, maxNamed+1)
		if err != nil {
			return false, err
		}
		defer func() { _ = body.Close() }()
		sum := sha256.New()
		_, err = io.Copy(sum, body)
		return snapshot.Hash(sum.Sum(nil)) == name, err
	}
}

func (u *undeleter) read(ctx context.Context, v objstore.Version) ([]byte, error) {
	body, err := u.past.GetVersion(ctx, v.Key, v.ID, 0, maxNamed+1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	var b bytes.Buffer
	_, err = io.Copy(&b, body)
	return b.Bytes(), err
}

// heal makes the newest authentic version of an object current and returns it; nil if there is none.
func (u *undeleter) heal(ctx context.Context, all []objstore.Version, authentic proof) (*objstore.Version, error) {
	item := Item{Key: all[0].Key, Problem: "no version authenticates", Outcome: Left, Snapshots: []snapshot.ID{}, Files: []string{}}
	h := Healed{Key: item.Key}
	for i, v := range all {
		if v.DeleteMarker {
			h.Markers++
			continue
		}
		ok, err := authentic(ctx, v)
		if errors.Is(err, objstore.ErrArchived) {
			item.Problem, item.Reason = "a version that may be authentic is archived", "thaw it to have it looked at"
			u.left(item)
			return nil, nil
		}
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return nil, fmt.Errorf("read version %s of %s: %w", v.ID, v.Key, err)
		}
		if !ok {
			h.Garbage++
			continue
		}
		if i == 0 {
			return &v, nil
		}
		h.Version = v.ID
		var forbidden string
		if !u.opts.DryRun {
			if forbidden, h.Rewritten, err = u.uncover(ctx, all[:i], v); err != nil {
				return nil, fmt.Errorf("undelete %s: %w", v.Key, err)
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if forbidden != "" {
			item.Problem, item.Reason = "an authentic version is hidden", forbidden
			u.result.Left = append(u.result.Left, item)
			return &v, nil
		}
		u.result.Healed = append(u.result.Healed, h)
		return &v, nil
	}
	if h.Garbage > 0 { // of an object with nothing but markers nothing is there to be missed, or found
		u.left(item)
	}
	return nil, nil
}

func (u *undeleter) left(item Item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.result.Left = append(u.result.Left, item)
}

// uncover takes away what is over the version good, the oldest first.
//
// Where a lock keeps something of it, the bytes of good are stored again on top.
func (u *undeleter) uncover(ctx context.Context, over []objstore.Version, good objstore.Version) (forbidden string, rewritten bool, err error) {
	for _, v := range slices.Backward(over) {
		if err = u.past.DeleteVersion(ctx, v.Key, v.ID); err != nil {
			break
		}
	}
	if !errors.Is(err, objstore.ErrLocked) {
		forbidden, err = forbids(err)
		return forbidden, false, err
	}
	b, err := u.read(ctx, good)
	if err != nil {
		return "", false, err
	}
	forbidden, err = forbids(u.past.PutVersion(ctx, good.Key, objstore.Bytes(b)))
	return forbidden, forbidden == "" && err == nil, err
}
