package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ScheduleFeed is the schedule of the host's own policy: backups, and the verifications that the policy wants of agents.
// Without a queue it brings every run that is due. With one it
// only looks on, and takes over what the control plane should have asked for and did not, before the objective of the
// source is missed. That both ask for the same costs nothing: their jobs have the same id, and the newest manifest
// decides.
type ScheduleFeed struct {
	Host     string
	Policies *Policies
	Journal  *journal.Journal
	Work     Work
	Remote   bool          // there is a queue
	Every    time.Duration // how often it is looked what is due; 0: fifteen seconds

	mu    sync.Mutex
	began time.Time          // first poll; guarded by mu, as below
	known map[string]reading // by source, as last read
	woes  map[string]woe     // by source
	given map[string]givenUp // by source

	proofs map[string]shown // by source, as last read
}

// woe is how often in a row runs of one type have failed.
type woe struct {
	job      string // the last that was counted
	t        snapshot.SnapshotType
	failures int
}

// givenUp is a type that is not tried for a while, and through which time.
type givenUp struct {
	t          snapshot.SnapshotType
	due, until time.Time
}

// reading is a history, and when it was read.
type reading struct {
	History
	read time.Time
}

const (
	scheduleEvery = 15 * time.Second
	// Retries of a run that failed: after five minutes, then ten, up to an hour, until the next run is due.
	firstRetry = 5 * time.Minute
	mostRetry  = time.Hour
	maxRetries = 50
	// A type that failed so often gives way to less, for so long.
	mostFailures = 5
	giveUpFor    = 6 * time.Hour
	// The time in which the control plane can ask before the agent takes over.
	leastGrace = 2 * time.Minute
	mostGrace  = time.Hour
)

func (f *ScheduleFeed) String() string { return "the schedule of the policy" }

func (f *ScheduleFeed) every() time.Duration {
	if f.Every != 0 {
		return f.Every
	}
	return scheduleEvery
}

// Poll offers what is due.
func (f *ScheduleFeed) Poll(ctx context.Context, offer Offer) (n int, wait time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.began.IsZero() {
		f.began, f.known, f.woes, f.given = time.Now(), map[string]reading{}, map[string]woe{}, map[string]givenUp{}
		f.proofs = map[string]shown{}
	}
	p := f.Policies.Current()
	h := p.Hosts[f.Host]
	if h == nil {
		return 0, f.every(), nil
	}
	names := make([]string, 0, len(h.Sources))
	for name := range h.Sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f.giveUp(h.Sources[name], name)
	}
	for _, next := range []func(context.Context, *policy.Policy, string) *events.Job{f.due, f.verification} {
		for _, name := range names {
			if ctx.Err() != nil {
				break
			}
			job := next(ctx, p, name)
			if job == nil {
				continue
			}
			if err := offer(ctx, Offered{Job: job, Origin: journal.FromSchedule}); err != nil {
				return n, f.every(), fmt.Errorf("source %s: %w", name, err)
			}
			n++
		}
	}
	return n, f.every(), nil
}

// due is the job that the source needs now, if it needs one.
func (f *ScheduleFeed) due(ctx context.Context, p *policy.Policy, name string) *events.Job {
	for _, e := range f.Journal.Waiting() {
		if e.Job.Kind == events.Backup && e.Job.Source == name {
			return nil // first that one
		}
	}
	// What is known may be old: a job has ended since, or somebody ran it by hand. So the repository is asked after each
	// job and before each run, but not each time.
	fresh := false
	h, ok := f.known[name]
	if last, ended := f.Journal.Last()[name]; !ok || ended && !last.Finished.Before(h.read) {
		h, fresh = f.refresh(ctx, p, name), true
	}
	job := f.needed(p, name, h.History)
	if job == nil || fresh {
		return job
	}
	return f.needed(p, name, f.refresh(ctx, p, name).History)
}

// needed is the job that a source with this history needs now.
func (f *ScheduleFeed) needed(p *policy.Policy, name string, h History) *events.Job {
	now := time.Now()
	src := snapshot.Source{Host: f.Host, Name: name}
	settled := h.Settled
	if g := f.given[name]; now.Before(g.until) {
		settled = settled.Settle(g.t, g.due)
	}
	run, due, _ := schedule.Due(p, src, settled, now)
	if !due || f.Remote && !derived(p.Hosts[f.Host].Sources[name]) && !f.takesOver(p, src, h, run, now) {
		return nil
	}
	return f.attempt(src, run)
}

// derived reports whether a source was made of a pattern: only this host knows which there are, and nobody else asks for
// them.
func derived(s *policy.Source) bool { return s != nil && s.SQLite != nil && s.SQLite.Of != "" }

// giveUp looks at how the newest job of a source ended. A full or a differential that fails again and again gives way to
// less for a while: better an incremental than nothing.
func (f *ScheduleFeed) giveUp(s *policy.Source, name string) {
	last, ok := f.Journal.Last()[name]
	w := f.woes[name]
	if !ok || last.Job == w.job {
		return
	}
	t := snapshot.SnapshotType(last.Type)
	switch {
	case last.Result != events.Failed:
		w = woe{}
		if t == snapshot.Full || t == f.given[name].t {
			delete(f.given, name)
		}
	case t == w.t:
		w.failures++
	default:
		w = woe{t: t, failures: 1}
	}
	w.job = last.Job
	less := !s.Schedule.Incremental.IsZero() || t == snapshot.Full && !s.Schedule.Differential.IsZero()
	if w.failures >= mostFailures && t != snapshot.Incremental && less {
		f.given[name] = givenUp{t: t, due: last.Due, until: time.Now().Add(giveUpFor)}
		w.failures = 0
	}
	f.woes[name] = w
}

// refresh reads what the repository has of a source. Where it can't be read, what was known stands: the run itself will
// fail then, and that is told.
func (f *ScheduleFeed) refresh(ctx context.Context, p *policy.Policy, name string) reading {
	began := time.Now()
	h, err := f.Work.History(ctx, p, name)
	if err != nil {
		h = f.known[name].History
	}
	f.known[name] = reading{h, began}
	return f.known[name]
}

// attempt is the job for a run: the first, or a further one after those before have failed and a while has passed; nil
// while there is nothing to do for it.
func (f *ScheduleFeed) attempt(src snapshot.Source, run schedule.Run) *events.Job {
	wait := firstRetry
	for n, tried := 0, 0; tried < maxRetries; n++ {
		id := events.RetryID(run.ID, n)
		if !f.Journal.Known(id) {
			return &events.Job{
				Version: events.Version, ID: id, Host: src.Host, Source: src.Name, Kind: events.Backup, Type: string(run.Type),
				Attempt: n, Due: run.Due.UTC(), NotAfter: run.NotAfter.UTC(),
			}
		}
		result := f.Journal.Result(id)
		if result != nil && !isOf(result, src, run) {
			continue // some other job came under this id: the run is not made by it
		}
		if result != nil && (settles(result, run) || time.Now().Before(result.Finished.Add(wait))) {
			return nil
		}
		// Where the result is not known any more, it is long ago.
		wait = min(2*wait, mostRetry)
		tried++
	}
	return nil
}

// isOf reports whether a job was an attempt at a run. Its id alone does not say so: whoever has the queue can foresee the
// ids of runs, and send something else under them.
func isOf(result *events.JobFinished, src snapshot.Source, run schedule.Run) bool {
	return result.Kind == events.Backup && result.Source == src.Name && result.Due.Equal(run.Due)
}

// settles reports whether the job made the run, or more.
func settles(result *events.JobFinished, run schedule.Run) bool {
	fullness := func(t snapshot.SnapshotType) int {
		return slices.Index([]snapshot.SnapshotType{snapshot.Incremental, snapshot.Differential, snapshot.Full}, t)
	}
	return result.Result != events.Failed && fullness(snapshot.SnapshotType(result.Type)) >= fullness(run.Type)
}

// takesOver decides whether the agent runs what the control plane should have asked for. It waits a grace after the
// first run that was not asked for, and as long as the objective is not in danger: until three quarters of it are used
// up. Where other jobs come, the control plane may have its reasons, and is waited for until the objective is missed.
func (f *ScheduleFeed) takesOver(p *policy.Policy, src snapshot.Source, h History, run schedule.Run, now time.Time) bool {
	rpo := p.Hosts[src.Host].Sources[src.Name].Objectives.RPO.Std()
	missed := run.Start
	if !h.Settled.Incremental.IsZero() { // through which everything is settled
		if _, _, first := schedule.Due(p, src, h.Settled, h.Settled.Incremental); !first.IsZero() && first.Before(missed) {
			missed = first
		}
	}
	since := missed.Add(min(max(rpo/4, leastGrace), mostGrace))
	if began := f.began.Add(leastGrace); since.Before(began) {
		since = began // the queue may be full of what came while the agent was down
	}
	if now.Before(since) {
		return false
	}
	if h.Started.IsZero() {
		return true // there is no snapshot at all
	}
	limit := rpo / 4 * 3
	if !f.Journal.Heard().Before(missed) {
		limit = rpo
	}
	return now.Sub(h.Started) >= limit
}
