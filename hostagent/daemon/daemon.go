// Package daemon is the agent: a loop that takes jobs, runs one at a time and reports how they ended. It does not know
// where jobs come from: any number of [Feed]s offer them, such as a [QueueFeed], behind which the control plane is, and
// the [ScheduleFeed], which needs nobody. It does not know what a job does either: [Work] does it.
//
// Make an [Agent] by [New], then call [Agent.Run], or [Agent.Once] for what is due now.
//
// What it promises: a job is in the journal before its message is deleted. A job in the journal is run, or reported
// failed once, whatever kills the process. A job is run at most once at a time, and the same id never again. What is
// refused is reported once. Results are reported at least once, in the order in which they happened, however long the
// network is away. Losing the queue, the bus or both costs no backup.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Defaults of [Config].
const (
	DefaultHeartbeat = 5 * time.Minute
	DefaultGrace     = time.Minute
	DefaultWatch     = 10 * time.Second
	// maxAttempts is how often a job begins that the end of the process cuts off: whatever it is in it that kills the
	// agent must not do so for ever.
	maxAttempts = 3
	// lastWord is how long the end waits for events to be sent; what is not sent then is sent by the next start.
	lastWord = 5 * time.Second
)

// Outcome is what a job did.
type Outcome struct {
	Result   events.Result // OK or Partial
	Type     string        // backups: what the snapshot became
	Snapshot uint64        // its number; 0: there is none
	Added    uint64        // bytes
	Counts   *events.Counts
	Problem  string // Partial: what is wrong, without secrets
}

// History is what the repository shows of a source.
type History struct {
	Settled  schedule.History // the times through which runs are done, by this host's clock
	Stored   schedule.History // the same by the store's clock; see [schedule.Began]
	Sequence uint64           // of the newest snapshot; 0: there is none
	Started  time.Time        // when its capture began, by this host's clock
}

// Work is what jobs do. Its methods are called by one goroutine at a time, except History and Proofs. When ctx ends they stop at
// the next safe point, so that the same job can be begun again and goes on from there.
type Work interface {
	Backup(ctx context.Context, p *policy.Policy, source string, t snapshot.SnapshotType) (Outcome, error)
	Verify(ctx context.Context, p *policy.Policy, source, level string) (Outcome, error)
	Restore(ctx context.Context, p *policy.Policy, r *approval.Request) (Outcome, error)
	History(ctx context.Context, p *policy.Policy, source string) (History, error)
	// Proofs tells what receipts in the repository show of the verifications of a source.
	Proofs(ctx context.Context, p *policy.Policy, source string) (schedule.Proofs, error)
}

// Offer brings something to the agent that may be a job. When it returns nil, what was offered is settled for good:
// accepted, or refused, durably. An error means that it must be offered again.
type Offer func(ctx context.Context, o Offered) error

// Offered is a job, or a message that may be one.
type Offered struct {
	Job    *events.Job // nil: Body says it
	Body   []byte
	Origin string // journal.FromQueue or journal.FromSchedule
}

// Feed is where jobs come from.
type Feed interface {
	// Poll offers what there is now and returns how many were offered, and how long to wait before the next call.
	Poll(ctx context.Context, offer Offer) (n int, wait time.Duration, err error)
	String() string
}

// Bus takes events.
type Bus interface {
	// Put sends events and returns for each nil, or why it did not arrive; err says that none did.
	Put(ctx context.Context, list []journal.Event) (each []error, err error)
}

// ErrNever says that an event will not arrive however often it is sent.
var ErrNever = errors.New("the bus will never take this event")

// Config is what an agent needs.
type Config struct {
	Host     string
	Version  string // of the agent
	Policies *Policies
	Journal  *journal.Journal
	Work     Work
	Feeds    []Feed
	Bus      Bus             // nil: nothing is reported
	Log      *slog.Logger    // nil: none
	Reload   <-chan struct{} // the policy is to be read now; may be nil
	Systemd  *Systemd        // nil: nobody is told
	// After runs the hooks after a backup of the source, where the process died in the midst of one that is not begun
	// again: what its hooks before have stopped must not stay so. May be nil.
	After func(ctx context.Context, p *policy.Policy, source string) error

	// Logs tells how the logs are written of the sources that are followed beside the jobs. May be nil.
	Logs func() map[string]events.Log

	Heartbeat time.Duration // 0: DefaultHeartbeat
	Grace     time.Duration // for the running job at the end; 0: DefaultGrace; negative: none
	Watch     time.Duration // how often the policy file is looked at; 0: DefaultWatch
}

// Agent is a running agent.
type Agent struct {
	Config
	wake chan struct{} // a job may wait
	mail chan struct{} // an event may wait

	mu      sync.Mutex
	running *events.RunningJob // guarded by mu

	looking atomic.Bool // somebody looks at the room for restores
}

// New returns an agent that does nothing yet.
func New(c Config) *Agent {
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.Watch == 0 {
		c.Watch = DefaultWatch
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{Config: c, wake: make(chan struct{}, 1), mail: make(chan struct{}, 1)}
}

// Run works until ctx ends, and then ends in an orderly way: no job begins, the running one has the grace to finish and
// is stopped at a safe point after that, events that wait are sent.
func (a *Agent) Run(ctx context.Context) error {
	a.begin()
	jobs, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var feeding, working, sending sync.WaitGroup
	for _, f := range a.Feeds {
		feeding.Go(func() { a.feed(ctx, f) })
	}
	feeding.Go(func() { a.beat(ctx) })
	feeding.Go(func() { a.watch(ctx) })
	letters, stopLetters := context.WithCancel(jobs)
	defer stopLetters()
	sending.Go(func() { a.send(letters) })
	sending.Go(func() { a.Systemd.watchdog(letters, a.alive) })
	done := make(chan struct{})
	working.Go(func() {
		defer close(done)
		a.work(ctx, jobs)
	})
	a.Systemd.notify("READY=1")
	<-ctx.Done()
	a.Systemd.notify("STOPPING=1")
	a.Log.Info("stopping", "grace", a.Grace)
	select {
	case <-done:
	case <-time.After(max(0, a.Grace)):
		a.Log.Warn("the running job is stopped at its next safe point and goes on at the next start")
		cancel()
	}
	working.Wait()
	feeding.Wait()
	stopLetters()
	sending.Wait()
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer stop()
	a.flush(last)
	a.Log.Info("stopped")
	return nil
}

// Once takes what the feeds have now, runs it, reports it and returns how each job ended.
func (a *Agent) Once(ctx context.Context) ([]events.JobFinished, error) {
	a.begin()
	var errs []error
	for _, f := range a.Feeds {
		for ctx.Err() == nil {
			n, _, err := f.Poll(ctx, a.offer)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f, err))
			}
			if err != nil || n == 0 {
				break
			}
		}
	}
	var ended []events.JobFinished
	for ctx.Err() == nil {
		e, ok := a.next()
		if !ok {
			break
		}
		result, err := a.run(ctx, e)
		if err != nil {
			errs = append(errs, err)
			break
		}
		if result != nil {
			ended = append(ended, *result)
		}
	}
	a.heartbeat()
	a.flush(ctx)
	if a.Bus != nil && len(a.Journal.Pending(1)) > 0 && ctx.Err() == nil {
		errs = append(errs, errors.New("some events could not be sent; the next run tries again"))
	}
	return ended, errors.Join(errs...)
}

// begin tells what the last process has left behind.
func (a *Agent) begin() {
	if n := a.Journal.Damaged(); n > 0 {
		a.Log.Error("lines of the journal were damaged and are lost; a job may be lost, or may run twice", "lines", n)
	}
	for _, e := range a.Journal.Waiting() {
		a.Log.Info("job left by the last run", "job", e.Job.ID, "kind", e.Job.Kind, "source", e.Job.Source, "attempts", e.Attempts)
	}
}

// feed polls one feed until ctx ends.
func (a *Agent) feed(ctx context.Context, f Feed) {
	var b backoff
	for ctx.Err() == nil {
		_, wait, err := f.Poll(ctx, a.offer)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = max(wait, b.next())
			a.Log.Error("no jobs from "+f.String(), "error", err, "again", wait)
		default:
			b = backoff{}
		}
		sleep(ctx, wait)
	}
}

// alive returns when the parts that everything needs are not stuck.
func (a *Agent) alive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Journal.Known("")
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// nudge wakes whoever waits on a channel of capacity one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// backoff is how long to wait after one error after the other.
type backoff struct{ last time.Duration }

const (
	firstBackoff = time.Second
	mostBackoff  = 5 * time.Minute
)

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstBackoff), mostBackoff)
	return b.last
}
