package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	monthsDays = 90
	reported   = 15 // a row of the table for every so many days
)

// keeps is the retention: a week of days, a month of weeks, half a year of months.
func keeps() []string { return []string{"--keep-daily=7", "--keep-weekly=4", "--keep-monthly=6"} }

// monthly measures how many bytes stay in the repositories over 90 days of changes, with a backup and a prune each day.
//
// The peers are told the time of each snapshot, and remove at once what they don't keep. Holdfast goes by the times at which
// the store received its objects, and waits days before it removes anything: these times are moved back by a day for
// each day that passes here.
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
		"holdfast: `prune --force`; what is not kept waits 7 days as announced, and packs that nothing names stay until they are 14 days old",
		"time and memory are those of the prune")
	var chosen []*tool
	for _, t := range tools {
		if t.name == toolHoldfast || t.name == toolRestic || t.name == toolKopia {
			r.Versions[t.name] = t.version
			chosen = append(chosen, t)
		}
	}
	s := &stage{bench: b, tools: chosen, tree: c.tree(), report: r}
	if err := s.tidy(); err != nil {
		return nil, err
	}
	if err := s.prepareRound(ctx, stepFull); err != nil {
		return nil, err
	}
	for day := range monthsDays {
		if day > 0 {
			if _, err := c.day(ctx, day, 0.01, false); err != nil {
				return nil, err
			}
		}
		for _, t := range chosen {
			if err := s.dayOf(ctx, t, day); err != nil {
				return nil, fmt.Errorf("day %d: %w", day+1, err)
			}
		}
	}
	for _, t := range chosen {
		i, _ := t.at(stepRestore, s.place(t, 0))
		if _, err := i.run(ctx); err != nil {
			return nil, err
		}
		if err := s.check(t, s.place(t, 0)); err != nil {
			return nil, err
		}
	}
	return r, b.tidy()
}

// dayOf backs up and prunes.
func (s *stage) dayOf(ctx context.Context, t *tool, day int) error {
	p := s.place(t, 0)
	at := epoch().AddDate(0, 0, day)
	backup, _ := t.at(stepFull, p)
	var prune []invocation
	switch t.name {
	case toolHoldfast:
		if err := age(p.repository(), 24*time.Hour); err != nil {
			return err
		}
		prune = []invocation{call(append([]string{t.path, "prune", "-q", "--force"}, keeps()...)...)}
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
	var sum usage
	for _, i := range prune {
		i.env = t.env(p)
		u, err := s.launcher.run(ctx, i)
		if err != nil {
			return err
		}
		sum.Wall, sum.CPU, sum.RSS = sum.Wall+u.Wall, sum.CPU+u.CPU, max(sum.RSS, u.RSS)
	}
	stored, err := bytesBelow(p.repository())
	if err != nil {
		return err
	}
	if (day+1)%reported == 0 || day == 0 {
		s.log("day %2d, %-9s: %.1f MB", day+1, t.name, float64(stored)/mega)
		s.report.Runs = append(s.report.Runs, run{Step: fmt.Sprintf("day %d", day+1), Tool: t.name, usage: sum, Repository: stored})
	}
	return nil
}

// age moves the times of all files below a directory back.
func age(dir string, by time.Duration) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		to := i.ModTime().Add(-by)
		return os.Chtimes(path, to, to)
	})
}
