package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ClockTolerance is how far a host's clock may be from the store's before its snapshots are shown so and are never
// parents.
const ClockTolerance = 5 * time.Minute

// RollbackError says that the repository ends earlier than what was seen before, or that a snapshot was replaced.
type RollbackError struct {
	Source   snapshot.Source
	Seen     uint64 // the newest snapshot that was seen
	Found    uint64 // the newest that is there now
	Replaced bool   // number Seen is there with other content
	Access   bool   // Seen and Found are of access documents: who was removed may be back
}

func (e *RollbackError) Error() string {
	if e.Access {
		return fmt.Sprintf("rollback of the repository: access document %d was there, now the newest is %d", e.Seen, e.Found)
	}
	if e.Replaced {
		return fmt.Sprintf("rollback of %s: snapshot %d is not the one that was seen before", e.Source, e.Seen)
	}
	return fmt.Sprintf("rollback of %s: snapshot %d was there, now the newest is %d", e.Source, e.Seen, e.Found)
}

// plan is what a session found and decided before it stores anything.
type plan struct {
	kind     snapshot.SnapshotType
	why      string // why kind is not what was asked for
	next     uint64 // sequence number to commit
	previous string // hash of the manifest before
	warnings []error
	access   uint64 // highest number of an access document that this host has seen

	parent     *parent             // nil: new chain
	reread     bool                // the parent's entries are not taken over, only its chunks: a full that was asked for
	newest     *Stored             // of the chain that goes on; nil: new chain
	packs      []snapshot.PackInfo // of the newest's lists; nil: not read
	chain      snapshot.ChainID
	chainStart uint64
	key        seal.DataKey
	wrapped    []snapshot.Wrapped
	nextPack   uint64
	begun      time.Time // when the run, or the interrupted one that it takes up, began

	reader func(context.Context) (*Snapshot, error) // of the parent, from the repository
}

// planner decides what the next snapshot builds on.
type planner struct {
	repo    *Repository
	options BeginOptions
	state   *state
	now     time.Time
}

// plan finds the next number and the parent. What can't be used leads to a full, with the reason.
func (p *planner) plan(ctx context.Context) (plan, error) {
	listed, err := p.repo.Sequences(ctx, p.options.Source)
	if err != nil {
		return plan{}, err
	}
	out := plan{next: 1, begun: p.now, kind: snapshot.Full}
	newest, err := p.ends(ctx, &out, listed)
	if err != nil {
		return plan{}, err
	}
	if p.options.Type == snapshot.Full && !p.takesUp(newest) {
		return out, p.newChain(ctx, &out)
	}
	reason, err := p.continueChain(ctx, &out, newest)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return plan{}, err
	}
	if reason == "" {
		return out, nil
	}
	out.kind, out.parent, out.newest, out.packs, out.reread, out.why = snapshot.Full, nil, nil, nil, false, ""
	if p.options.Type != snapshot.Full && (newest != nil || p.options.Type != "") {
		out.why = reason
	}
	return out, p.newChain(ctx, &out)
}

// takesUp reports whether a full that was asked for goes on in the chain of the newest snapshot: an unfinished full, for
// the recipients of today.
func (p *planner) takesUp(newest *Stored) bool {
	return newest != nil && newest.Unfinished && newest.Type == snapshot.Full && p.sealedForAll(newest.Keys[0].Wrapped)
}

// ends looks at the newest snapshot and compares it with what this host saw last. After a rollback the numbering goes
// on from what was seen: the hole stays visible, and no number is used twice.
func (p *planner) ends(ctx context.Context, out *plan, listed []Listed) (*Stored, error) {
	var last lastSeen
	seen := p.state.load(lastFile, &last)
	var newest *Stored
	if len(listed) > 0 {
		top := listed[len(listed)-1]
		m, err := p.repo.readManifest(ctx, p.options.Source, top)
		if err != nil && (errors.Is(err, context.Canceled) || !isFormat(err)) {
			return nil, err
		}
		if err != nil {
			out.warnings = append(out.warnings, err)
		}
		newest, out.next = m, top.Sequence+1
		if out.previous, err = p.manifestHash(ctx, top.Sequence, m); err != nil {
			return nil, err
		}
	}
	if found := p.repo.access.Sequence; seen && last.Access > found {
		out.warnings = append(out.warnings, &RollbackError{Source: p.options.Source, Seen: last.Access, Found: found, Access: true})
	}
	out.access = max(last.Access, p.repo.access.Sequence)
	switch {
	case !seen:
	case last.Sequence >= out.next:
		out.warnings = append(out.warnings, &RollbackError{Source: p.options.Source, Seen: last.Sequence, Found: out.next - 1})
		out.next, out.previous = last.Sequence+1, last.Manifest
		return nil, nil
	case newest != nil && last.Sequence == newest.Sequence && last.Manifest != newest.Hash.String():
		out.warnings = append(out.warnings, &RollbackError{Source: p.options.Source, Seen: last.Sequence, Found: newest.Sequence, Replaced: true})
		return nil, nil
	}
	return newest, nil
}

// manifestHash is the hash of a manifest object, be it good or not.
func (p *planner) manifestHash(ctx context.Context, n uint64, m *Stored) (string, error) {
	if m != nil {
		return m.Hash.String(), nil
	}
	key := layout.ManifestKey(snapshot.ID{Source: p.options.Source, Sequence: n})
	b, err := objstore.ReadAll(ctx, p.repo.store, key, maxDocument)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return snapshot.Hash(sha256.Sum256(b)).String(), nil
}

// isFormat reports that an object was read and is no good, rather than that it could not be read.
func isFormat(err error) bool {
	var damage *DamageError
	return errors.Is(err, snapshot.ErrFormat) || errors.Is(err, ErrUnsupported) || errors.Is(err, keyring.ErrSignature) || errors.Is(err, keyring.ErrUntrusted) ||
		errors.Is(err, keyring.ErrUnsigned) || errors.As(err, &damage)
}

// passing reports that an error tells nothing of what was to be read: a new chain would store everything again for
// nothing.
func passing(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || objstore.IsTransient(err))
}

// ClockOff reports whether the clock of the host that made a snapshot differed from the store's by more than
// ClockTolerance, as far as its arrival tells.
func ClockOff(m *Stored) bool {
	d := m.Arrived.Sub(m.Finished)
	return d > ClockTolerance || d < -ClockTolerance
}

// parentTree opens the parent's tree: the copy in the state directory, or the repository's own.
func (p *planner) parentTree(ctx context.Context, keys *seal.Keys, base *Stored) (*parent, error) {
	if cached, err := cachedParent(ctx, p.state, parentFile, keys, base); err == nil {
		return cached, nil
	}
	if _, err := cachedParent(ctx, p.state, unfinishedFile, keys, base); err == nil {
		// This run may write another one under that name while it still reads this.
		if err := os.Rename(p.state.path(unfinishedFile), p.state.path(parentFile)); err == nil {
			return cachedParent(ctx, p.state, parentFile, keys, base)
		}
	}
	snap, err := p.repo.Snapshot(ctx, base)
	if err != nil {
		return nil, err
	}
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, err
	}
	for _, err := range snap.Entries(ctx, "") {
		if err != nil {
			return nil, err
		}
	}
	return &parent{stored: base, root: root, entries: snap.all}, nil
}

// errNoOffline says that nobody could read a chain without a service.
var errNoOffline = errors.New("no recipient is an age public key: without one, a key that is disabled would close the repository")
