package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// reported is for how many days the table has a row.
const reported = 15

// keepRules is the retention: a week of days, a month of weeks, half a year of months.
func keepRules() policy.Retention { return policy.Retention{Daily: 7, Weekly: 4, Monthly: 6} }

// keeps says the same to the peers.
func keeps() []string {
	r := keepRules()
	return []string{fmt.Sprintf("--keep-daily=%d", r.Daily), fmt.Sprintf("--keep-weekly=%d", r.Weekly), fmt.Sprintf("--keep-monthly=%d", r.Monthly)}
}

// monthly measures how many bytes stay in the repositories over 90 days of changes, with a backup and a prune each day.
//
// The peers are told the time of each snapshot, and remove at once what they don't keep. Holdfast goes by the times at which
// the store received its objects, and waits days before it removes anything: see [simulated].
func (b *bench) monthly(ctx context.Context) (*report, error) {
	tools, err := b.install(ctx)
	if err != nil {
		return nil, err
	}
	c := &corpus{dir: filepath.Join(b.dir, "months"), log: b.log, spec: corpusSpec{Format: corpusFormat, Size: b.sizeOr(100e6), Seed: b.seed}}
	if err := os.RemoveAll(c.dir); err != nil {
		return nil, err
	}
	facts, err := c.build(ctx)
	if err != nil {
		return nil, err
	}
	r := b.newReport("months", nil)
	r.Corpus = facts
	r.Notes = append(r.Notes, "each day: 1 % of the files are edited, 1 % of the SQLite database's pages are updated; backup, then prune with "+
		strings.Join(keeps(), " "),
		"restic: `forget --prune`, kopia: `snapshot expire --delete` and `maintenance run --full --safety=none`: both remove at once",
		"holdfast: what is not kept waits 7 days as announced, and packs that nothing names stay until they are 14 days old")
	var chosen []*tool
	for _, t := range tools {
		if t.name == toolHoldfast || t.name == toolRestic || t.name == toolKopia {
			r.Versions[t.name] = t.version
			chosen = append(chosen, t)
		}
	}
	r.order(chosen)
	s := &stage{bench: b, tools: chosen, tree: c.tree(), report: r}
	if err := s.tidy(); err != nil {
		return nil, err
	}
	if err := s.prepareRound(ctx, stepFull); err != nil {
		return nil, err
	}
	m := &calendar{stage: s, corpus: c}
	if err := m.pass(ctx, b.days); err != nil {
		return nil, err
	}
	if err := m.restore(ctx); err != nil {
		return nil, err
	}
	return r, b.tidy()
}

// calendar lets days pass.
type calendar struct {
	*stage
	corpus *corpus
	own    *simulated
}

// pass lets days pass in the repositories of all tools.
func (s *calendar) pass(ctx context.Context, days int) error {
	start := simulatedStart()
	var err error
	if s.own, err = newSimulated(ctx, place{home: filepath.Join(s.dir, "work", "simulated"), tree: s.tree}, start); err != nil {
		return err
	}
	for day := range days {
		if day > 0 {
			if _, err := s.corpus.day(ctx, day, 0.01, false); err != nil {
				return err
			}
		}
		for _, t := range s.tools {
			if t.name == toolHoldfast {
				err = s.own.day(ctx, start.AddDate(0, 0, day), keepRules())
			} else {
				err = s.dayOf(ctx, t, day)
			}
			if err != nil {
				return fmt.Errorf("day %d of %s: %w", day+1, t.name, err)
			}
			if err := s.weigh(t, day); err != nil {
				return err
			}
		}
	}
	return nil
}

// restore checks the newest snapshots. The program works on what its packages wrote.
func (s *calendar) restore(ctx context.Context) error {
	home := s.home(s.tools[0])
	if err := errors.Join(os.RemoveAll(home), os.Rename(s.own.place.home, home)); err != nil {
		return err
	}
	for _, t := range s.tools {
		i, _ := t.at(stepRestore, s.place(t, 0))
		if _, err := i.run(ctx); err != nil {
			return err
		}
		if err := s.check(t, s.place(t, 0)); err != nil {
			return err
		}
	}
	return nil
}

// dayOf backs up and prunes with a peer.
func (s *calendar) dayOf(ctx context.Context, t *tool, day int) error {
	p := s.place(t, 0)
	at := epoch().AddDate(0, 0, day)
	backup, _ := t.at(stepFull, p)
	var prune []invocation
	switch t.name {
	case toolRestic:
		backup.args = append(backup.args, "--time", at.Format(time.DateTime))
		prune = []invocation{call(append([]string{t.path, "forget", "-q", "--prune"}, keeps()...)...)}
	case toolKopia:
		stamp := at.Format("2006-01-02 15:04:05 MST")
		backup.args = append(backup.args, "--start-time", stamp, "--end-time", stamp)
		policy := append([]string{t.path, "policy", "set", "--global", "--keep-latest=1", "--keep-hourly=0", "--keep-annual=0"}, keeps()...)
		prune = []invocation{
			call(policy...), call(t.path, "snapshot", "expire", "--all", "--delete"),
			call(t.path, "maintenance", "run", "--full", "--safety=none"),
		}
	}
	if _, err := backup.run(ctx); err != nil {
		return err
	}
	for _, i := range prune {
		i.env = t.env(p)
		if _, err := i.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// weigh notes how much a repository holds at the end of a day.
func (s *calendar) weigh(t *tool, day int) error {
	repository := s.place(t, 0).repository()
	if t.name == toolHoldfast {
		repository = s.own.place.repository()
	}
	stored, err := bytesBelow(repository)
	if err != nil {
		return err
	}
	if (day+1)%reported == 0 || day == 0 || day == s.days-1 {
		s.log("day %2d, %-9s: %.1f MB", day+1, t.name, float64(stored)/mega)
		s.report.Runs = append(s.report.Runs, run{Step: fmt.Sprintf("day %d", day+1), Tool: t.name, Repository: stored})
	}
	return nil
}
