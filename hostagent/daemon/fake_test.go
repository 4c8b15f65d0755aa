package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// fakeWork is a repository of snapshots that take no time to make unless told otherwise.
type fakeWork struct {
	mu     sync.Mutex
	ran    []string // what ran, in order
	begun  []time.Time
	snaps  map[string][]madeSnapshot
	takes  time.Duration
	fail   func(source string, t snapshot.SnapshotType) error
	before func(ctx context.Context, what string) // called within each job
	dark   bool                                   // the repository can't be read
	active int
	most   int

	takesOf map[string]time.Duration // instead of takes, by what runs
	refuse  bool                     // verifications fail
	proofs  map[string]schedule.Proofs
}

type madeSnapshot struct {
	t  snapshot.SnapshotType
	at time.Time
}

func (w *fakeWork) job(ctx context.Context, what string) error {
	w.mu.Lock()
	w.active++
	w.most = max(w.most, w.active)
	w.ran = append(w.ran, what)
	w.begun = append(w.begun, time.Now())
	takes, before := w.takes, w.before
	if d, ok := w.takesOf[what]; ok {
		takes = d
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.active--
		w.mu.Unlock()
	}()
	if before != nil {
		before(ctx, what)
	}
	sleep(ctx, takes)
	return ctx.Err()
}

func (w *fakeWork) Backup(ctx context.Context, _ *policy.Policy, source string, t snapshot.SnapshotType) (Outcome, error) {
	began := time.Now()
	if err := w.job(ctx, fmt.Sprintf("%s %s", t, source)); err != nil {
		return Outcome{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		if err := w.fail(source, t); err != nil {
			return Outcome{}, err
		}
	}
	if w.snaps == nil {
		w.snaps = map[string][]madeSnapshot{}
	}
	if len(w.snaps[source]) == 0 {
		t = snapshot.Full
	}
	w.snaps[source] = append(w.snaps[source], madeSnapshot{t, began})
	return Outcome{Result: events.OK, Type: string(t), Snapshot: uint64(len(w.snaps[source]))}, nil
}

func (w *fakeWork) Verify(ctx context.Context, _ *policy.Policy, source, level string) (Outcome, error) {
	if err := w.job(ctx, "verify "+source+" "+level); err != nil {
		return Outcome{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse {
		return Outcome{}, errors.New("may not read packs")
	}
	if w.proofs == nil {
		w.proofs = map[string]schedule.Proofs{}
	}
	p := w.proofs[source]
	if at := p.Of(level); at != nil {
		*at = schedule.Proof{At: time.Now()}
	}
	w.proofs[source] = p
	return Outcome{}, nil
}

func (w *fakeWork) Proofs(_ context.Context, _ *policy.Policy, source string) (schedule.Proofs, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dark {
		return schedule.Proofs{}, errors.New("no network")
	}
	return w.proofs[source], nil
}

func (w *fakeWork) Restore(ctx context.Context, _ *policy.Policy, r *approval.Request) (Outcome, error) {
	return Outcome{Snapshot: r.Snapshot}, w.job(ctx, "restore "+r.Source)
}

func (w *fakeWork) History(_ context.Context, _ *policy.Policy, source string) (h History, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dark {
		return h, errors.New("no network")
	}
	for i, s := range w.snaps[source] {
		h.Settled = h.Settled.Settle(s.t, s.at)
		h.Stored = h.Settled
		h.Sequence, h.Started = uint64(i)+1, s.at
	}
	return h, nil
}

func (w *fakeWork) did() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.ran...)
}

// change changes how the work goes while it goes on.
func (w *fakeWork) change(f func(w *fakeWork)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

func (w *fakeWork) when() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.begun...)
}

// fakeQueue delivers at least once: what was taken and not deleted comes again after its visibility is over.
type fakeQueue struct {
	mu       sync.Mutex
	messages map[string]*fakeMessage // by handle
	order    []string
	deleted  int
	twice    bool          // each message is delivered a second time although it was deleted
	down     error         // what Receive says
	failDel  int           // this many deletions fail
	news     chan struct{} // of capacity one: there is something to look at
}

type fakeMessage struct {
	body   []byte
	hidden time.Time
	again  int
}

const fakeVisibility = time.Minute

func (q *fakeQueue) send(body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.messages == nil {
		q.messages = map[string]*fakeMessage{}
	}
	h := fmt.Sprint("m", len(q.order))
	q.messages[h] = &fakeMessage{body: body}
	q.order = append(q.order, h)
	nudge(q.heard())
}

// heard is the channel of news. The caller has locked mu.
func (q *fakeQueue) heard() chan struct{} {
	if q.news == nil {
		q.news = make(chan struct{}, 1)
	}
	return q.news
}

func (q *fakeQueue) sendJob(t *testing.T, job *events.Job) {
	t.Helper()
	body, err := events.EncodeJob(job)
	if err != nil {
		t.Fatal(err)
	}
	q.send(body)
}

// take returns the messages that can be seen now; until is when the next one can, or end.
func (q *fakeQueue) take(end time.Time) (out []Message, until time.Time, news <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down != nil {
		return nil, end, nil, q.down
	}
	now := time.Now()
	for _, h := range q.order {
		m := q.messages[h]
		switch {
		case m == nil:
		case now.Before(m.hidden):
			if m.hidden.Before(end) {
				end = m.hidden
			}
		default:
			m.hidden = now.Add(fakeVisibility)
			out = append(out, Message{Body: m.body, Handle: h})
		}
	}
	return out, end, q.heard(), nil
}

func (q *fakeQueue) Receive(ctx context.Context, wait time.Duration) ([]Message, error) {
	for end := time.Now().Add(wait); ; {
		out, until, news, err := q.take(end)
		if err != nil || len(out) > 0 || !time.Now().Before(end) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-news:
		case <-time.After(time.Until(until)):
		}
	}
}

func (q *fakeQueue) Delete(_ context.Context, handle string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failDel > 0 {
		q.failDel--
		return errors.New("delete: no network")
	}
	m := q.messages[handle]
	if m != nil && q.twice && m.again == 0 {
		m.again++
		m.hidden = time.Now().Add(time.Second)
		return nil
	}
	delete(q.messages, handle)
	q.deleted++
	return nil
}

func (q *fakeQueue) breaks(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = err
	nudge(q.heard())
}

func (q *fakeQueue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// fakeBus keeps what arrives.
type fakeBus struct {
	mu   sync.Mutex
	got  []journal.Event
	down error
	each func(e journal.Event) error
}

func (b *fakeBus) Put(_ context.Context, list []journal.Event) ([]error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return nil, b.down
	}
	out := make([]error, len(list))
	for i, e := range list {
		if b.each != nil {
			out[i] = b.each(e)
		}
		if out[i] == nil {
			b.got = append(b.got, e)
		}
	}
	return out, nil
}

func (b *fakeBus) of(kind string) (out []journal.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.got {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

func (b *fakeBus) finished(t *testing.T) (out []*events.JobFinished) {
	t.Helper()
	for _, e := range b.of(events.TypeJobFinished) {
		f, err := events.DecodeJobFinished([]byte(e.Detail))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func (b *fakeBus) refused(t *testing.T) map[events.RefuseCode]int {
	t.Helper()
	out := map[events.RefuseCode]int{}
	for _, e := range b.of(events.TypeJobRefused) {
		r, err := events.DecodeJobRefused([]byte(e.Detail))
		if err != nil {
			t.Fatal(err)
		}
		out[r.Code]++
	}
	return out
}

// bench is an agent with everything around it, in a bubble of its own time.
type bench struct {
	t      *testing.T
	dir    string
	policy string
	work   *fakeWork
	queue  *fakeQueue // nil: there is none
	bus    *fakeBus
	change func(*Config)
	reload chan struct{}
	// every is how often the agent looks at its schedule and at its policy file; 0: as always. It does so thousands of times
	// a day, which a test of many days has no time for.
	every time.Duration

	stop context.CancelFunc
	done chan error
	j    *journal.Journal
	a    *Agent
}

const hourly = `version: 1
repository: {primary: /srv/repo}
hosts:
  h:
    restore: {targets: [/srv/restore]}
    sources:
      etc:
        files: {roots: [/etc]}
        schedule: {full: "0 2 1 * *", incremental: "0 * * * *", jitter: 0s}
        objectives: {rpo: 2h}
`

func newBench(t *testing.T, text string) *bench {
	t.Helper()
	b := &bench{t: t, dir: memory(t), work: &fakeWork{}, bus: &fakeBus{}, reload: make(chan struct{})}
	b.policy = filepath.Join(b.dir, "policy.yaml")
	b.write(text)
	return b
}

// memory is a directory in memory, where a machine has that: an agent of some days waits for the disk ten thousand times.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-agent-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (b *bench) write(text string) {
	b.t.Helper()
	if err := os.WriteFile(b.policy, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) agent() *Agent {
	b.t.Helper()
	p, err := LoadPolicies(b.policy, "h")
	if err != nil {
		b.t.Fatal(err)
	}
	if b.j, err = journal.Open(filepath.Join(b.dir, "agent"), time.Now()); err != nil {
		b.t.Fatal(err)
	}
	c := Config{Host: "h", Version: "test", Policies: p, Journal: b.j, Work: b.work, Bus: b.bus, Reload: b.reload, Watch: b.every, Log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(b.t.Output(), nil))
	}
	if b.queue != nil {
		c.Feeds = append(c.Feeds, &QueueFeed{Queue: b.queue, Name: "q"})
	}
	c.Feeds = append(c.Feeds, &ScheduleFeed{Host: "h", Policies: p, Journal: b.j, Work: b.work, Remote: b.queue != nil, Every: b.every})
	if b.change != nil {
		b.change(&c)
	}
	b.a = New(c)
	return b.a
}

// start runs an agent until end.
func (b *bench) start() {
	b.t.Helper()
	a := b.agent()
	ctx, stop := context.WithCancel(context.Background())
	b.stop, b.done = stop, make(chan error, 1)
	go func() { b.done <- a.Run(ctx) }()
	synctest.Wait()
}

func (b *bench) end() {
	b.t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		b.t.Fatal(err)
	}
	if err := b.j.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// job is the job that the control plane would send for a run due now.
func (b *bench) job(source, typ string) *events.Job {
	now := time.Now().UTC().Truncate(time.Second)
	return &events.Job{
		Version: 1, ID: events.JobID("/srv/repo", "h/"+source, now, "backup", typ), Host: "h", Source: source,
		Kind: events.Backup, Type: typ, Due: now, NotAfter: now.Add(time.Hour),
	}
}

// run is the job of the schedule itself, as the function coordinate would send it too.
func (b *bench) due(source string) *events.Job {
	h, _ := b.work.History(context.Background(), nil, source)
	run, due, _ := schedule.Due(b.a.Policies.Current(), snapshot.Source{Host: "h", Name: source}, h.Settled, time.Now())
	if !due {
		b.t.Fatal("nothing is due")
	}
	return &events.Job{
		Version: 1, ID: run.ID, Host: "h", Source: source, Kind: events.Backup, Type: string(run.Type),
		Due: run.Due, NotAfter: run.NotAfter,
	}
}
