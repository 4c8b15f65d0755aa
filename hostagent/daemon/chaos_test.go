package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
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

var (
	seed   = flag.Uint64("seed", 1, "first of the seeds of the random worlds")
	worlds = flag.Uint64("worlds", 3, "how many there are; make soak asks for many")
)

var errDead = errors.New("the process is dead")

// mortal is what connects one process to the world. Once it is dead, nothing that it does reaches the world any more:
// what kill -9 does to a real one.
type mortal struct {
	b    *bench
	dead atomic.Bool
	fuse atomic.Int64 // it dies at this call into the world, before or after the world hears it; counted down
	disk atomic.Pointer[[]byte]
}

// gone reports whether the process is dead by now.
func (m *mortal) gone() bool {
	if m.fuse.Add(-1) == 0 {
		m.die()
	}
	return m.dead.Load()
}

// die lets the process end at this very moment. The disk keeps what it has now.
func (m *mortal) die() {
	m.dead.Store(true)
	image, err := os.ReadFile(filepath.Join(m.b.dir, "agent", "journal"))
	if err != nil {
		panic(err)
	}
	m.disk.CompareAndSwap(nil, &image)
}

func (m *mortal) Receive(ctx context.Context, wait time.Duration) ([]Message, error) {
	if m.gone() {
		return nil, errDead
	}
	return m.b.queue.Receive(ctx, wait)
}

func (m *mortal) Delete(ctx context.Context, handle string) error {
	if m.gone() {
		return errDead
	}
	err := m.b.queue.Delete(ctx, handle)
	m.gone() // or right after
	return err
}

func (m *mortal) Put(ctx context.Context, list []journal.Event) ([]error, error) {
	if m.gone() {
		return nil, errDead
	}
	return m.b.bus.Put(ctx, list)
}

func (m *mortal) Backup(ctx context.Context, p *policy.Policy, source string, t snapshot.SnapshotType) (Outcome, error) {
	if m.gone() {
		return Outcome{}, errDead
	}
	return m.b.work.Backup(ctx, p, source, t)
}

func (m *mortal) Proofs(ctx context.Context, p *policy.Policy, source string) (schedule.Proofs, error) {
	return m.b.work.Proofs(ctx, p, source)
}

func (m *mortal) Verify(ctx context.Context, p *policy.Policy, source, level string) (Outcome, error) {
	return m.b.work.Verify(ctx, p, source, level)
}

func (m *mortal) Restore(ctx context.Context, p *policy.Policy, r *approval.Request) (Outcome, error) {
	return m.b.work.Restore(ctx, p, r)
}

func (m *mortal) History(ctx context.Context, p *policy.Policy, source string) (History, error) {
	if m.gone() {
		return History{}, errDead
	}
	return m.b.work.History(ctx, p, source)
}

// bury puts back what the disk had when the process died.
func (b *bench) bury(m *mortal) {
	b.t.Helper()
	b.end() // what is left of it ends; it reaches nobody
	if err := os.WriteFile(filepath.Join(b.dir, "agent", "journal"), *m.disk.Load(), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// live starts a process that dies at one of its calls into the world; 0: it does not.
func (b *bench) live(fuse int64) *mortal {
	b.t.Helper()
	m := &mortal{b: b}
	m.fuse.Store(fuse)
	b.change = func(c *Config) {
		c.Work, c.Bus, c.Grace = m, m, -1
		c.Feeds = []Feed{
			&QueueFeed{Queue: m, Name: "q"},
			&ScheduleFeed{Host: "h", Policies: c.Policies, Journal: c.Journal, Work: m, Remote: true},
		}
	}
	b.start()
	return m
}

const chaotic = `version: 1
repository: {primary: /srv/repo}
hosts:
  h:
    sources:
      s0: {files: {roots: [/a]}, schedule: {incremental: "*/20 * * * *", jitter: 0s}, objectives: {rpo: 1h}}
      s1: {files: {roots: [/b]}, schedule: {full: "0 * * * *", jitter: 0s}, objectives: {rpo: 2h}}
      s2: {files: {roots: [/c]}}
`

// TestChaos kills agents at random moments of random worlds, in which queue and bus fail now and then, and messages come
// twice. In the end each job that could run is answered, always with the same answer, and each refusal has one report.
func TestChaos(t *testing.T) {
	for i := range *worlds {
		t.Run(fmt.Sprint("seed ", *seed+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(*seed+i, 3))) })
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	b := newBench(t, chaotic)
	b.queue = &fakeQueue{twice: r.IntN(2) == 0}
	b.work.takes = 40 * time.Second
	var good, bad []*events.Job
	m := b.live(0)
	deaths := 0
	for step := range 150 {
		switch r.IntN(8) {
		case 0, 1:
			j := b.job(fmt.Sprint("s", r.IntN(3)), []string{"full", "incremental"}[r.IntN(2)])
			j.ID = events.RetryID(j.ID, step)
			good = append(good, j)
			b.queue.sendJob(t, j)
		case 2:
			if len(good) > 0 {
				b.queue.sendJob(t, good[r.IntN(len(good))])
			}
		case 3:
			j := b.job("s0", "full")
			j.ID, j.Host = events.RetryID(j.ID, step), "other"
			bad = append(bad, j)
			b.queue.sendJob(t, j)
		case 4:
			down := []error{nil, errors.New("no network")}[r.IntN(2)]
			b.queue.breaks(down)
			b.bus.mu.Lock()
			b.bus.down = down
			b.bus.mu.Unlock()
		case 5:
			m.die()
		}
		pass(time.Duration(r.IntN(90_000)) * time.Millisecond)
		if m.dead.Load() {
			b.bury(m)
			deaths++
			m = b.live(int64(r.IntN(40)))
		}
	}
	b.queue.breaks(nil)
	b.bus.mu.Lock()
	b.bus.down = nil
	b.bus.mu.Unlock()
	m.die()
	b.bury(m)
	b.live(0)
	pass(3 * time.Hour)
	for range 10 { // the schedule may have begun something just now
		if len(b.j.Waiting()) > 0 {
			pass(20 * time.Second)
		}
	}
	b.end()
	if b.work.most != 1 && deaths == 0 {
		t.Errorf("%d jobs at a time", b.work.most)
	}
	if n := b.queue.left(); n != 0 {
		t.Errorf("%d messages left", n)
	}
	if w := len(b.j.Waiting()); w != 0 {
		t.Errorf("%d jobs left", w)
	}
	answered(t, b, good, bad)
	t.Logf("%d deaths, %d good jobs, %d bad, %d runs, %d events", deaths, len(good), len(bad), len(b.work.did()), len(b.bus.got))
}

// answered looks at what the world was told of each job.
func answered(t *testing.T, b *bench, good, bad []*events.Job) {
	t.Helper()
	told := map[string]map[string]bool{} // by type and job: the different things that were said
	note := func(key, detail string) {
		if told[key] == nil {
			told[key] = map[string]bool{}
		}
		told[key][detail] = true
	}
	for _, e := range b.bus.got {
		switch e.Type {
		case events.TypeJobFinished:
			f, err := events.DecodeJobFinished([]byte(e.Detail))
			if err != nil {
				t.Fatal(err)
			}
			note("finished "+f.Job, e.Detail)
		case events.TypeJobRefused:
			f, err := events.DecodeJobRefused([]byte(e.Detail))
			if err != nil {
				t.Fatal(err)
			}
			note(string(f.Code)+" "+f.Job, e.Detail)
		}
	}
	for key, details := range told {
		if len(details) != 1 {
			t.Errorf("%s: told %d different things: %v", key, len(details), details)
		}
	}
	for _, j := range good {
		// One that waited in the queue for too long, while the network was away, is stale.
		if len(told["finished "+j.ID])+len(told["stale "+j.ID]) == 0 {
			t.Errorf("job %s of %s: nobody was told how it ended", j.ID, j.Due)
		}
	}
	for _, j := range bad {
		if len(told["foreign "+j.ID])+len(told["stale "+j.ID]) != 1 {
			t.Errorf("foreign job %s: %d reports", j.ID, len(told["foreign "+j.ID]))
		}
	}
}
