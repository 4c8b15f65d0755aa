package postgres

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ahead is how many bytes of WAL a fetch that reads the log by itself gets beyond what it was asked for.
const ahead = 128 << 20

// Fetch gives the server a file that it asks its restore_command for: plan is the file in the spool, name what is wanted,
// to where it goes. It reports false only where it is known that there is no such file: it lies behind the end of the
// branch, or is the history of a timeline of which none is stored. Whatever is not known is an error.
//
// Where a restore is at work it fills the spool, and is asked. Otherwise open opens the log, and some segments more are
// fetched, so that the next calls find theirs.
func Fetch(ctx context.Context, plan, name, to string, open func(ctx context.Context, p *Plan) (*Log, error)) (found bool, err error) {
	return (&spool{dir: filepath.Dir(plan), ahead: ahead}).fetch(ctx, plan, name, to, open)
}

func (s *spool) fetch(ctx context.Context, plan, name, to string, open func(ctx context.Context, p *Plan) (*Log, error)) (found bool, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			_ = s.write(faultName, []byte(err.Error()+"\n")) // who waits for the recovery reads it
		}
	}()
	p, err := ReadPlan(plan)
	if err != nil {
		return false, err
	}
	want, err := parseFile(name, p.Segment)
	if err != nil {
		return false, err
	}
	if p.judge(want) {
		return false, nil
	}
	if want.history == 0 && noCopyOf(s, name) || want.history != 0 && missing(s.path(keepName, name)) {
		there, err := s.ask(ctx, p, want, open)
		if err != nil || !there {
			return false, err
		}
	}
	found, err = s.take(name, to)
	if err != nil {
		return false, fmt.Errorf("give %s to the server: %w", name, err)
	}
	if !found {
		return false, fmt.Errorf("give %s to the server: it is gone from the spool", name)
	}
	return true, nil
}

// noCopyOf reports whether a segment does not wait in the spool. The one that is kept is asked for: who asks for it again
// and again is heard.
func noCopyOf(s *spool, name string) bool { return missing(s.ready(name)) }

// ask finds out whether there is such a file, and gets it into the spool.
func (s *spool) ask(ctx context.Context, p *Plan, want asked, open func(ctx context.Context, p *Plan) (*Log, error)) (bool, error) {
	for {
		a, err := askAt(ctx, s.dir, want.name)
		if errors.Is(err, errNobody) && ctx.Err() == nil {
			var own *os.File
			if own, err = s.lock(); errors.Is(err, ErrBusy) {
				// Somebody has just begun, or another fetch is at work.
				select {
				case <-ctx.Done():
					return false, ctx.Err()
				case <-time.After(20 * time.Millisecond):
				}
				if !missing(s.ready(want.name)) {
					return true, nil
				}
				continue
			}
			if err == nil {
				a = s.fill(ctx, p, want, open)
				err = own.Close()
			}
		}
		switch {
		case err != nil:
			return false, err
		case a.Status == statusReady:
			return true, nil
		case a.Status == statusAbsent:
			return false, nil
		}
		return false, fmt.Errorf("fetch %s: %s", want.name, a.Error)
	}
}

// fill reads the log from the nearest place that is known, until the file is there and some of what follows.
func (s *spool) fill(ctx context.Context, p *Plan, want asked, open func(ctx context.Context, p *Plan) (*Log, error)) answer {
	if !missing(s.path(keepName, want.name)) {
		return answer{Status: statusReady} // nobody has to be told
	}
	log, err := open(ctx, p)
	if err != nil {
		return answer{statusFault, fmt.Sprintf("no restore is at work that would fill the spool, and the log can't be read from here: %v", err)}
	}
	if err := s.create(); err != nil { // of this boot
		return answer{statusFault, err.Error()}
	}
	if err := s.clearReady(); err != nil {
		return answer{statusFault, err.Error()}
	}
	log.From = s.nearest(p, want.segment)
	f := newFeed(log, p, s)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx)
	}()
	a := f.ask(ctx, want.name)
	if a.Status == statusReady {
		f.gather(ctx, min(s.ahead, windowBytes/2))
	}
	cancel()
	<-ended
	return a
}

// gather waits until so much waits in the spool, or there is no more.
func (f *feed) gather(ctx context.Context, bytes uint64) {
	for ctx.Err() == nil {
		_, _, done, _, err := f.state()
		n, e := f.spool.waiting()
		if done || err != nil || e != nil || uint64(n)*f.plan.Segment >= bytes { //nolint:gosec // a count
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// nearest is the place of the segment, or of the last one before it that is known; else that of the base.
func (s *spool) nearest(p *Plan, want segment) snapshot.LogPlace {
	best, at := segment{}, p.From
	f, err := os.Open(s.path(indexName))
	if err != nil {
		return at
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l indexLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // torn
		}
		one := segment{l.Timeline, l.Segment}
		before := one.timeline < want.timeline || one.timeline == want.timeline && one.number <= want.number
		later := one.timeline > best.timeline || one.timeline == best.timeline && one.number > best.number
		if before && later {
			best, at = one, l.Place
		}
	}
	return at
}
