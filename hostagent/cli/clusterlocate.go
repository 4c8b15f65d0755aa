package cli

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// triedSnapshots is how many snapshots are tried at most for one whose log leads to a point.
const triedSnapshots = 16

// chooseLSN finds the newest snapshot whose log leads to an LSN, so that little is replayed. The newest one that is complete
// before it may be of a timeline that was left before it.
func (m *moments) chooseLSN(ctx context.Context, points []recovery.Point, epochs []recovery.LogEpoch, want clusterWant) (*clusterMoment, error) {
	reader := log.NewReader(m.repo, m.src, m.streams)
	var newest *clusterMoment
	var fault error
	for i := len(points) - 1; i >= 0 && i >= len(points)-triedSnapshots; i-- {
		c, err := m.chooseAmong(ctx, points[i:i+1], epochs, want)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && c.leadsTo(ctx, reader, want.target.LSN) {
			return c, nil
		}
		if i == len(points)-1 {
			newest, fault = c, err
		}
	}
	return newest, fault // whose end is told
}

// leadsTo reports whether the branch comes to an LSN, or may do so: what can't be read is told where it is used.
func (c *clusterMoment) leadsTo(ctx context.Context, reader *log.Reader, at pg.LSN) bool {
	if c.stream == nil {
		return at <= c.base.Postgres.Stop
	}
	r, err := reader.Record(ctx, c.through.Stream, c.through.Epoch, c.through.Sequence)
	return err != nil || r.WAL != nil && r.WAL.End() >= at
}

// locate makes sure that a transaction, or a restore point, is in the log before anything is touched, and finds the newest
// snapshot before it, where none is named. A log that is too long for that is searched by the recovery itself.
func (r *clusterRestore) locate(ctx context.Context, all *moments, src *postgres.Source) (*postgres.Source, error) {
	t := r.want.target
	if r.located || t.Kind != postgres.XID && t.Kind != postgres.Name {
		return src, nil
	}
	named, left := r.want.sequence != 0, uint64(postgres.LocateMost)
	var near []string
	var until pg.LSN
	for first := true; ; first = false {
		got, err := src.Locate(ctx, t, until, left)
		if err != nil {
			return nil, fmt.Errorf("source %s: look for %s: %w", r.src, t, err)
		}
		base := r.moment.base.Sequence
		switch {
		case got.Found || first && !got.Sure && src.Log != nil:
			if !got.Found {
				r.app.note("%s was not looked for in all of the log after snapshot @%d: the recovery will show whether it is there", t, base)
			}
			r.located, r.want.sequence = true, base
			return src, nil
		case !got.Sure && src.Log != nil:
			return nil, postgres.Located{Near: near}.Missing(t, fmt.Sprintf("after snapshot @%d, and what is older was not searched to its end; `%s@%d` begins there", base, r.src.Name, base))
		}
		near, left = append(near, got.Near...), left-got.WAL
		if named {
			return nil, postgres.Located{Near: near}.Missing(t, fmt.Sprintf("after snapshot @%d", base))
		}
		older, err := r.older(ctx, all)
		if err != nil || older == nil {
			return nil, r.nowhere(ctx, t, near, err)
		}
		until = 0
		if older.stream != nil && older.through == r.moment.through {
			until = src.Stop // from there on it was searched
		}
		r.moment = older
		if src, err = older.open(ctx, r.app); err != nil {
			return nil, err
		}
	}
}

// nowhere says that a target is in no log.
func (r *clusterRestore) nowhere(ctx context.Context, t postgres.Target, near []string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	where := "of " + r.src.Name
	if lost := r.moment.chosen.Lost; lost != nil {
		where += fmt.Sprintf(", as far as it is there: %s", lost)
	}
	if err != nil {
		where += fmt.Sprintf(", as far as it can be read (%v)", err)
	}
	return postgres.Located{Near: near}.Missing(t, where)
}

// older is the state of the newest snapshot before the one that is chosen; nil: there is none.
func (r *clusterRestore) older(ctx context.Context, all *moments) (*clusterMoment, error) {
	points := all.clusterPoints(r.want)
	for i := len(points) - 1; i >= 0; i-- {
		if p := points[i]; p.Sequence < r.moment.base.Sequence && !p.Unfinished {
			want := r.want
			want.sequence = p.Sequence
			return all.chooseCluster(ctx, want)
		}
	}
	return nil, nil
}
