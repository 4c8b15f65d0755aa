package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// clusterWant is the state of a cluster that is wanted.
type clusterWant struct {
	target   postgres.Target
	sequence uint64 // of the snapshot; 0: any
	timeline uint32 // 0: the one that counts
	alone    bool   // the snapshot without its log
}

// clusterMoment is a state of a cluster that can be restored.
type clusterMoment struct {
	*moment
	through snapshot.LogPlace // the end of the branch
	stream  *log.Stream       // that it lies in; nil: no log is used
	target  postgres.Target
}

// clusterPoints are the points of snapshots of clusters that fit what is wanted, with their manifests.
func (m *moments) clusterPoints(want clusterWant) []recovery.Point {
	stop := map[uint64]pg.LSN{}
	for _, s := range m.history.Manifests {
		if s.Postgres != nil && (want.timeline == 0 || s.Postgres.Timeline <= want.timeline) {
			stop[s.Sequence] = s.Postgres.Stop
		}
	}
	return slices.DeleteFunc(m.points(), func(p recovery.Point) bool {
		at, ok := stop[p.Sequence]
		return !ok || want.sequence != 0 && p.Sequence != want.sequence || want.target.Kind == postgres.LSN && at > want.target.LSN
	})
}

// errNoCluster says that a snapshot is not one of a PostgreSQL cluster.
var errNoCluster = fmt.Errorf("it does not hold a PostgreSQL cluster")

// chooseCluster finds the snapshot and the branch of the log that lead to what is wanted. Errors name the nearest points; beside
// a *lostError the state is returned that there is.
func (m *moments) chooseCluster(ctx context.Context, want clusterWant) (*clusterMoment, error) {
	points, epochs := m.clusterPoints(want), log.Epochs(m.streams)
	if want.timeline != 0 {
		var err error
		if epochs, err = m.onTimeline(epochs, want.timeline); err != nil {
			return nil, err
		}
	}
	if len(points) == 0 {
		return nil, m.noCluster(want)
	}
	if want.target.Kind == postgres.LSN && want.sequence == 0 {
		return m.chooseLSN(ctx, points, epochs, want)
	}
	return m.chooseAmong(ctx, points, epochs, want)
}

// chooseAmong is chooseCluster with some of the snapshots.
func (m *moments) chooseAmong(ctx context.Context, points []recovery.Point, epochs []recovery.LogEpoch, want clusterWant) (*clusterMoment, error) {
	selector := recovery.Selector{At: want.target.Time}
	if want.alone {
		selector.Sequence = want.sequence
	}
	reader := log.NewReader(m.repo, m.src, m.streams)
	chosen, err := reader.Select(ctx, points, epochs, selector)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", m.src, err)
	}
	out, err := m.moment(chosen)
	if err != nil {
		return nil, err
	}
	c := &clusterMoment{moment: out, target: want.target}
	if err := m.unreadable(want, chosen); err != nil {
		return nil, err
	}
	if err := m.gapAt(ctx, reader, epochs, want, chosen); err != nil {
		return nil, err
	}
	if want.target.Kind == postgres.Latest || want.target.Kind == postgres.Time {
		if err := out.lost(); err != nil {
			return c, err // of other targets it is not known whether they are behind it
		}
	}
	if chosen.Log == nil {
		return c, nil
	}
	c.through = extend(chosen.Log.Through, epochs)
	i := slices.IndexFunc(m.streams, func(s log.Stream) bool { return s.ID == c.through.Stream })
	c.stream = &m.streams[i]
	if want.timeline != 0 && c.timelineOf() != want.timeline {
		return nil, hinted{
			fmt.Errorf("source %s: timeline %d can not be reached: what is stored leads to timeline %d", m.src, want.timeline, c.timelineOf()),
			fmt.Sprintf("leave --timeline out, or ask for what came after timeline %d had begun", want.timeline),
		}
	}
	return c, nil
}

// unreadable tells that a part of the log can't be read at all, because its head is no good: what was committed then is
// in it, and a restore without it would lack that silently.
func (m *moments) unreadable(want clusterWant, chosen recovery.Selection) error {
	if want.alone || !want.target.Time.IsZero() && !want.target.Time.After(chosen.Reached) {
		return nil
	}
	for _, s := range m.streams {
		for _, e := range s.Epochs {
			if e.Err == nil || !arrivedAfter(e, chosen.Reached) {
				continue
			}
			return hinted{
				fmt.Errorf("source %s: epoch %d of stream %s of the log can not be read, and holds what came after %s: %w", m.src, e.Epoch, e.Stream, exact(chosen.Reached), e.Err),
				fmt.Sprintf("`holdfast repair --from COPY` puts back what a copy has; --at %s restores without it", exact(chosen.Reached)),
			}
		}
	}
	return nil
}

// arrivedAfter reports whether something of an epoch arrived after a time.
func arrivedAfter(e *log.Epoch, at time.Time) bool {
	for _, all := range [][]inventory.LogPiece{e.Pieces, e.Segments} {
		if n := len(all); n > 0 && all[n-1].Arrived().After(at) {
			return true
		}
	}
	return false
}

// gapAt tells that what happened at a time is not known.
func (m *moments) gapAt(ctx context.Context, reader *log.Reader, epochs []recovery.LogEpoch, want clusterWant, chosen recovery.Selection) error {
	at := want.target.Time
	if at.IsZero() || !chosen.Reached.Before(at) || len(epochs) == 0 {
		return nil
	}
	if err := reader.Times(ctx, epochs); err != nil {
		return fmt.Errorf("source %s: %w", m.src, err)
	}
	for _, gap := range recovery.RecoverableMoments(m.clusterPoints(clusterWant{}), epochs, 0, at).Gaps {
		if !gap.Open && !at.Before(gap.From) && at.Before(gap.To) {
			return &gapError{m.src, at, gap}
		}
	}
	return nil
}

// noCluster says why there is no snapshot to begin with.
func (m *moments) noCluster(want clusterWant) error {
	all := m.clusterPoints(clusterWant{})
	if len(all) == 0 {
		return fmt.Errorf("source %s: %w", m.src, errNoCluster)
	}
	oldest := all[0]
	var stop pg.LSN
	for _, s := range m.history.Manifests {
		if s.Sequence == oldest.Sequence {
			stop = s.Postgres.Stop
		}
	}
	return hinted{
		fmt.Errorf("source %s: no snapshot is complete before %s", m.src, want.target),
		fmt.Sprintf("the oldest is @%d of %s, complete at LSN %s; `holdfast snapshots %s --points` shows what can be had", oldest.Sequence, exact(oldest.Time()), stop, m.src.Name),
	}
}

// timelineOf is the timeline in which the branch ends.
func (c *clusterMoment) timelineOf() uint32 {
	if c.stream == nil {
		return c.base.Postgres.Timeline
	}
	for _, e := range c.stream.Epochs {
		if e.Described != nil && e.Described.Postgres != nil {
			return e.Described.Postgres.Timeline
		}
	}
	return 0
}

// streamTimeline is the timeline of a stream; 0: not known.
func streamTimeline(s *log.Stream) uint32 {
	for _, e := range s.Epochs {
		if e.Described != nil && e.Described.Postgres != nil {
			return e.Described.Postgres.Timeline
		}
	}
	return 0
}

// onTimeline keeps the epochs of a timeline, and what they go on from.
func (m *moments) onTimeline(epochs []recovery.LogEpoch, timeline uint32) ([]recovery.LogEpoch, error) {
	of := map[string]uint32{}
	var known []string
	for i := range m.streams {
		of[m.streams[i].ID] = streamTimeline(&m.streams[i])
		if text := fmt.Sprint(of[m.streams[i].ID]); !slices.Contains(known, text) {
			known = append(known, text)
		}
	}
	keep := map[string]map[uint64]bool{}
	var add func(stream string, epoch uint64)
	add = func(stream string, epoch uint64) {
		if keep[stream][epoch] {
			return
		}
		if keep[stream] == nil {
			keep[stream] = map[uint64]bool{}
		}
		keep[stream][epoch] = true
		for i := range epochs {
			e := &epochs[i]
			if e.Stream == stream && e.Epoch == epoch && e.Continues != nil {
				add(e.Continues.Stream, e.Continues.Epoch)
			}
		}
	}
	for i := range epochs {
		if of[epochs[i].Stream] == timeline {
			add(epochs[i].Stream, epochs[i].Epoch)
		}
	}
	if len(keep) == 0 {
		for _, s := range m.history.Manifests {
			if s.Postgres != nil && s.Postgres.Timeline == timeline {
				return nil, nil // snapshots alone
			}
		}
		slices.Sort(known)
		return nil, hinted{fmt.Errorf("source %s: nothing of timeline %d is stored", m.src, timeline), "there is " + strings.Join(known, ", ")}
	}
	return slices.DeleteFunc(slices.Clone(epochs), func(e recovery.LogEpoch) bool { return !keep[e.Stream][e.Epoch] }), nil
}

// extend follows a branch beyond the record that was chosen, within its timeline: the server looks there for the first
// commit behind the target, and finds that nothing else is before it.
func extend(through snapshot.LogPlace, epochs []recovery.LogEpoch) snapshot.LogPlace {
	for {
		best := -1
		for i := range epochs {
			e := &epochs[i]
			if c := e.Continues; e.Stream == through.Stream && e.Epoch > through.Epoch && c != nil && c.Stream == through.Stream &&
				c.Epoch == through.Epoch && c.Sequence == through.Sequence && len(e.Runs) > 0 && e.Runs[0].First == c.Sequence+1 &&
				(best < 0 || e.Epoch > epochs[best].Epoch) {
				best = i
			}
		}
		if best < 0 {
			return through
		}
		through = snapshot.LogPlace{Stream: through.Stream, Epoch: epochs[best].Epoch, Sequence: epochs[best].Runs[0].Last}
	}
}

// open opens what the cluster is built from.
func (c *clusterMoment) open(ctx context.Context, a *app) (*postgres.Source, error) {
	snap, err := openContent(ctx, c.repo, c.base)
	if err != nil {
		return nil, err
	}
	root, err := snap.Root(ctx)
	if err != nil {
		return nil, missing(err)
	}
	p := c.base.Postgres
	major, err := majorOf(p.Version)
	if err != nil || len(root.Roots) != 1 {
		return nil, fmt.Errorf("snapshot %s: %w", c.base.ID(), errNoCluster)
	}
	src := &postgres.Source{
		ID: c.base.ID().String(), Base: snap, Root: root.Roots[0], Time: c.chosen.Point.Time(), System: p.System, Major: major,
		Timeline: p.Timeline, Start: p.Start, Stop: p.Stop,
	}
	if src.Histories, err = c.histories(ctx, c.timelineOf()); err != nil {
		return nil, fmt.Errorf("source %s: %w", c.src, err)
	}
	if c.stream == nil {
		return src, nil
	}
	if err := c.readable(ctx); err != nil {
		return nil, fmt.Errorf("source %s: %w", c.src, err)
	}
	if src.Log, err = c.log(ctx, c.chosen.Log.From, c.through, src.Histories); err != nil {
		return nil, fmt.Errorf("source %s: %w", c.src, err)
	}
	settings, err := a.fetchSettings(c.src, c.through)
	if err != nil {
		return nil, err
	}
	src.Log.Reader, err = json.Marshal(settings)
	return src, err
}

// majorOf reads the major version of what a server says: "15.18 (Debian …)", "18rc1".
func majorOf(version string) (int, error) {
	var n int
	if _, err := fmt.Sscanf(version, "%d", &n); err != nil || n < 10 {
		return 0, fmt.Errorf("PostgreSQL %q: no version", version)
	}
	return n, nil
}

// stored is the manifest of a snapshot.
func (m *moments) stored(sequence uint64) *repository.Stored {
	for _, s := range m.history.Manifests {
		if s.Sequence == sequence {
			return s
		}
	}
	return nil
}

// moment makes a moment of what was chosen.
func (m *moments) moment(chosen recovery.Selection) (*moment, error) {
	s := m.stored(chosen.Point.Sequence)
	if s == nil {
		return nil, fmt.Errorf("source %s: %w", m.src, repository.ErrNoSnapshot)
	}
	return &moment{moments: m, base: s, chosen: chosen}, nil
}

// told warns where the programs of this host are older than those of the cluster: their faults may be back, and WAL may hold
// what they do not know.
func (r *clusterRestore) told(o *postgres.Options) {
	find := o.Program
	o.Program = func(ctx context.Context, major int) (string, error) {
		path, err := find(ctx, major)
		if err != nil {
			return path, err
		}
		own, err := pgbin.Server(ctx, filepath.Dir(path), filepath.Base(path), major)
		here, was := minorOf(own.Version), minorOf(r.moment.base.Postgres.Version)
		if err == nil && here >= 0 && was > here {
			r.app.warn("%s is version %d.%d, older than the cluster's %d.%d: update it before the cluster goes into production", path, major, here, major, was)
		}
		return path, nil //nolint:nilerr // only its version is not known
	}
}

// minorOf is the second number of "15.18 (Debian …)"; -1: there is none, as in "18rc1".
func minorOf(version string) int {
	var major, minor int
	if n, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil || n != 2 {
		return -1
	}
	return minor
}
