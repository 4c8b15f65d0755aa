package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// errBeside says that a base backup is none with which the lineage could begin.
var errBeside = errors.New("the base backup does not stand in the log: the server was promoted meanwhile, or is a standby that has not replayed all that it had received when the log began; another one is made")

// base makes the base backup with which the lineage begins, if it has none, as soon as the server streams.
func (l *line) base(ctx context.Context) {
	select {
	case <-l.begun:
	case <-ctx.Done():
		return
	}
	for l.elsewhere() && ctx.Err() == nil {
		replicate.Sleep(ctx, turning) // a base backup of the new branch has no place in the log yet
	}
	for {
		if !l.begins(ctx) {
			return
		}
		l.f.Follows(l.describe)
		l.f.note(aboutBase, nil)
		select {
		case <-l.again:
		case <-ctx.Done():
			return
		}
	}
}

// begins makes the base backup, for as long as that takes; false: it was asked to end.
func (l *line) begins(ctx context.Context) bool {
	for failures := 0; !l.mark().Based; failures++ {
		l.f.note(aboutBase, &condition{state: replicate.Snapshot})
		wait, err := l.makeBase(ctx, failures)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			break
		}
		l.f.note(aboutBase, &condition{replicate.Failing, "make the base backup with which the log begins: " + err.Error(), replicate.HintOf(err)})
		replicate.Sleep(ctx, wait)
	}
	return ctx.Err() == nil
}

// answer looks whether something of the lineage's log is known to be damaged, and has a base backup made then, so that later
// moments need nothing of it.
func (l *line) answer(ctx context.Context) {
	if !l.answered.IsZero() && time.Since(l.answered) < answerEvery {
		return // a verification may find one thing after the other
	}
	m := l.mark()
	noted, err := log.Damaged(ctx, l.f.o.Repository.Store(), l.f.o.Source, func(stream string) bool { return m.has(&log.Place{Stream: stream}) })
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.f.Tell(replicate.Event{Kind: replicate.Trouble, Why: "look whether the log is damaged: " + err.Error()})
	case noted.After(m.Answered):
		l.f.warn("something of the log failed a check at "+noted.UTC().Format(time.RFC3339)+": a base backup is made, so that what comes later needs nothing of it", "`holdfast verify` names it, `holdfast repair --from COPY` puts back what a copy has")
		if err := l.note(true, func(m *mark) { m.Based, m.Answered = false, noted }); err != nil {
			l.f.Tell(replicate.Event{Kind: replicate.Trouble, Why: err.Error()})
			return
		}
		l.answered = time.Now()
		replicate.Nudge(l.again)
	}
}

// answerEvery is how often damage of the log is answered at most.
const answerEvery = time.Hour

// turning is how often to look whether the log has turned to the server's branch.
const turning = 100 * time.Millisecond

// elsewhere reports whether the log has yet to turn to the server's branch.
func (l *line) elsewhere() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.other
}

// makeBase makes a base backup. Where that fails, it says how long to wait before the next.
func (l *line) makeBase(ctx context.Context, failures int) (wait time.Duration, err error) {
	done, err := l.f.Take(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	made, err := l.f.o.Base(ctx)
	done()
	took := time.Since(began)
	if err == nil && !l.mark().has(made.Place) {
		// All of it was read in vain: not all the time.
		return max(replicate.Backoff(failures), min(took, replicate.Rest(took))), errBeside
	}
	if err == nil {
		err = l.note(true, func(m *mark) { m.Based, m.BaseStop = true, made.Stop })
	}
	if err != nil {
		return replicate.Backoff(failures), err
	}
	l.f.based(made.Number, log.Place{Stream: l.mark().Stream}, took)
	return 0, nil
}

// has reports whether a place is one of the lineage.
func (m *mark) has(p *log.Place) bool {
	return p != nil && strings.HasPrefix(p.Stream, fmt.Sprintf("%016x", m.System)) && strings.HasSuffix(p.Stream, m.Lineage)
}

// based notes that the base backup is there with which a lineage begins.
func (f *Follower) based(number uint64, place log.Place, took time.Duration) {
	f.mu.Lock()
	if f.gap != "" {
		f.rest = time.Now().Add(replicate.Rest(took))
	}
	f.gap = ""
	f.mu.Unlock()
	f.Based(number, place, took)
}
