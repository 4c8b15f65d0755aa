package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// timelinePoints is to which times a cluster can be restored along one of its timelines.
type timelinePoints struct {
	Timeline uint32          `json:"timeline"`
	Spans    []recovery.Span `json:"spans"`
	Gaps     []recovery.Gap  `json:"gaps"`
	End      string          `json:"end_lsn,omitempty"`    // of the newest WAL that is stored
	LastWAL  time.Time       `json:"last_wal,omitzero"`    // up to when it has all commits, by the server's clock
	Unread   string          `json:"unreadable,omitempty"` // why the end is not known
}

// timelinesOf are the timelines of a cluster of which something is stored, ascending; none of another kind of source.
func (m *moments) timelinesOf() []uint32 {
	var out []uint32
	add := func(n uint32) {
		if n != 0 && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for i := range m.streams {
		add(streamTimeline(&m.streams[i]))
	}
	for _, s := range m.history.Manifests {
		if s.Postgres != nil {
			add(s.Postgres.Timeline)
		}
	}
	slices.Sort(out)
	return out
}

// clusterWindows are the windows of a cluster, one for each timeline. The times of epochs are exact already.
func (m *moments) clusterWindows(ctx context.Context, epochs []recovery.LogEpoch, rpo time.Duration, now time.Time) ([]timelinePoints, error) {
	var out []timelinePoints
	reader := log.NewReader(m.repo, m.src, m.streams)
	for _, n := range m.timelinesOf() {
		own, err := m.onTimeline(epochs, n)
		if err != nil {
			return nil, err
		}
		w := recovery.RecoverableMoments(m.clusterPoints(clusterWant{timeline: n}), own, rpo, now)
		t := timelinePoints{Timeline: n, Spans: w.Spans, Gaps: w.Gaps}
		if err := m.endOf(ctx, reader, own, &t); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// endOf finds the newest WAL of a timeline.
func (m *moments) endOf(ctx context.Context, reader *log.Reader, epochs []recovery.LogEpoch, t *timelinePoints) error {
	var newest *recovery.LogEpoch
	for i := range epochs {
		e := &epochs[i]
		j := slices.IndexFunc(m.streams, func(s log.Stream) bool { return s.ID == e.Stream })
		if j < 0 || streamTimeline(&m.streams[j]) != t.Timeline || len(e.Runs) == 0 {
			continue
		}
		if newest == nil || e.Opened.After(newest.Opened) {
			newest = e
		}
	}
	if newest == nil {
		return nil
	}
	r, err := reader.Record(ctx, newest.Stream, newest.Epoch, newest.Runs[len(newest.Runs)-1].Last)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		t.Unread = err.Error() // as without a key
	case r.WAL != nil:
		t.End, t.LastWAL = r.WAL.End().String(), r.Time
	}
	return nil
}

// rows adds the windows of a timeline.
func (t *timelinePoints) rows(to *table, name string) {
	p := sourcePoints{Spans: t.Spans, Gaps: t.Gaps, name: fmt.Sprintf("%s, timeline %d", name, t.Timeline)}
	if t.End != "" {
		p.name += ", to " + t.End
	}
	p.rows(to)
}
