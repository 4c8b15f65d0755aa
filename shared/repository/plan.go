package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
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

// smallChain is how many bytes of packs a chain may have before it is begun anew for what is dead in it.
const smallChain = 64 << 20

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
	return errors.Is(err, snapshot.ErrFormat) || errors.Is(err, keyring.ErrSignature) || errors.Is(err, keyring.ErrUntrusted) ||
		errors.Is(err, keyring.ErrUnsigned) || errors.As(err, &damage)
}

// continueChain fills out for a snapshot that goes on with the newest one's chain; where that can't be it says why.
// Errors are of the store, which may be well again soon: that is no reason to begin a new chain.
func (p *planner) continueChain(ctx context.Context, out *plan, newest *Stored) (reason string, err error) {
	if newest == nil {
		return "there is no snapshot to build on", nil
	}
	base := newest
	if p.options.Type == snapshot.Differential && !newest.Unfinished {
		full, err := p.repo.Manifest(ctx, snapshot.ID{Source: p.options.Source, Sequence: newest.ChainStart})
		if err != nil {
			return fmt.Sprintf("the chain's full snapshot %d is not usable: %v", newest.ChainStart, err), nil
		}
		base = full
	}
	if reason := p.usable(ctx, base, newest); reason != "" {
		return reason, nil
	}
	if reason, err := p.readLists(ctx, out, base, newest); reason != "" || err != nil {
		return reason, err
	}
	chain, err := layout.ParseChain(newest.Chain)
	if err != nil {
		return err.Error(), nil //nolint:nilerr // it is a reason
	}
	if reason := p.chainKey(ctx, out, newest, chain); reason != "" {
		return reason, nil
	}
	keys := seal.NewKeys(out.key, seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain})
	out.reader = func(ctx context.Context) (*Snapshot, error) { return p.repo.Snapshot(ctx, base) }
	out.parent, err = p.parentTree(ctx, keys, base)
	if err != nil {
		return fmt.Sprintf("the tree of snapshot %d can not be read: %v", base.Sequence, err), nil
	}
	out.chain, out.chainStart, out.nextPack, out.newest = chain, newest.ChainStart, newest.NextPack, newest
	p.decideType(out, newest)
	return "", nil
}

// decideType says of what type a snapshot is that goes on with a chain. What an unfinished snapshot lacks comes first:
// what builds on it finishes it.
func (p *planner) decideType(out *plan, newest *Stored) {
	asked := p.options.Type
	switch {
	case newest.Unfinished && newest.Type == snapshot.Full:
		out.kind, out.reread = snapshot.Full, asked == snapshot.Full
	case asked == snapshot.Differential && !newest.Unfinished:
		out.kind = snapshot.Differential
	default:
		out.kind = snapshot.Incremental
	}
	if newest.Unfinished && out.kind != asked {
		out.why = fmt.Sprintf("it goes on where the unfinished snapshot %d ended", newest.Sequence)
	}
}

// readLists reads the pack lists that the next snapshot goes on with; a differential needs those of its full as well.
// One that is missing, damaged or wrong is a reason for a new chain, which needs none of it: verify reports the damage, and a
// run that only noticed it when it commits would fail each time.
func (p *planner) readLists(ctx context.Context, out *plan, base, newest *Stored) (reason string, err error) {
	for _, m := range []*Stored{newest, base} {
		if m == newest && out.packs != nil {
			break
		}
		packs, err := p.repo.allLists(ctx, m.Manifest)
		if err == nil {
			_, err = LivePacks(m.Manifest, slices.Clone(packs)) // they may contradict each other
		}
		var damage *DamageError
		switch {
		case errors.Is(err, objstore.ErrNotExist) || errors.Is(err, snapshot.ErrFormat) || errors.As(err, &damage):
			out.warnings = append(out.warnings, fmt.Errorf("snapshot %d can not be built on: %w; `holdfast verify` tells what is lost", m.Sequence, err))
			return fmt.Sprintf("a pack list of snapshot %d is missing or damaged", m.Sequence), nil
		case err != nil:
			return "", err
		}
		if m == newest {
			out.packs = packs
		}
	}
	return "", nil
}

// listed are the packs that the lists of the newest snapshot name; the caller may change the result.
func (p *plan) listed(ctx context.Context, repo *Repository) ([]snapshot.PackInfo, error) {
	if p.packs != nil {
		packs := p.packs
		p.packs = nil
		return packs, nil
	}
	return repo.allLists(ctx, p.newest.Manifest)
}

// usable reports why a snapshot can't be a parent. Of a differential the newest snapshot must stay as well: its pack
// lists and its numbers are gone on with.
func (p *planner) usable(ctx context.Context, base, newest *Stored) string {
	if base.Kind != p.options.Kind {
		return fmt.Sprintf("snapshot %d is of kind %s", base.Sequence, base.Kind)
	}
	if ClockOff(base) {
		return fmt.Sprintf("the clock was off when snapshot %d was made", base.Sequence)
	}
	if c := newest.Counts; c.LiveBytes > 0 && c.PackBytes >= smallChain && c.LiveBytes < c.PackBytes/2 {
		return fmt.Sprintf("of the %d bytes of the packs of snapshot %d less than half are still in use", c.PackBytes, newest.Sequence)
	}
	condemned, err := p.repo.Condemned(ctx, p.options.Source)
	if err != nil {
		return err.Error()
	}
	for _, c := range condemned {
		if c.Sequence == base.Sequence || c.Sequence == newest.Sequence {
			return fmt.Sprintf("snapshot %d is about to be removed", c.Sequence)
		}
	}
	return ""
}

// ClockOff reports whether the clock of the host that made a snapshot differed from the store's by more than
// ClockTolerance, as far as its arrival tells.
func ClockOff(m *Stored) bool {
	d := m.Arrived.Sub(m.Finished)
	return d > ClockTolerance || d < -ClockTolerance
}

// chainKey recovers the data key of the chain that goes on: from the state directory, or with the identity.
func (p *planner) chainKey(ctx context.Context, out *plan, newest *Stored, chain snapshot.ChainID) string {
	if len(newest.Keys) == 0 {
		return fmt.Sprintf("snapshot %d names no key", newest.Sequence)
	}
	out.wrapped = p.withLater(ctx, newest.Keys[0])
	var c chainState
	if p.state.load(chainFile, &c) && c.Chain == newest.Chain && len(c.Key) == len(out.key) {
		if out.key = seal.DataKey(c.Key); out.key.ID(p.repo.id).String() == newest.Keys[0].Key {
			return p.complete(ctx, out, chain)
		}
	}
	key, err := p.repo.unwrapKey(ctx, newest.Manifest, chain)
	if err != nil {
		return "the key of the chain is neither in the state directory nor can the identity open it"
	}
	out.key = key
	return p.complete(ctx, out, chain)
}

// complete wraps the chain's key for keys of KMS that could not be reached when the chain began, and stores that. What
// fails again is said, and is no reason to begin a chain. Other recipients that have no entry are left as they are: who
// was added later is given the old keys by whoever adds them.
func (p *planner) complete(ctx context.Context, out *plan, chain snapshot.ChainID) string {
	context := seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain}
	keyID := out.key.ID(p.repo.id).String()
	for _, r := range p.repo.access.Recipients {
		if r.Type != keyring.TypeKMS || slices.ContainsFunc(out.wrapped, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		w := snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient}
		var err error
		if w.Wrapped, err = p.repo.identity.Wrap(ctx, keyring.Recipient{Type: r.Type, Recipient: r.Recipient}, out.key, context); err == nil {
			// Before the manifest that repeats it, as always. A crash leaves an object that the next run takes over.
			err = p.repo.PutDocument(ctx, layout.KeyKey(p.options.Source, keyID, RecipientID(w.Type, w.Recipient)), KeyDocument{Key: keyID, Chain: chain.String(), Wrapped: w})
		}
		if err != nil {
			out.warnings = append(out.warnings, fmt.Errorf("%w; the backup goes on without it, the next one asks again", err))
			continue
		}
		out.wrapped = append(out.wrapped, w)
	}
	return ""
}

// withLater are the entries of a chain's key with those that recipients of today got later: the next manifest repeats
// them, so that they need no key object any more. One that can't be read costs nothing but that.
func (p *planner) withLater(ctx context.Context, key snapshot.Key) []snapshot.Wrapped {
	out := slices.Clone(key.Wrapped)
	for _, r := range p.repo.access.Recipients {
		if slices.ContainsFunc(out, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		var doc KeyDocument
		object := layout.KeyKey(p.options.Source, key.Key, RecipientID(r.Type, r.Recipient))
		if _, err := p.repo.Document(ctx, object, &doc); err == nil && doc.Key == key.Key && doc.Type == r.Type && doc.Recipient == r.Recipient {
			out = append(out, doc.Wrapped)
		}
	}
	return out
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

// newChain makes a chain, or takes up that of an interrupted full. A run older than maxRun is not taken up: its packs
// might be pruned before it commits.
func (p *planner) newChain(ctx context.Context, out *plan) error {
	out.chainStart, out.nextPack = out.next, 1
	var pending chainState
	// A chain that was committed is never begun again: its sequence number is taken then.
	if p.state.load(pendingFile, &pending) && pending.Sequence == out.next && len(pending.Key) == len(out.key) && p.now.Sub(pending.Begun).Abs() < maxRun {
		if chain, err := layout.ParseChain(pending.Chain); err == nil && pending.Signer == p.signer() && p.sealedForAll(pending.Wrapped) {
			out.chain, out.key, out.wrapped, out.begun = chain, seal.DataKey(pending.Key), pending.Wrapped, pending.Begun
			if err := p.wrap(ctx, out, chain); err != nil || len(out.wrapped) == len(pending.Wrapped) {
				return err
			}
			// Before the key objects: wrapped once more by a service, the same key is other bytes.
			pending.Wrapped = out.wrapped
			return p.state.save(pendingFile, pending)
		}
	}
	chain, err := newChainID()
	if err != nil {
		return err
	}
	out.chain, out.key, out.wrapped = chain, seal.NewDataKey(), nil // what is there may be of a chain that can't go on
	if err := p.wrap(ctx, out, chain); err != nil {
		return err
	}
	return p.state.save(pendingFile, chainState{Chain: chain.String(), Key: out.key[:], Wrapped: out.wrapped, Signer: p.signer(), Begun: p.now, Sequence: out.next})
}

// signer is the public key that this run signs with. The key objects of an interrupted run that another one signed
// can't be put again.
func (p *planner) signer() string {
	s, ok := p.repo.identity.Signer()
	if !ok {
		return ""
	}
	return s.Public().String()
}

// sealedForAll reports whether wrapped is for exactly the recipients of today. What a service did not wrap when it was
// asked is no reason to begin anew: it is asked again.
func (p *planner) sealedForAll(wrapped []snapshot.Wrapped) bool {
	found := 0
	for _, want := range p.repo.access.Recipients {
		has := slices.ContainsFunc(wrapped, func(w snapshot.Wrapped) bool { return w.Recipient == want.Recipient && w.Type == want.Type })
		if !has && want.Type != keyring.TypeKMS {
			return false
		}
		if has {
			found++
		}
	}
	return found == len(wrapped)
}

// wrap seals the chain's key for each recipient of today that has no entry yet. A key of KMS that can't be reached must
// not cost a backup: its entry is left out, which is said, and later runs of the chain ask again. Without any entry that
// needs no service nothing is written.
func (p *planner) wrap(ctx context.Context, out *plan, chain snapshot.ChainID) error {
	recipients, err := p.repo.Recipients()
	if err != nil {
		return err
	}
	context := seal.Context{Repository: p.repo.id, Source: p.options.Source, Chain: chain}
	offline := false
	for _, r := range recipients {
		offline = offline || r.Type != keyring.TypeKMS
		if slices.ContainsFunc(out.wrapped, func(w snapshot.Wrapped) bool { return w.Type == r.Type && w.Recipient == r.Recipient }) {
			continue
		}
		b, err := p.repo.identity.Wrap(ctx, r, out.key, context)
		switch {
		case err == nil:
			out.wrapped = append(out.wrapped, snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient, Wrapped: b})
		case r.Type == keyring.TypeKMS && ctx.Err() == nil:
			out.warnings = append(out.warnings, fmt.Errorf("%w; the backup goes on without it, the next one asks again", err))
		default:
			return fmt.Errorf("seal the chain's key for %s: %w", r.Recipient, err)
		}
	}
	if !offline {
		return errNoOffline
	}
	return nil
}

// errNoOffline says that nobody could read a chain without a service.
var errNoOffline = errors.New("no recipient is an age public key: without one, a key that is disabled would close the repository")
