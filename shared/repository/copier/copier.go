// Package copier copies a repository, or some of its sources, to another store: between any two drivers, resumable,
// and so that damage never spreads. Use [Run]; [Lag] tells what a copy does not have yet.
//
// A copy is the same repository in another place: the same identity, the same bytes under the same keys. Everything is
// checked before it is written: packs and lists by their names, documents by their signatures. What fails the check is
// named, and the snapshots that need it are not committed to the copy.
//
// The order of writing is that of a backup: for each snapshot, ascending, its keys, packs and lists, then its manifest.
// Whenever a run ends, also by a crash, each snapshot that the copy lists is complete; the next run lists the target
// once, skips what is there with the right size, and goes on.
package copier

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/overlay"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// DefaultWorkers is how many objects are copied at the same time unless Options says otherwise.
const DefaultWorkers = 4

// copyMark is what stands in the object that says of a place that it is a copy.
var copyMark = []byte("a copy\n")

// maxDocument bounds the size of a signed document, in bytes.
const maxDocument = 32 << 20

// Options selects what is copied.
type Options struct {
	Sources  []snapshot.Source // empty: all
	Workers  int               // objects under way at the same time; 0: DefaultWorkers
	Progress func(Progress)    // called from one goroutine at a time; nil: none
	// Temp is the directory in which a pack waits, in a file without a name, until all of it is there and was checked,
	// unless the target keeps unfinished objects itself. It needs room for as many as there are Workers, each of up to
	// 64 MiB. Empty: the system's directory for such files.
	Temp string
	// Probe proves of a target that has no repository yet that it never overwrites, see [objstore.Probe], before anything
	// is written there. A directory needs no proof.
	Probe bool
	// Now is the host's clock; nil: time.Now.
	Now func() time.Time
}

// Progress is how far a run is.
type Progress struct {
	Source     snapshot.Source
	Objects    int
	Bytes      int64
	TotalBytes int64 // of the packs of the sources that were reached; documents come on top
}

// Finding is an object that is not in order, in the original or in the copy.
type Finding struct {
	Key       string        `json:"key"`
	Problem   string        `json:"problem"`
	InCopy    bool          `json:"in_copy"`   // the copy's object is to blame, not the original's
	Snapshots []snapshot.ID `json:"snapshots"` // that were not committed to the copy because of it
}

// Result is what a run did.
type Result struct {
	Objects   int           `json:"objects"` // copied now
	Bytes     int64         `json:"bytes"`
	Present   int           `json:"present"`   // objects that were looked for and in the copy already
	Had       int           `json:"had"`       // snapshots that the copy had already
	Committed []snapshot.ID `json:"committed"` // snapshots that the copy has since this run, ascending by source
	Withheld  []snapshot.ID `json:"withheld"`  // snapshots that could not be committed; Findings say why
	Findings  []Finding     `json:"findings"`
}

// OK reports whether the copy has everything now.
func (r *Result) OK() bool { return len(r.Findings) == 0 && len(r.Withheld) == 0 }

// OtherRepositoryError says that the target holds another repository.
type OtherRepositoryError struct {
	Want snapshot.RepositoryID
	Have string // the id that the target states, as far as it can be read
}

func (e *OtherRepositoryError) Error() string {
	return fmt.Sprintf("the target holds repository %s, not %s", e.Have, e.Want)
}

// ErrSamePlace says that the target is the place of the original, reached by another name. Nothing was written there.
var ErrSamePlace = errors.New("the target is the original itself, under another name")

// DivergedError says that the copy and the original have different histories: an object that both must have is another
// one, or the copy has snapshots that the original has not. One of them was rolled back, or written by somebody else.
// Nothing of the source is copied.
type DivergedError struct {
	Key    string // of the first object that differs
	Detail string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("copy and original have diverged at %s: %s", e.Key, e.Detail)
}

// run is one copying.
type run struct {
	from    *repository.Repository
	to      objstore.Store
	opts    Options
	ctx     context.Context //nolint:containedctx // of the run
	mu      sync.Mutex
	result  *Result  // guarded by mu
	meter   Progress // guarded by mu
	problem map[string]int
}

// Run copies from the repository to the store. What is damaged in the original is in the result and is no error.
//
// Errors: ErrSamePlace, *OtherRepositoryError and *DivergedError before anything of the source was written, objstore.ErrOverwrites
// before anything was, those of the stores. The
// result is what was done until then.
func Run(ctx context.Context, from *repository.Repository, to objstore.Store, opts Options) (*Result, error) {
	if opts.Workers <= 0 {
		opts.Workers = DefaultWorkers
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &run{from: from, to: to, opts: opts, ctx: ctx, result: &Result{}, problem: map[string]int{}}
	if err := r.copyRepository(); err != nil {
		return r.result, err
	}
	sources := opts.Sources
	if len(sources) == 0 {
		var err error
		if sources, err = from.Sources(ctx); err != nil {
			return r.result, err
		}
	}
	var failed error
	for _, src := range sources {
		err := r.copySource(src)
		var diverged *DivergedError
		if errors.As(err, &diverged) {
			// One source's fork must not keep the others from being copied.
			failed = errors.Join(failed, fmt.Errorf("copy %s: %w", src, err))
			continue
		}
		if err != nil {
			return r.result, errors.Join(failed, fmt.Errorf("copy %s: %w", src, err))
		}
	}
	return r.result, failed
}

// copyRepository makes the target a copy of this repository, or checks that it is: the repository's own document first,
// so that whatever a crash leaves belongs to somebody, then the access documents in order.
func (r *run) copyRepository() error {
	docs, err := r.repositoryDocuments()
	if err != nil {
		return err
	}
	have, err := objstore.ReadAll(r.ctx, r.to, layout.RepositoryKey, maxDocument)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		have = nil
		if r.opts.Probe {
			if err := objstore.Probe(r.ctx, r.to); err != nil {
				return err
			}
		}
	case err != nil:
		return fmt.Errorf("read %s of the target: %w", layout.RepositoryKey, err)
	case !bytes.Equal(have, docs[layout.RepositoryKey]):
		return &OtherRepositoryError{Want: r.from.ID(), Have: statedID(have)}
	}
	marked := false
	err = r.to.List(r.ctx, layout.AccessPrefix, func(o objstore.Info) error {
		if o.Key == layout.CopyKey {
			marked = true
		} else if _, ok := docs[o.Key]; !ok {
			return &DivergedError{Key: o.Key, Detail: "only the copy has this access document"}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the access documents of the target: %w", err)
	}
	if !marked && have != nil {
		if err := r.otherPlace(); err != nil {
			return err
		}
	}
	// That it is a copy is said before anything in it could be taken for what has just been made. A crash right after this
	// leaves a place without a repository, which the next run goes on with.
	if !marked {
		if err := r.put(r.ctx, layout.CopyKey, copyMark); err != nil {
			return err
		}
	}
	if err := r.put(r.ctx, layout.RepositoryKey, docs[layout.RepositoryKey]); err != nil {
		return err
	}
	for n := uint64(1); n <= r.from.Access().Sequence; n++ {
		key := layout.AccessKey(n)
		err := r.put(r.ctx, key, docs[key])
		if errors.Is(err, objstore.ErrExist) {
			return &DivergedError{Key: key, Detail: "the access documents differ"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// otherPlace makes sure that a target which has the repository, and does not say that it is a copy, is not the original: a
// mounted directory, or a bucket, may have several names. What is put there must not be seen here. Errors: ErrSamePlace.
func (r *run) otherPlace() error {
	key := objstore.ProbePrefix + rand.Text()
	if err := r.put(r.ctx, key, copyMark); err != nil {
		return err
	}
	seen := false
	err := r.from.Store().List(r.ctx, key, func(o objstore.Info) error {
		seen = seen || o.Key == key
		return nil
	})
	_ = r.to.Delete(r.ctx, key) // its few bytes may stay
	if err != nil {
		return fmt.Errorf("look whether the target is another place: %w", err)
	}
	if seen {
		return ErrSamePlace
	}
	return nil
}

// repositoryDocuments reads the repository's own document and the access documents, and checks exactly these bytes.
func (r *run) repositoryDocuments() (map[string][]byte, error) {
	keys := []string{layout.RepositoryKey}
	for n := uint64(1); n <= r.from.Access().Sequence; n++ {
		keys = append(keys, layout.AccessKey(n))
	}
	docs := map[string][]byte{}
	for _, key := range keys {
		doc, err := objstore.ReadAll(r.ctx, r.from.Store(), key, maxDocument)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		docs[key] = doc
	}
	// Each access document is trusted by the one before it: opening them as a repository follows that chain.
	again, err := repository.Open(r.ctx, overlay.Store{Documents: docs}, r.from.Identity())
	if err != nil {
		return nil, err
	}
	if again.ID() != r.from.ID() {
		return nil, &OtherRepositoryError{Want: r.from.ID(), Have: again.ID().String()}
	}
	return docs, nil
}

// put stores an object in the copy if it is absent.
func (r *run) put(ctx context.Context, key string, b []byte) error {
	if err := r.to.Put(ctx, key, objstore.Bytes(b)); err != nil {
		return fmt.Errorf("store %s in the copy: %w", key, err)
	}
	return nil
}

// statedID is the id that a repository document states, without any proof.
func statedID(doc []byte) string {
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		return "(unreadable)"
	}
	id, err := peekID(payload)
	if err != nil {
		return "(unreadable)"
	}
	return id
}

// note keeps a finding; the snapshot, if there is one, is among those that it holds back.
func (r *run) note(key, problem string, inCopy bool, hit ...snapshot.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.problem[key]
	if !ok {
		i = len(r.result.Findings)
		r.problem[key] = i
		r.result.Findings = append(r.result.Findings, Finding{Key: key, Problem: problem, InCopy: inCopy, Snapshots: []snapshot.ID{}})
	}
	at := &r.result.Findings[i]
	for _, id := range hit {
		if !slices.Contains(at.Snapshots, id) {
			at.Snapshots = append(at.Snapshots, id)
		}
	}
}

// copied counts an object that was written.
func (r *run) copied(src snapshot.Source, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Objects++
	r.result.Bytes += size
	r.meter.Source = src
	r.meter.Objects++
	r.meter.Bytes += size
	if r.opts.Progress != nil {
		r.opts.Progress(r.meter)
	}
}

// expect adds to the total of the progress.
func (r *run) expect(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meter.TotalBytes += size
}

func (r *run) present(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Present += n
}

// had counts a snapshot that the copy has since an earlier run.
func (r *run) had() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Had++
}
