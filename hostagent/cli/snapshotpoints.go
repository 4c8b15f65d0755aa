package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// sourcePoints is to which times a source can be restored.
type sourcePoints struct {
	Source string          `json:"source"`
	Spans  []recovery.Span `json:"spans"`
	Gaps   []recovery.Gap  `json:"gaps"`
	// Timelines are those of a PostgreSQL cluster.
	Timelines []timelinePoints `json:"timelines,omitempty"`

	name string
}

// pointsOf finds the times to which a source can be restored: spans of its log, or where it has none its snapshots, with
// gaps where the RPO was missed.
func (a *app) pointsOf(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*sourcePoints, error) {
	rpo := policy.DefaultRPO.Std()
	p, err := a.loadPolicy()
	if err != nil {
		return nil, err
	}
	if p != nil {
		if s, err := p.Lookup(src.Host, src.Name); err == nil {
			rpo = s.Objectives.RPO.Std()
		}
	}
	m, err := a.readMoments(ctx, repo, src)
	if err != nil {
		return nil, err
	}
	epochs := log.Epochs(m.streams)
	if err := log.NewReader(repo, src, m.streams).Times(ctx, epochs); err != nil {
		return nil, fmt.Errorf("source %s: %w", src, err)
	}
	w := recovery.RecoverableMoments(m.points(), epochs, rpo, a.now())
	out := &sourcePoints{Source: src.String(), Spans: w.Spans, Gaps: w.Gaps, name: src.String()}
	if own, err := a.host(); err == nil && own == src.Host {
		out.name = src.Name
	}
	if out.Timelines, err = m.clusterWindows(ctx, epochs, rpo, a.now()); err != nil {
		return nil, fmt.Errorf("source %s: %w", src, err)
	}
	return out, nil
}

func (a *app) printPoints(ctx context.Context, repo *repository.Repository, sources []snapshot.Source) error {
	all := []*sourcePoints{}
	for _, src := range sources {
		p, err := a.pointsOf(ctx, repo, src)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	return a.print(all, func(w io.Writer) {
		t := newTable("SOURCE", "FROM", "TO", "RESTORABLE")
		for _, p := range all {
			p.rows(t)
			for i := range p.Timelines {
				if len(p.Timelines) > 1 {
					p.Timelines[i].rows(t, p.name)
				}
			}
		}
		if len(t.rows) == 0 {
			fmt.Fprintln(w, "nothing can be restored: there are no snapshots")
			return
		}
		t.write(w)
	})
}

// rows adds spans and gaps in the order of time.
func (p *sourcePoints) rows(t *table) {
	gaps := p.Gaps
	gapsUntil := func(until time.Time) {
		for len(gaps) > 0 && (until.IsZero() || gaps[0].From.Before(until)) {
			t.row(p.name, millis(gaps[0].From), millis(gaps[0].To), "NO: "+gaps[0].Cause)
			gaps = gaps[1:]
		}
	}
	for _, s := range p.Spans {
		gapsUntil(s.From)
		snapshots := fmt.Sprintf("@%d", s.First)
		if s.Last != s.First {
			snapshots = fmt.Sprintf("%s from @%d to @%d", count(uint64(s.Points), "snapshot", "snapshots"), s.First, s.Last)
		}
		what := snapshots
		if s.Log {
			what = "every moment: " + snapshots + " and the log"
		}
		t.row(p.name, millis(s.From), millis(s.To), what)
	}
	gapsUntil(time.Time{})
}

// millis is a time for people, as exact as commits are apart.
func millis(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }
