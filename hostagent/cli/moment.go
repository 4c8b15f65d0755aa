package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// moments is what a source of a database can be restored to: its snapshots and its log.
type moments struct {
	repo    *repository.Repository
	src     snapshot.Source
	history *observe.History
	streams []log.Stream
}

// readMoments reads what there is.
func (a *app) readMoments(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*moments, error) {
	m := &moments{repo: repo, src: src}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		m.history, err = observe.ReadReceipts(gctx, repo, src)
		return err
	})
	g.Go(func() (err error) {
		m.streams, err = log.Streams(gctx, repo, src)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if m.history.Bad != nil {
		a.warn("%v", m.history.Bad)
	}
	return m, nil
}

func (m *moments) points() []recovery.Point {
	var out []recovery.Point
	for _, s := range m.history.Compliance() {
		out = append(out, s.Point)
	}
	return out
}

// moment is a state of a database that can be restored.
type moment struct {
	*moments
	base   *repository.Stored
	chosen recovery.Selection
}

// gapError says that what happened at a time is not known.
type gapError struct {
	src snapshot.Source
	at  time.Time
	gap recovery.Gap
}

func (e *gapError) Error() string {
	return fmt.Sprintf("source %s at %s: nothing tells what was committed between %s and %s: %s",
		e.src, exact(e.at), exact(e.gap.From), exact(e.gap.To), e.gap.Cause)
}

// Hint names the nearest states.
func (e *gapError) Hint() string {
	return fmt.Sprintf("--at %s restores the last state before, --at %s the first one after", exact(e.gap.From), exact(e.gap.To))
}

// lostError says that records are missing on the way to what is wanted.
type lostError struct {
	src     snapshot.Source
	reached time.Time
	lost    recovery.LostRecords
}

func (e *lostError) Error() string {
	return fmt.Sprintf("source %s: %s: what was committed after %s can not be restored", e.src, e.lost, exact(e.reached))
}

// Hint says what can be done.
func (e *lostError) Hint() string {
	return fmt.Sprintf("`holdfast repair --from COPY` puts back what a copy has; --at %s restores the last state before", exact(e.reached))
}

// Unwrap returns what is missing.
func (e *lostError) Unwrap() error {
	return &log.HoleError{Stream: e.lost.Stream, Epoch: e.lost.Epoch, First: e.lost.First, Last: e.lost.Last}
}

// lost tells that a state falls short of what is wanted; nil: it does not, as far as it is known.
func (m *moment) lost() error {
	if m.chosen.Lost == nil {
		return nil
	}
	return &lostError{m.src, m.chosen.Reached, *m.chosen.Lost}
}

// exact is a time that means the same record when it is given back.
func exact(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// choose finds the state that is wanted: by number a snapshot as it is, with a time too that snapshot and its log up to
// then, by time alone or without either the best of all. Where the log tells that something was committed that it does not
// have, that is an error: the state before is for people to choose. It is returned beside a *lostError.
func (m *moments) choose(ctx context.Context, want recovery.Selector) (*moment, error) {
	points := m.points()
	if want.Sequence != 0 && !want.At.IsZero() {
		points = slices.DeleteFunc(points, func(p recovery.Point) bool { return p.Sequence != want.Sequence })
		want.Sequence = 0
	}
	reader, epochs := log.NewReader(m.repo, m.src, m.streams), log.Epochs(m.streams)
	chosen, err := reader.Select(ctx, points, epochs, want)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", m.src, err)
	}
	if want.Sequence == 0 && (want.At.IsZero() || want.At.After(chosen.Reached)) {
		chosen.Warnings = append(chosen.Warnings, m.unheard(chosen.Reached)...)
	}
	if want.Sequence == 0 && (want.At.IsZero() || want.At.After(chosen.Reached)) {
		beside, err := recovery.Beside(points, epochs, chosen, func(i int) error { return reader.Times(ctx, epochs[i:i+1]) })
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", m.src, err)
		}
		chosen.Warnings = append(chosen.Warnings, beside...)
	}
	if at := want.At; !at.IsZero() && chosen.Reached.Before(at) && len(epochs) > 0 {
		if err := reader.Times(ctx, epochs); err != nil {
			return nil, fmt.Errorf("source %s: %w", m.src, err)
		}
		for _, gap := range recovery.RecoverableMoments(m.points(), epochs, 0, at).Gaps {
			if !gap.Open && !at.Before(gap.From) && at.Before(gap.To) {
				return nil, &gapError{m.src, at, gap}
			}
		}
	}
	i := slices.IndexFunc(m.history.Manifests, func(s *repository.Stored) bool { return s.Sequence == chosen.Point.Sequence })
	if i < 0 {
		return nil, fmt.Errorf("source %s: %w", m.src, repository.ErrNoSnapshot)
	}
	out := &moment{moments: m, base: m.history.Manifests[i], chosen: chosen}
	return out, out.lost()
}

// unheard names what of the log can't be read at all, because its head is no good, and holds what came after a time.
func (m *moments) unheard(after time.Time) []string {
	var out []string
	for _, s := range m.streams {
		for _, e := range s.Epochs {
			if e.Err != nil && arrivedAfter(e, after) {
				out = append(out, fmt.Sprintf("epoch %d of stream %s of the log can not be read, and what came after %s is in it: %v", e.Epoch, e.Stream, exact(after), e.Err))
			}
		}
	}
	return out
}

// errNoDatabase says that a snapshot is not one of a database.
var errNoDatabase = errors.New("it does not hold exactly one database file")

// databaseEntry is the only file of a snapshot of a database.
func databaseEntry(ctx context.Context, snap *repository.Snapshot) (*snapshot.Entry, error) {
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, missing(err)
	}
	id := snap.Manifest().ID()
	if len(root.Roots) != 1 {
		return nil, fmt.Errorf("snapshot %s: %w", id, errNoDatabase)
	}
	e, err := snap.Lookup(ctx, root.Roots[0])
	if err != nil {
		return nil, missing(err)
	}
	if e.Type != snapshot.File || e.Unreadable {
		return nil, fmt.Errorf("snapshot %s: %w", id, errNoDatabase)
	}
	return e, nil
}

// open opens what the state is built from.
func (m *moment) open(ctx context.Context) (*sqlite.Source, error) {
	snap, err := openContent(ctx, m.repo, m.base)
	if err != nil {
		return nil, err
	}
	e, err := databaseEntry(ctx, snap)
	if err != nil {
		return nil, err
	}
	src := &sqlite.Source{Base: snap, Entry: e, Time: m.chosen.Point.Time()}
	if m.chosen.Log != nil {
		src.Records, src.Bytes = m.records(ctx), m.bytes(ctx)
	}
	return src, nil
}

// bytes is the size of the database after the last record; 0: that can't be told without reading all of them.
func (m *moment) bytes(ctx context.Context) (n uint64) {
	last := log.RangeOf(*m.chosen.Log)
	last.From = log.Place{Stream: last.Through.Stream, Epoch: last.Through.Epoch, Sequence: last.Through.Sequence - 1}
	for r, err := range log.NewReader(m.repo, m.src, m.streams).Records(ctx, last) {
		if err != nil {
			return 0 // the restore will say so
		}
		n = uint64(r.Pages) * uint64(r.PageSize)
	}
	return n
}

// records are those of the log that belong to the state.
func (m *moment) records(ctx context.Context) iter.Seq2[sqlite.Record, error] {
	all := log.NewReader(m.repo, m.src, m.streams).Records(ctx, log.RangeOf(*m.chosen.Log))
	return func(yield func(sqlite.Record, error) bool) {
		for r, err := range all {
			var out sqlite.Record
			if err == nil {
				out = sqlite.Record{Time: r.Time, More: r.More, PageSize: r.PageSize, Pages: r.Pages, Each: r.Each}
			}
			if !yield(out, err) {
				return
			}
		}
	}
}
