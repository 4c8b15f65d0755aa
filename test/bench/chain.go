package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// chainLength is how many incrementals the long chain has.
const chainLength = 101

// chains measures what a restore costs after one incremental and after 101. The tree differs by 100 days of edits between
// the two; its size stays.
func (b *bench) chains(ctx context.Context) (*report, error) {
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	c := &corpus{dir: filepath.Join(b.dir, "chain"), log: b.log, spec: corpusSpec{Format: corpusFormat, Size: b.sizeOr(250e6), Seed: b.seed}}
	if err := b.remove(c.dir); err != nil { // the days before have changed it for good
		return nil, err
	}
	facts, err := c.build(ctx)
	if err != nil {
		return nil, err
	}
	r := b.newReport("chain", []*tool{own})
	r.Corpus = facts
	r.Notes = append(r.Notes, "each incremental follows edits of 1 % of the files and of 1 % of the SQLite database's pages")
	short, long := *own, *own
	short.name, long.name = "1 incremental", fmt.Sprintf("%d incrementals", chainLength)
	s := &stage{bench: b, tools: []*tool{&short, &long}, tree: c.tree(), report: r}
	r.order(s.tools)
	if err := s.grow(ctx, c, &short, &long); err != nil {
		return nil, err
	}
	rounds := 10
	if b.rounds > 0 {
		rounds = b.rounds
	}
	for round := range rounds {
		if err := s.prepareRound(ctx, stepRestore); err != nil {
			return nil, err
		}
		for i := range s.tools {
			t := s.tools[(i+round)%2]
			if err := s.once(ctx, t, stepRestore, round+1); err != nil {
				return nil, err
			}
		}
		if round > 0 {
			continue
		}
		if err := s.check(own, s.place(&long, 1)); err != nil {
			return nil, err
		}
	}
	return r, b.tidy()
}

// grow makes the repository, and saves it after the first incremental and after the last.
func (s *stage) grow(ctx context.Context, c *corpus, short, long *tool) error {
	if err := s.tidy(); err != nil {
		return err
	}
	only := &stage{bench: s.bench, tools: []*tool{short}, tree: s.tree, report: s.report}
	if err := only.prepareRound(ctx, stepFull); err != nil {
		return err
	}
	p := s.place(short, 0)
	for n := range chainLength + 1 {
		if n > 0 {
			if _, err := c.day(ctx, n, 0.01, false); err != nil {
				return err
			}
		}
		i, _ := short.at(stepFull, p)
		if _, err := i.run(ctx); err != nil {
			return err
		}
		to := ""
		switch n {
		case 1:
			to = s.saved(short, stepDay2)
		case chainLength:
			to = s.saved(long, stepDay2)
		default:
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if _, err := call("cp", "-a", p.home, to).run(ctx); err != nil {
			return err
		}
		s.log("saved the repository after %d incrementals", n)
	}
	return nil
}
