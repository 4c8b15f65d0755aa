// Package prune removes snapshots that retention does not keep, and what is left over when they are gone. Use [Run].
//
// It does not decide: it is told, for each snapshot, whether to keep it and why. A snapshot that it was told nothing
// about is kept. Removal has two phases, days apart:
//
//  1. A snapshot that retention does not keep is condemned: a signed announcement is stored. From then on no backup
//     builds on it, and for [Wait] nothing else happens, so that a mistake can be noticed.
//  2. When the announcement has been there for [Wait] and retention still does not keep the snapshot, it is removed:
//     first a record that it was removed, then its manifest. All manifests are read again, and only lists, packs and
//     keys that none of them names and that have been in the store for [Age] are removed, in this order. A running or
//     killed backup may still need younger ones.
//
// Time is the store's: the age of an object counts from its arrival, and the present is when an object that this run
// stores arrives. The clock of the host does not matter, however wrong it is. Where the store is a directory of this
// host, their clocks are one and the same, and that of a server of one's own is no better; then [Options.HostClock] makes time count only as far as arrivals of objects
// witness it, so that a clock which jumps ahead, to the year 2099 or to next month, removes nothing early.
//
// A manifest that is missing without a record of its removal was not removed by this package. What it may need stays,
// so that it can be put back, unless [Options.Gaps] says otherwise. That the newest are missing is told by whatever else is
// there of them, such as receipts, and by [Options.Seen].
//
// Marks protect: a snapshot that is pinned or held is neither condemned nor removed. The newest snapshot of a source is
// always kept: its number is where the next backup goes on.
//
// Every step is safe to repeat. Whenever a run ends, also by a crash, all snapshots that are listed are complete.
package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// The times that things wait, by the store's clock.
const (
	Wait = 7 * 24 * time.Hour  // from the announcement of a removal to the removal
	Age  = 14 * 24 * time.Hour // of packs, lists and keys that no manifest names, before they are removed
)

// MaxGap is how much of a time in which nothing arrived counts, with [Options.HostClock].
const MaxGap = 2 * 24 * time.Hour

// Options says what to do.
type Options struct {
	Decisions []retention.Decision // of [retention.Plan]; a snapshot that is not among them is kept
	DryRun    bool                 // write and remove nothing
	Force     bool                 // condemn however many it is
	Confirm   string               // Report.Plan of an earlier run that stopped: condemn just that, however many it is
	Gaps      bool                 // remove also what snapshots need that are missing without a record of their removal

	// Seen is the highest number of a snapshot that the caller has ever seen of the source; 0: not known. Where the source ends
	// before it, the newest manifests are missing.
	Seen uint64

	// LogBase is the snapshot from which on the source's log must stay, see [retention.LogBase]; 0: all of it stays.
	LogBase uint64

	// HostClock says that the store's clock is this host's, or that of a server of one's own, and may jump: of each gap between the arrivals of objects at
	// most MaxGap counts as time passed. A run that waits for something leaves a receipt, so that daily runs suffice.
	HostClock bool

	// Place is where the receipt is stored that tells the store's time: layout.ReceiptHost or layout.ReceiptCloud; empty: host.
	Place string
	// Journal, if not nil, is told the keys of objects before they are deleted. Its error ends the run before they are.
	Journal func(ctx context.Context, keys []string) error
	// Receipts removes also the receipts of snapshots that were removed, when they are as old as Age, and of the others those
	// older than KeepReceipts that later ones have made superfluous.
	Receipts bool
	Workers  int // objects deleted at the same time; 0: 1

	// Wait and Age shorten the times, for tests; 0: the constants.
	Wait, Age time.Duration
	// Now is the host's clock: for the times that documents state, and the present of a dry run if it is later than
	// the newest object in the store.
	Now func() time.Time
}

// Action is one snapshot or object and what happened to it.
type Action struct {
	Snapshot snapshot.ID `json:"snapshot"`
	Reasons  []string    `json:"reasons"`
}

// Kept is an object or a snapshot that stays although nothing asks for it, and why.
type Kept struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// Report is what a run did, or a dry run would do.
type Report struct {
	Source    snapshot.Source `json:"source"`
	DryRun    bool            `json:"dry_run"`
	Condemned []Action        `json:"condemned"` // announced now
	Withdrawn []Action        `json:"withdrawn"` // announcements taken back: retention or a mark keeps the snapshot
	Removed   []Action        `json:"removed"`
	Waiting   []Waiting       `json:"waiting"` // condemned, not yet removed
	Kept      []Kept          `json:"kept"`    // left over, but too young or locked
	Lists     int             `json:"lists"`   // removed
	Packs     int             `json:"packs"`
	Keys      int             `json:"keys"`
	Receipts  int             `json:"receipts,omitempty"`
	Logs      int             `json:"logs,omitempty"`   // pieces, segments and heads of logs
	Joined    int             `json:"joined,omitempty"` // pieces, of which a segment has all
	Freed     int64           `json:"freed"`            // bytes of everything removed

	// LogsCondemned are the records whose removal was announced now, LogsRemoved those that are gone.
	LogsCondemned []LogCut `json:"logs_condemned,omitempty"`
	LogsRemoved   []LogCut `json:"logs_removed,omitempty"`

	// Blocked are the snapshots that a run which stopped with *retention.TooMany would have condemned, and Plan names
	// just these: for Options.Confirm.
	Blocked []Action `json:"blocked,omitempty"`
	Plan    string   `json:"plan,omitempty"`
}

// Waiting is a condemned snapshot and when it may be removed.
type Waiting struct {
	Snapshot snapshot.ID `json:"snapshot"`
	From     time.Time   `json:"from"` // earliest time of removal, by the store's clock
}

// LogCut is the records of an epoch of the log up to a number.
type LogCut struct {
	Stream   string `json:"stream"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

// ErrBroken says that a manifest or a list can't be read, so that nobody knows what is still needed.
var ErrBroken = errors.New("not all manifests and lists of the source can be read; nothing is removed until they are repaired")

// pruner is one run.
type pruner struct {
	repo      *repository.Repository
	src       snapshot.Source
	opts      Options
	decisions map[uint64]retention.Decision
	inv       *inventory.Inventory
	manifests []*repository.Stored
	lists     map[snapshot.Hash][]snapshot.PackInfo // those that were read
	streams   []log.Stream                          // of the log, as the first listing shows it; nil: not read yet
	older     map[uint64]bool                       // snapshots that branches of the log need; nil: not known yet
	report    *Report
	now       time.Time // by the store's clock; zero: not known yet
	gap       time.Time // what arrived until then may belong to a snapshot that is missing without a record
}

// Run prunes one source. The report says what was done until an error occurred.
//
// Errors: *retention.TooMany, before anything was changed, if more than retention.GuardShare percent of all snapshots
// of the source, and more than one, would be condemned by this run; ErrBroken, repository.ErrNoSigner, those of the store. An object that the store has locked is no
// error: it is in the report.
func Run(ctx context.Context, repo *repository.Repository, src snapshot.Source, opts Options) (*Report, error) {
	if opts.Wait <= 0 {
		opts.Wait = Wait
	}
	if opts.Age <= 0 {
		opts.Age = Age
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.Place = cmp.Or(opts.Place, layout.ReceiptHost)
	p := &pruner{repo: repo, src: src, opts: opts, decisions: map[uint64]retention.Decision{}, lists: map[snapshot.Hash][]snapshot.PackInfo{}}
	p.report = &Report{Source: src, DryRun: opts.DryRun}
	for _, d := range opts.Decisions {
		p.decisions[d.Sequence] = d
	}
	if _, signs := repo.Identity().Signer(); !signs && !opts.DryRun {
		return p.report, fmt.Errorf("prune %s: %w", src, repository.ErrNoSigner)
	}
	if err := p.run(ctx); err != nil {
		return p.report, fmt.Errorf("prune %s: %w", src, err)
	}
	return p.report, nil
}

// run does both phases:
//
//  1. Manifests are read, then the source is listed: what they name is in the listing.
//  2. Snapshots are condemned, and announcements withdrawn. A crash leaves some announced: the next run announces the
//     others.
//  3. The present is learned from the store.
//  4. Snapshots whose time has come are removed, each by its record, then its manifest, then its announcement. A crash
//     leaves a record beside a manifest, or an announcement without one: the next run goes on there.
//  5. Manifests are read and the source is listed again. What nothing names and is old enough is removed: lists, packs,
//     keys. A crash leaves some of them: they are still named by nothing.
func (p *pruner) run(ctx context.Context) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	candidates, err := p.condemn(ctx)
	if err != nil {
		return err
	}
	if len(candidates) == 0 {
		left, err := p.leftOvers(ctx)
		if err != nil || !left {
			return err
		}
	}
	if p.now, err = p.present(ctx); err != nil {
		return err
	}
	removed, err := p.removeSnapshots(ctx, candidates)
	if err != nil {
		return err
	}
	return p.sweep(ctx, removed)
}

// load reads all manifests, then lists the source.
func (p *pruner) load(ctx context.Context) error {
	manifests, err := p.repo.Manifests(ctx, p.src)
	if bad := new(repository.BadManifestError); errors.As(err, &bad) {
		return fmt.Errorf("%w: %w", ErrBroken, bad)
	}
	if err != nil {
		return err
	}
	p.manifests = manifests
	p.inv, err = inventory.Take(ctx, p.repo.Store(), p.src)
	return err
}

// passed reports whether something that arrived at from has been there for long enough.
func (p *pruner) passed(from time.Time, enough time.Duration) bool {
	if !p.opts.HostClock {
		return !p.now.Before(from.Add(enough))
	}
	return p.inv.Witnessed(from, p.now, MaxGap) >= enough
}

// leftOvers reports whether there is anything that no manifest names.
func (p *pruner) leftOvers(ctx context.Context) (bool, error) {
	n, err := p.names(ctx, nil)
	if err != nil {
		return false, err
	}
	for name := range p.inv.Packs {
		if !n.packs[name] {
			return true, nil
		}
	}
	for id := range p.inv.Lists {
		if !n.lists[id] {
			return true, nil
		}
	}
	for k := range p.inv.Keys {
		if !n.keys[k.ID] {
			return true, nil
		}
	}
	for n := range p.inv.Condemned {
		if _, there := p.inv.Manifests[n]; !there {
			return true, nil
		}
	}
	return p.logsLeft() || p.manyReceipts(), nil
}
