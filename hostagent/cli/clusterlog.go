package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// lookBack is how many records at the end of a log are tried, where the last one can't be read.
const lookBack = 1000

// readable makes sure that the branch ends with a record that can be read. Where its last ones can't, it ends before them if
// the time that is wanted does.
func (c *clusterMoment) readable(ctx context.Context) error {
	reader := log.NewReader(c.repo, c.src, c.streams)
	_, fault := reader.Record(ctx, c.through.Stream, c.through.Epoch, c.through.Sequence)
	var hole *log.HoleError
	if !errors.As(fault, &hole) {
		return fault
	}
	first := uint64(1)
	for _, e := range c.stream.Epochs {
		if e.Epoch == c.through.Epoch && e.Described != nil && e.Described.Continues != nil {
			first = e.Described.Continues.Sequence + 1
		}
	}
	for n := c.through.Sequence - 1; n >= first && n+lookBack > c.through.Sequence; n-- {
		r, err := reader.Record(ctx, c.through.Stream, c.through.Epoch, n)
		if errors.As(err, &hole) {
			continue
		}
		if err != nil {
			return err
		}
		if at := c.target.Time; c.target.Kind == postgres.Time && !at.After(r.Time) {
			c.through.Sequence = n
			return nil
		}
		return hinted{fault, fmt.Sprintf("the log is good up to %s: `holdfast restore %s --at %s`", exact(r.Time), c.src.Name, exact(r.Time))}
	}
	return hinted{fault, "`holdfast verify` names everything that is hit; `holdfast repair --from COPY` puts back what a copy has"}
}

// log is the WAL from a place to the end of a branch; histories are those of all timelines.
func (m *moments) log(ctx context.Context, from, through snapshot.LogPlace, histories map[uint32][]byte) (*postgres.Log, error) {
	i := slices.IndexFunc(m.streams, func(s log.Stream) bool { return s.ID == through.Stream })
	if i < 0 {
		return nil, fmt.Errorf("stream %s of the log is gone", through.Stream)
	}
	reader := log.NewReader(m.repo, m.src, m.streams)
	l := &postgres.Log{From: from}
	for _, e := range m.streams[i].Epochs {
		if e.Described != nil && e.Described.Postgres != nil {
			l.Timeline, l.Segment = e.Described.Postgres.Timeline, uint64(e.Described.Postgres.SegmentSize)
		}
	}
	last, err := reader.Record(ctx, through.Stream, through.Epoch, through.Sequence)
	if err != nil {
		return nil, err
	}
	if last.WAL != nil {
		l.End = last.WAL.End()
	} else if h, err := pg.ParseHistory(l.Timeline, histories[l.Timeline]); err == nil {
		_, l.End = h.Parent() // nothing of the new timeline came yet
	}
	l.Records = func(ctx context.Context, after snapshot.LogPlace) iter.Seq2[postgres.Record, error] {
		return m.clusterRecords(ctx, reader, log.Range{From: after, Through: through})
	}
	return l, nil
}

// clusterRecords are the records of a range, as the restorer wants them.
func (m *moments) clusterRecords(ctx context.Context, reader *log.Reader, rg log.Range) iter.Seq2[postgres.Record, error] {
	timelines := map[string]uint32{}
	for i := range m.streams {
		timelines[m.streams[i].ID] = streamTimeline(&m.streams[i])
	}
	return func(yield func(postgres.Record, error) bool) {
		for r, err := range reader.Records(ctx, rg) {
			var out postgres.Record
			if err == nil {
				out = postgres.Record{Place: r.Place, Time: r.Time, Timeline: timelines[r.Place.Stream]}
				if r.WAL != nil {
					out.Start, out.WAL = r.WAL.Start, r.WAL.Bytes
				} else {
					out.History = r.History.Content
				}
			}
			if !yield(out, err) {
				return
			}
		}
	}
}

// noHistory stands for a history that is not known, of a timeline that is not on the branch: its number is taken.
const noHistory = "# its records in the repository can not be read, or are not there\n"

// histories are those of all timelines of the cluster of which the repository knows: by a log, a snapshot, or another history.
// Where one of the branch, which ends in a timeline, is not known, the base has it: nothing stands for it.
func (m *moments) histories(ctx context.Context, branch uint32) (map[uint32][]byte, error) {
	reader := log.NewReader(m.repo, m.src, m.streams)
	out := map[uint32][]byte{}
	for i := range m.streams {
		if streamTimeline(&m.streams[i]) < 2 {
			continue
		}
		if err := m.historiesOf(ctx, reader, &m.streams[i], out); err != nil {
			return nil, err
		}
	}
	known := m.timelinesOf()
	for timeline, text := range out {
		if h, err := pg.ParseHistory(timeline, text); err == nil {
			for _, e := range h.Entries {
				known = append(known, e.Parent)
			}
		}
	}
	// A server takes the first number that is free behind its own: those between were taken too.
	const most = 1000
	last := slices.Max(append(known, branch))
	for timeline := max(branch, 1) + 1; timeline <= last && timeline-branch <= most; timeline++ {
		if _, ok := out[timeline]; !ok {
			out[timeline] = []byte(noHistory)
		}
	}
	return out, nil
}

// historiesOf reads those with which a stream begins. What can't be read is missing.
func (m *moments) historiesOf(ctx context.Context, reader *log.Reader, s *log.Stream, into map[uint32][]byte) error {
	for _, e := range s.Epochs {
		if e.Described == nil || e.Described.Continues != nil && e.Described.Continues.Stream == s.ID {
			continue // it goes on within the stream
		}
		first := uint64(1)
		if c := e.Described.Continues; c != nil {
			first = c.Sequence + 1
		}
		for n := first; ; n++ {
			r, err := reader.Record(ctx, s.ID, e.Epoch, n)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || r.History == nil {
				break // it is told where it is needed
			}
			if len(into[r.History.Timeline]) == 0 {
				into[r.History.Timeline] = slices.Clone(r.History.Content)
			}
		}
	}
	return nil
}
