package verify

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Problem says what is wrong with an object, in words for people.
type Problem string

// The problems that verification finds.
const (
	Missing      Problem = "missing"
	SizeDiffers  Problem = "size differs"
	BytesDiffer  Problem = "bytes differ from name"
	NotAuthentic Problem = "does not authenticate"
	Signature    Problem = "signature is not valid"
	Untrusted    Problem = "signer is not trusted"
	Replayed     Problem = "replayed under another key"
	Malformed    Problem = "not in the repository format"
	TooNew       Problem = "needs a newer version of holdfast" // which may find nothing wrong with it
	Unlinked     Problem = "does not follow the snapshot before it"
	RolledBack   Problem = "rolled back"
	Contradicts  Problem = "contradicts the manifest"
	Incomplete   Problem = "tree is not complete"
	Unreadable   Problem = "can not be read"
	Unexpected   Problem = "unexpected object"       // a warning
	KnownDamaged Problem = "failed an earlier check" // a warning: only reading it again tells how it is now
	LeftOver     Problem = "left over"               // a warning
)

// ErrUnreadable says that the store did not give an object that is there: no verdict on it is possible.
var ErrUnreadable = errors.New("the store does not give an object that it lists")

// Finding is one thing that is wrong and what it hits.
type Finding struct {
	Key       string        `json:"key"` // object
	Problem   Problem       `json:"problem"`
	Detail    string        `json:"detail,omitempty"`
	Warning   bool          `json:"warning,omitempty"` // nothing is lost by it
	Snapshots []snapshot.ID `json:"snapshots"`         // that can't be restored completely, ascending
	Files     []string      `json:"files"`             // paths hit, in any of the snapshots; at most Options.MaxFiles
	FileCount int           `json:"file_count"`        // all of them
	// Spans are parts of trees that can't be read, so that the files in them are not known by name.
	Spans []Span `json:"spans,omitempty"`
	// FilesUnknown says that the files could not be told: without a key nobody sees them.
	FilesUnknown bool `json:"files_unknown,omitempty"`
	// Lost are the moments that can't be restored any more because of it; nil: none.
	Lost *Moments `json:"lost,omitempty"`
}

// Span is a part of a tree: all paths from From on and before Before (empty: to the end).
type Span struct {
	Snapshot snapshot.ID `json:"snapshot"`
	From     string      `json:"from"`
	Before   string      `json:"before"`
}

// SnapshotResult is the verdict on one snapshot.
type SnapshotResult struct {
	ID       snapshot.ID   `json:"id"`
	Manifest snapshot.Hash `json:"-"` // zero: the manifest could not be read
	Pass     bool          `json:"pass"`
	Problems []string      `json:"problems"`
	Packs    int           `json:"packs"` // checked at this level
	Bytes    int64         `json:"bytes"` // their size
	Entries  uint64        `json:"entries,omitempty"`
}

// SourceResult is what was seen of one source.
type SourceResult struct {
	Source       snapshot.Source `json:"source"`
	Head         Seen            `json:"-"` // what a later run may expect; the zero value if nothing is there
	Objects      int             `json:"objects"`
	UnnamedPacks int             `json:"unnamed_packs"` // no manifest names them; not checked
	UnnamedBytes int64           `json:"unnamed_bytes"`
}

// Result is what a run found.
type Result struct {
	Level     Level            `json:"level"`
	Sample    string           `json:"sample,omitempty"` // "1/30"
	Started   time.Time        `json:"started"`
	Finished  time.Time        `json:"finished"`
	Findings  []Finding        `json:"findings"`
	Snapshots []SnapshotResult `json:"snapshots"`
	Sources   []SourceResult   `json:"sources"`
	Access    uint64           `json:"access"`    // number of the access document in force
	Packs     int              `json:"packs"`     // checked at this level, each counted once
	Bytes     int64            `json:"bytes"`     // their size
	Chunks    uint64           `json:"chunks"`    // opened and checked
	Documents int              `json:"documents"` // read and checked
	// LogObjects is how many pieces and segments of logs were read and found good, LogBytes their size.
	LogObjects int   `json:"log_objects,omitempty"`
	LogBytes   int64 `json:"log_bytes,omitempty"`

	// Archived is how many packs were not read at level bytes because they must be thawed first, and Spared how many because
	// reading them is dear and it was not their turn. Snapshots that use any pass without a receipt.
	Archived int `json:"archived,omitempty"`
	Spared   int `json:"spared,omitempty"`

	Recorded bool `json:"recorded"` // receipts were written

	// Unrecorded is why receipts were not written as Options.Record asked: the store can't be written to. What was found
	// stands all the same.
	Unrecorded error `json:"-"`
}

// OK reports whether nothing is wrong; warnings do not count.
func (r *Result) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return !f.Warning }) &&
		!slices.ContainsFunc(r.Snapshots, func(s SnapshotResult) bool { return !s.Pass })
}

// place identifies a finding: one object can have several problems.
type place struct {
	key     string
	problem Problem
}

// findings collects what is found. It is safe for concurrent use.
type findings struct {
	mu       sync.Mutex
	maxFiles int
	byPlace  map[place]*finding // guarded by mu, as what it holds
}

type finding struct {
	Finding
	snapshots map[snapshot.ID]bool
	paths     map[uint64]bool // hashes of all paths: 8 bytes for each file hit
}

func newFindings(maxFiles int) *findings {
	return &findings{maxFiles: maxFiles, byPlace: map[place]*finding{}}
}

// add notes a problem and the snapshots that it hits, and returns where it stands.
func (f *findings) add(key string, problem Problem, detail string, hit ...snapshot.ID) place {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := place{key, problem}
	at := f.byPlace[p]
	if at == nil {
		at = &finding{
			Finding:   Finding{Key: key, Problem: problem, Detail: detail},
			snapshots: map[snapshot.ID]bool{}, paths: map[uint64]bool{},
		}
		f.byPlace[p] = at
	}
	for _, id := range hit {
		at.snapshots[id] = true
	}
	return p
}

// warn notes something by which nothing is lost.
func (f *findings) warn(key string, problem Problem, detail string) {
	p := f.add(key, problem, detail)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byPlace[p].Warning = true
}

// hit adds a snapshot to a finding.
func (f *findings) hit(p place, id snapshot.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byPlace[p].snapshots[id] = true
}

// file adds a path to a finding.
func (f *findings) file(p place, path string) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(path))
	sum := h.Sum64()
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.byPlace[p]
	if at.paths[sum] {
		return
	}
	at.paths[sum] = true
	at.FileCount++
	if len(at.Files) < f.maxFiles {
		at.Files = append(at.Files, path)
	}
}

// span adds a part of a tree that can't be read.
func (f *findings) span(p place, s Span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := f.byPlace[p]; len(at.Spans) < f.maxFiles {
		at.Spans = append(at.Spans, s)
	}
}

// filesUnknown says of a finding that the files could not be told.
func (f *findings) filesUnknown(p place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byPlace[p].FilesUnknown = true
}

// forget takes a snapshot out of all findings; what was only missing for it is no problem.
func (f *findings) forget(id snapshot.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, at := range f.byPlace {
		if !at.snapshots[id] {
			continue
		}
		delete(at.snapshots, id)
		if len(at.snapshots) == 0 && (p.problem == Missing || p.problem == Incomplete) {
			delete(f.byPlace, p)
		}
	}
}

// has reports whether a finding still stands.
func (f *findings) has(p place) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byPlace[p] != nil
}

// unreadable is an error if the store did not answer for some object.
func (f *findings) unreadable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, at := range f.byPlace {
		if p.problem == Unreadable {
			return fmt.Errorf("%w: %s: %s", ErrUnreadable, p.key, at.Detail)
		}
	}
	return nil
}

// only reports whether all that hits a snapshot is the problem.
func (f *findings) only(id snapshot.ID, problem Problem) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := false
	for p, at := range f.byPlace {
		if !at.snapshots[id] || at.Warning {
			continue
		}
		if p.problem != problem {
			return false
		}
		found = true
	}
	return found
}

// of returns the problems that hit a snapshot, in words, sorted.
func (f *findings) of(id snapshot.ID) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for p, at := range f.byPlace {
		if at.snapshots[id] && !at.Warning {
			out = append(out, p.key+": "+string(p.problem))
		}
	}
	slices.Sort(out)
	return out
}

func (f *findings) sorted() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Finding, 0, len(f.byPlace))
	for _, at := range f.byPlace {
		one := at.Finding
		one.Snapshots = make([]snapshot.ID, 0, len(at.snapshots))
		for id := range at.snapshots {
			one.Snapshots = append(one.Snapshots, id)
		}
		slices.SortFunc(one.Snapshots, compareIDs)
		one.Files = slices.Clone(at.Files)
		slices.SortFunc(one.Files, snapshot.ComparePaths)
		slices.SortFunc(one.Spans, func(a, b Span) int {
			return cmp.Or(compareIDs(a.Snapshot, b.Snapshot), snapshot.ComparePaths(a.From, b.From))
		})
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Problem, b.Problem))
	})
	return out
}
