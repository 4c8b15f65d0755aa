// Package repair makes a repository whole again: it clears the records of packs whose bytes are in order after all,
// and puts back from a copy what is missing or damaged, the identical bytes under the same key. Use [Run].
//
// [Undelete] takes away delete markers and garbage versions that somebody has put over objects of a store that keeps
// versions. [Affected] tells which snapshots name packs that failed a check.
//
// Nothing is believed that is not proven: packs and lists by their names, documents by their signatures, and manifests
// by their links to their neighbours too. What is put back is read and proven in full before anything is removed.
package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Defaults of Options.
const (
	DefaultWorkers  = 4
	DefaultMaxFiles = 100
)

// Limits of what is read into memory, in bytes.
const (
	maxDocument = 32 << 20
	maxNamed    = 256 << 20
)

// Options says what to repair and from what.
type Options struct {
	Sources []snapshot.Source // empty: all that the repository or the copy has
	// From is a copy of the repository; nil: there is none. Without it only records of packs that are in order are cleared.
	From objstore.Store
	// Check reads every pack and every receipt; else only packs that are on record as damaged, missing or of another
	// size are looked at.
	Check    bool
	DryRun   bool // write and remove nothing
	Workers  int  // objects under way at the same time, each of up to 64 MiB in memory; 0: DefaultWorkers
	MaxFiles int  // paths named for one pack; 0: DefaultMaxFiles
	Now      func() time.Time
	Progress func(Progress) // called from one goroutine at a time; nil: none
}

// Progress is how far the reading of packs is. Totals grow as sources are reached.
type Progress struct {
	Source     snapshot.Source
	Packs      int
	TotalPacks int
	Bytes      int64
	TotalBytes int64
}

// Outcome is what became of an object.
type Outcome string

// The outcomes. In a dry run they say what would be done.
const (
	Cleared Outcome = "cleared"  // the pack is in order, or nothing names it: its record was removed
	PutBack Outcome = "put back" // the identical bytes are there again
	Left    Outcome = "left"     // it is as it was; Reason says why
)

// Item is one object that was not in order.
type Item struct {
	Key       string        `json:"key"`
	Problem   string        `json:"problem"`
	Outcome   Outcome       `json:"outcome"`
	Reason    string        `json:"reason,omitempty"`
	Size      int64         `json:"size"`
	Snapshots []snapshot.ID `json:"snapshots"` // that name it; of packs and lists that were left
	Files     []string      `json:"files"`     // of these snapshots that need it; at most Options.MaxFiles
	FileCount int           `json:"file_count"`
	// FilesUnknown says that the files could not all be told: without a key, or because the tree is in the damaged pack.
	FilesUnknown bool `json:"files_unknown,omitempty"`
}

// Result is what a run did, or would do.
type Result struct {
	DryRun bool   `json:"dry_run"`
	Items  []Item `json:"items"`  // ascending by key
	Packs  int    `json:"packs"`  // read again
	Bytes  int64  `json:"bytes"`  // their size
	Marked int    `json:"marked"` // packs that are on record as damaged since this run

	Archived int `json:"archived,omitempty"` // packs and objects of logs that were passed by, as they must be thawed to be read
}

// Count returns how many items have the outcome.
func (r *Result) Count(o Outcome) int {
	n := 0
	for _, i := range r.Items {
		if i.Outcome == o {
			n++
		}
	}
	return n
}

// OK reports whether everything that was looked at is in order now.
func (r *Result) OK() bool { return r.Count(Left) == 0 }

// ErrNotCopy says that nothing proves the copy to be one of this repository.
var ErrNotCopy = errors.New("not a copy of this repository")

// ErrDiverged says that copy and repository have different histories: which one is right, nobody can tell from them.
var ErrDiverged = errors.New("copy and repository have diverged")

// run is one repair.
type run struct {
	opts     Options
	store    objstore.Store
	identity *keyring.Identity
	repo     *repository.Repository
	from     *repository.Repository // nil: no copy

	mu     sync.Mutex
	result *Result // guarded by mu, as the meter
	meter  Progress
}

// Run repairs the repository in store. It works also where the repository can't be opened any more, if the copy can.
// What could not be repaired is in the result and is no error.
//
// Whenever a run ends, also by a crash, nothing is lost that was there before, but that a damaged object may be missing
// instead: the next run puts it back.
//
// Errors: ErrNotCopy and ErrDiverged before anything (of the source) is changed, those of the stores and of
// [repository.Open]. The result is what was done until then.
func Run(ctx context.Context, store objstore.Store, identity *keyring.Identity, opts Options) (*Result, error) {
	if opts.Workers <= 0 {
		opts.Workers = DefaultWorkers
	}
	if opts.MaxFiles <= 0 {
		opts.MaxFiles = DefaultMaxFiles
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &run{opts: opts, store: store, identity: identity, result: &Result{DryRun: opts.DryRun, Items: []Item{}}}
	err := r.run(ctx)
	slices.SortFunc(r.result.Items, func(a, b Item) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	return r.result, err
}

func (r *run) run(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	sources, err := r.sources(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, src := range sources {
		err := r.repairSource(ctx, src)
		if err != nil {
			err = fmt.Errorf("repair %s: %w", src, err)
		}
		if err != nil && !errors.Is(err, ErrDiverged) {
			return errors.Join(failed, err)
		}
		failed = errors.Join(failed, err) // one source's fork must not keep the others from being repaired
	}
	return failed
}

// sources are those to repair.
func (r *run) sources(ctx context.Context) ([]snapshot.Source, error) {
	if len(r.opts.Sources) > 0 {
		return r.opts.Sources, nil
	}
	all, err := r.repo.Sources(ctx)
	if err != nil || r.from == nil {
		return all, err
	}
	copied, err := r.from.Sources(ctx)
	if err != nil {
		return nil, fmt.Errorf("the copy: %w", err)
	}
	for _, src := range copied {
		if !slices.Contains(all, src) {
			all = append(all, src)
		}
	}
	return all, nil
}

// note adds an item to the result.
func (r *run) note(i Item) {
	if i.Snapshots == nil {
		i.Snapshots = []snapshot.ID{}
	}
	if i.Files == nil {
		i.Files = []string{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Items = append(r.result.Items, i)
}

// passBy leaves a pack, or an object of a log, that is archived as it is: that it can't be read is no sign that anything is
// wrong with it. It reports whether it is one.
func (r *run) passBy(i *Item, marked bool) bool {
	if i.Problem != archived {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Archived++
	if marked {
		i.Problem, i.Outcome, i.Reason = "on record as damaged", Left, "it is archived: thaw it to have it looked at"
	}
	return true
}

func (r *run) progress(change func(*Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.meter)
	if r.opts.Progress != nil {
		r.opts.Progress(r.meter)
	}
}

// replace puts good, which has been proven, under key and takes away what is there, if anything is. It returns why that
// was not possible, if the store forbids it; other troubles are errors.
//
//  1. The bad object is deleted, with all its versions. A crash leaves the object missing: the next run comes here again.
//     Where a lock forbids that and the store keeps versions, good is stored over it instead, which ends it.
//  2. The good one is put.
func (r *run) replace(ctx context.Context, key string, good []byte, there bool) (forbidden string, err error) {
	if r.opts.DryRun {
		return "", nil
	}
	if !there {
		uncovered, err := r.unhide(ctx, key)
		if err == nil {
			err = r.store.Put(ctx, key, objstore.Bytes(good))
		}
		if !uncovered || !errors.Is(err, objstore.ErrExist) {
			return forbids(err)
		} // what was under the marker is no good either
	}
	err = r.store.Delete(ctx, key)
	if v, ok := r.store.(objstore.Versioned); ok && errors.Is(err, objstore.ErrLocked) {
		if err := v.PutVersion(ctx, key, objstore.Bytes(good)); !errors.Is(err, objstore.ErrNoVersions) {
			return forbids(err)
		}
	}
	if err == nil {
		err = r.store.Put(ctx, key, objstore.Bytes(good))
	}
	return forbids(err)
}

// unhide removes delete markers over an object that seems to be missing; not every server puts an object over one. What
// comes to light may be the object itself, or other bytes.
func (r *run) unhide(ctx context.Context, key string) (bool, error) {
	past, ok := r.store.(objstore.Versioned)
	if !ok {
		return false, nil
	}
	var markers []objstore.Version
	hidden := false
	err := past.ListVersions(ctx, key, func(v objstore.Version) error {
		if v.Key != key || !v.DeleteMarker {
			hidden = hidden || v.Key == key && len(markers) > 0
			return errEnough
		}
		markers = append(markers, v)
		return nil
	})
	switch {
	case errors.Is(err, objstore.ErrNoVersions), errors.Is(err, objstore.ErrDenied):
		return false, nil // then it is not hidden, or Put tells
	case err != nil && !errors.Is(err, errEnough):
		return false, err
	}
	for _, v := range slices.Backward(markers) {
		if err := past.DeleteVersion(ctx, key, v.ID); err != nil {
			return false, err
		}
	}
	return hidden, nil
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

// takeAway deletes a record, or hides it where a lock keeps it and the store keeps versions.
func (r *run) takeAway(ctx context.Context, key string) (forbidden string, err error) {
	if r.opts.DryRun {
		return "", nil
	}
	err = r.store.Delete(ctx, key)
	if v, ok := r.store.(objstore.Versioned); ok && errors.Is(err, objstore.ErrLocked) {
		if hidden := v.Hide(ctx, key); !errors.Is(hidden, objstore.ErrNoVersions) {
			err = hidden
		}
	}
	return forbids(err)
}

// forbids tells what a store does not allow, for reasons that concern one object, from what ends a run.
func forbids(err error) (string, error) {
	switch {
	case errors.Is(err, objstore.ErrLocked):
		return "the store has locked it", nil
	case errors.Is(err, objstore.ErrDenied):
		return "the credentials do not allow it", nil
	case errors.Is(err, objstore.ErrExist):
		return "somebody has stored another object meanwhile", nil
	}
	return "", err
}

// trouble tells what is wrong with an object, in words, from what is wrong with the way to it.
func trouble(ctx context.Context, err error) (problem string, fatal error) {
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, objstore.ErrNotExist):
		return missing, nil
	case errors.Is(err, objstore.ErrArchived):
		return archived, nil
	case objstore.IsTransient(err), errors.Is(err, objstore.ErrDenied):
		return "", err
	}
	return fmt.Sprintf("%s: %v", unreadable, err), nil
}

// Problems that are told apart.
const (
	missing    = "missing"
	unreadable = "can not be read"
	otherBytes = "its bytes do not match its name"
	archived   = "it must be thawed before it can be read"
)

// repositoryKeys are the keys of the repository's own document and of access documents 1 to n.
func repositoryKeys(n uint64) []string {
	keys := []string{layout.RepositoryKey}
	for i := uint64(1); i <= n; i++ {
		keys = append(keys, layout.AccessKey(i))
	}
	return keys
}
