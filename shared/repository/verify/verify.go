// Package verify checks what a repository holds and names what is wrong: which object, how, and which snapshots and
// files it hits. Use [Run].
//
// Each level includes those before it, and none claims more than it did:
//
//	structure  every object that a snapshot names is there with its size, by one listing of each source; repository,
//	           access, manifest, list, key, mark and removal documents are read and checked; the manifests link
//	bytes      every pack is read again and its bytes match its name; receipts and reports of damage are checked too
//	content    every chunk is opened and its id computed again, the trees are complete and ordered, and every file's
//	           extents lead to chunks of the right length; needs a key
//
// The level restore (a real restore into a sandbox) is not here.
//
// What nothing names can't be missed: the removal of a mark, a receipt or an announced removal leaves no trace.
// Packs that no manifest names are left over from interrupted runs; they are counted, not read, and no errors.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Level says how deep to check.
type Level string

// The levels, each including those before it.
const (
	Structure Level = "structure"
	Bytes     Level = "bytes"
	Content   Level = "content"
)

// ParseLevel parses the name of a level.
func ParseLevel(s string) (Level, error) {
	l := Level(s)
	if !slices.Contains([]Level{Structure, Bytes, Content}, l) {
		return "", fmt.Errorf("level %q: want structure, bytes or content", s)
	}
	return l, nil
}

// Seen is what somebody has seen of a source before: its newest snapshot. A repository that shows less was rolled back.
type Seen struct {
	Sequence uint64        // 0: nothing
	Manifest snapshot.Hash // SHA-256 of the manifest's bytes; zero: not known
}

// Defaults of Options.
const (
	DefaultWorkers  = 4
	DefaultMaxFiles = 100
)

// Options selects what is checked and what is written down.
type Options struct {
	Level     Level
	Sources   []snapshot.Source // empty: all
	Snapshots []snapshot.ID     // empty: all of the sources
	Sample    Sample            // zero: every pack
	Expect    map[snapshot.Source]Seen
	Access    uint64 // highest number of an access document seen before; 0: not known

	// Record writes receipts and records of damaged packs, if the repository's identity can sign.
	Record   bool
	Place    string  // of the receipts: layout.ReceiptHost or layout.ReceiptCloud; empty: host
	Copy     string  // address of the copy that is checked, for the receipts; empty: the primary repository
	Workers  int     // packs read at the same time; at level content each takes the memory of some chunks; 0: DefaultWorkers
	MaxFiles int     // paths named in one finding; 0: DefaultMaxFiles
	Resume   *Resume // level content without a sample: what an earlier run that was cut off has opened; nil: nothing is remembered
	Now      func() time.Time
	Progress func(Progress) // called from one goroutine at a time; nil: none
}

// Progress is how far a run is. Totals grow as sources are listed.
type Progress struct {
	Source     snapshot.Source
	Packs      int // read so far
	TotalPacks int
	Bytes      int64
	TotalBytes int64
}

// Run verifies. Damage is not an error: it is in the result. Errors are those that end the whole run: the context,
// a store that can not be listed, an unknown snapshot (repository.ErrNoSnapshot), a level that needs a key
// (keyring.ErrNoIdentity).
func Run(ctx context.Context, repo *repository.Repository, opts Options) (*Result, error) {
	if _, err := ParseLevel(string(opts.Level)); err != nil {
		return nil, err
	}
	if err := opts.Sample.check(); err != nil {
		return nil, err
	}
	c := newChecker(repo, opts)
	sources, err := c.sources(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.checkRepository(ctx); err != nil {
		return nil, err
	}
	for _, src := range sources {
		if err := c.checkSource(ctx, src); err != nil {
			return nil, fmt.Errorf("verify %s: %w", src, err)
		}
	}
	return c.end(), nil
}

// newChecker begins a run.
func newChecker(repo *repository.Repository, opts Options) *checker {
	opts.Workers = cmp.Or(max(opts.Workers, 0), DefaultWorkers)
	opts.MaxFiles = cmp.Or(max(opts.MaxFiles, 0), DefaultMaxFiles)
	opts.Place = cmp.Or(opts.Place, layout.ReceiptHost)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Level == Structure {
		opts.Sample = Sample{} // the listing shows all packs
	}
	_, signs := repo.Identity().Signer()
	c := &checker{repo: repo, opts: opts, findings: newFindings(opts.MaxFiles), record: opts.Record && signs}
	c.result = &Result{Level: opts.Level, Sample: opts.Sample.String(), Recorded: c.record, Started: opts.Now().UTC()}
	if opts.Resume != nil {
		c.result.Started = opts.Resume.Began().UTC() // what the receipts say was read since then, by all of these runs
	}
	return c
}

// end closes the result.
func (c *checker) end() *Result {
	c.result.Finished = c.opts.Now().UTC()
	c.result.Findings = c.findings.sorted()
	return c.result
}

// checker is one run.
type checker struct {
	repo     *repository.Repository
	opts     Options
	record   bool // write receipts and records of damage
	findings *findings
	result   *Result
	meter    meter
	stamp    func(*repository.Stored) time.Time // time in the key of a receipt; nil: now
	sweep    *sweeper                           // nil: everything at once
}

// sources are those to check: the selected ones, or all that are there or are expected to be there.
func (c *checker) sources(ctx context.Context) ([]snapshot.Source, error) {
	out := slices.Clone(c.opts.Sources)
	for _, id := range c.opts.Snapshots {
		out = append(out, id.Source)
	}
	if len(out) == 0 {
		there, err := c.repo.Sources(ctx)
		if err != nil {
			return nil, err
		}
		out = there
		for src := range c.opts.Expect {
			out = append(out, src)
		}
	}
	slices.SortFunc(out, compareSources)
	return slices.Compact(out), nil
}

func compareSources(a, b snapshot.Source) int {
	switch as, bs := a.String(), b.String(); {
	case as < bs:
		return -1
	case as > bs:
		return 1
	}
	return 0
}

func compareIDs(a, b snapshot.ID) int {
	if c := compareSources(a.Source, b.Source); c != 0 {
		return c
	}
	switch {
	case a.Sequence < b.Sequence:
		return -1
	case a.Sequence > b.Sequence:
		return 1
	}
	return 0
}

// wanted reports whether the snapshot is among those to check.
func (c *checker) wanted(id snapshot.ID) bool {
	return len(c.opts.Snapshots) == 0 || slices.Contains(c.opts.Snapshots, id)
}
