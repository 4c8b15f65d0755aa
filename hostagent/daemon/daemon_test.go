package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestBuiltInSchedule runs an agent without AWS for half a day.
func TestBuiltInSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.change = func(c *Config) { c.Bus = nil }
		b.start()
		pass(12*time.Hour + time.Minute)
		b.end()
		// Midnight of the first is also when the bubble begins: first the full that was missed before, then one an hour,
		// and at two o'clock the full of this month.
		ran := b.work.did()
		if len(ran) != 13 || ran[0] != "full etc" || ran[1] != "incremental etc" || ran[2] != "full etc" {
			t.Errorf("%d: %q", len(ran), ran)
		}
		if b.work.most != 1 {
			t.Errorf("%d jobs at a time", b.work.most)
		}
	})
}

// TestMissedRunsAreMadeUpOnce has the host off for three days.
func TestMissedRunsAreMadeUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.start()
		pass(3*time.Hour + time.Minute)
		b.end()
		before := len(b.work.did())
		time.Sleep(72 * time.Hour)
		b.start()
		pass(time.Minute)
		b.end()
		if n := len(b.work.did()) - before; n != 1 {
			t.Errorf("%d runs after three days off", n)
		}
	})
}

func TestJobOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{}
		b.start()
		b.queue.sendJob(t, b.job("etc", "full"))
		pass(30 * time.Second)
		b.end()
		if diff := cmp.Diff([]string{"full etc"}, b.work.did()); diff != "" {
			t.Error(diff)
		}
		if b.queue.left() != 0 {
			t.Error("the message is still there")
		}
		var kinds []string
		for _, e := range b.bus.got {
			kinds = append(kinds, strings.TrimPrefix(e.Type, "Holdfast "))
		}
		if diff := cmp.Diff([]string{"Heartbeat", "Job Accepted", "Job Finished"}, kinds); diff != "" {
			t.Error(diff)
		}
		f := b.bus.finished(t)[0]
		if f.Result != events.OK || f.Snapshot != 1 || f.Type != "full" || f.Source != "etc" || f.Due.IsZero() {
			t.Errorf("%+v", f)
		}
	})
}

// TestEachRefusalOnce sends everything that must not run, several times over, and looks that each is reported once and
// that a good job between them runs.
func TestEachRefusalOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{twice: true, failDel: 3}
		b.start()
		foreign, stale, unknown := b.job("etc", "full"), b.job("etc", "differential"), b.job("nosuch", "full")
		foreign.Host = "other"
		stale.Due, stale.NotAfter = stale.Due.Add(-2*time.Hour), stale.Due.Add(-time.Hour)
		good := b.job("etc", "incremental")
		for range 3 {
			for _, j := range []*events.Job{foreign, stale, unknown, good} {
				b.queue.sendJob(t, j)
			}
			b.queue.send([]byte(`{"version":1,"hook":"rm -rf /"}`))
			body, err := events.EncodeJob(good)
			if err != nil {
				t.Fatal(err)
			}
			b.queue.send([]byte(strings.Replace(string(body), `"kind"`, `"command":"sh","kind"`, 1)))
			b.queue.send([]byte("\x00\xff"))
			pass(2 * time.Minute)
		}
		b.end()
		want := map[events.RefuseCode]int{
			events.Foreign: 1, events.Stale: 1, events.UnknownSource: 1, events.Malformed: 3, events.Duplicate: 1,
		}
		if diff := cmp.Diff(want, b.bus.refused(t)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"incremental etc"}, b.work.did()); diff != "" {
			t.Error(diff)
		}
		if b.queue.left() != 0 {
			t.Errorf("%d messages are still there", b.queue.left())
		}
		// A message that came again was answered with the result, which may have been lost.
		if n := len(b.bus.finished(t)); n < 2 {
			t.Errorf("%d results", n)
		}
	})
}

// TestARefusedIDRunsWhenItIsRight sends a job to the wrong host first: that must not keep the right one from running.
func TestARefusedIDRunsWhenItIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{}
		b.start()
		right := b.job("etc", "full")
		wrong := *right
		wrong.Host = "other"
		b.queue.sendJob(t, &wrong)
		pass(10 * time.Second)
		b.queue.sendJob(t, right)
		pass(10 * time.Second)
		b.end()
		if n := len(b.work.did()); n != 1 {
			t.Errorf("%d ran", n)
		}
	})
}

// TestSilentControlPlane loses the control plane: the agent takes over before the objective is missed, and gives way
// again.
func TestSilentControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly) // rpo 2h: three quarters of it are 90 minutes, a quarter 30
		b.queue = &fakeQueue{}
		b.start()
		for range 3 { // the control plane asks each hour
			b.queue.sendJob(t, b.due("etc"))
			pass(time.Hour)
		}
		if n := len(b.work.did()); n != 3 {
			t.Fatalf("%d runs while the control plane asked", n)
		}
		b.queue.breaks(errors.New("no network"))
		pass(9 * time.Hour)
		begun := b.work.when()
		previous := begun[2]
		for _, at := range begun[3:] {
			if gap := at.Sub(previous); gap > 2*time.Hour || gap < time.Hour {
				t.Errorf("%s between two backups", gap)
			}
			previous = at
		}
		if n := len(begun); n < 3+4 { // at most two hours apart
			t.Errorf("%d runs, nine hours of silence among them", n)
		}
		// It is back.
		b.queue.breaks(nil)
		next := func() {
			pass(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Second)))
			b.queue.sendJob(t, b.due("etc"))
			pass(time.Minute)
		}
		next()
		count := len(b.work.did())
		for range 3 {
			next()
		}
		b.end()
		if n := len(b.work.did()) - count; n != 3 {
			t.Errorf("%d runs for three jobs", n)
		}
	})
}

// TestControlPlaneHasItsReasons: other jobs come, only this source is not asked for. The objective is waited for.
func TestControlPlaneHasItsReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly+"      app:\n        files: {roots: [/app]}\n")
		b.queue = &fakeQueue{}
		b.start()
		b.queue.sendJob(t, b.due("etc"))
		pass(time.Minute)
		for range 8 { // every half hour a job for the other source
			pass(30 * time.Minute)
			j := b.job("app", "incremental")
			b.queue.sendJob(t, j)
		}
		b.end()
		var at []time.Time
		for i, what := range b.work.did() {
			if strings.HasSuffix(what, " etc") {
				at = append(at, b.work.begun[i])
			}
		}
		if len(at) < 2 || at[1].Sub(at[0]) < 2*time.Hour || at[1].Sub(at[0]) > 2*time.Hour+time.Minute {
			t.Errorf("%v", at)
		}
	})
}

// TestBothFire has queue and schedule ask for the same run: it is one backup, whichever comes first.
func TestBothFire(t *testing.T) {
	for _, sameID := range []bool{true, false} {
		t.Run(fmt.Sprint("same id ", sameID), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, hourly)
				b.queue = &fakeQueue{}
				b.start()
				order := b.due("etc")
				pass(3 * time.Minute) // the schedule has taken over: no snapshot at all, and two minutes of grace
				pass(time.Hour)
				if n := len(b.work.did()); n != 1 {
					t.Fatalf("%d runs of the schedule", n)
				}
				order.NotAfter = time.Now().Add(time.Hour)
				if !sameID {
					order.ID = events.RetryID(order.ID, 7)
				}
				b.queue.sendJob(t, order)
				pass(time.Minute)
				b.end()
				if n := len(b.work.did()); n != 1 {
					t.Errorf("%d backups", n)
				}
				if !sameID {
					f := b.bus.finished(t)
					if len(f) != 2 || f[1].Result != events.OK || f[1].Snapshot != 1 {
						t.Errorf("the second job is not answered with the snapshot of the first: %+v", f)
					}
				} else if diff := cmp.Diff(map[events.RefuseCode]int{events.Duplicate: 1}, b.bus.refused(t)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestFailuresAreTriedAgain has backups fail for a while.
func TestFailuresAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.work.fail = func(string, snapshot.SnapshotType) error { return errors.New("disk on fire") }
		b.start()
		pass(40 * time.Minute)
		if n := len(b.work.did()); n != 4 { // at once, after 5, 10 and 20 minutes more
			t.Errorf("%d attempts", n)
		}
		b.work.change(func(w *fakeWork) { w.fail = nil })
		pass(time.Hour)
		b.end()
		f := b.bus.finished(t)
		if f[0].Result != events.Failed || f[0].Error != "disk on fire" || f[len(f)-1].Result != events.OK {
			t.Errorf("%+v", f)
		}
	})
}

// TestBetterAnIncremental has only fulls fail.
func TestBetterAnIncremental(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.every = time.Minute
		b.start()
		pass(time.Hour + time.Minute) // 1 o'clock
		b.work.change(func(w *fakeWork) {
			w.fail = func(_ string, t snapshot.SnapshotType) error {
				if t == snapshot.Full {
					return errors.New("too large")
				}
				return nil
			}
		})
		pass(10 * time.Hour)
		b.end()
		n := 0
		for _, what := range b.work.did() {
			if what == "incremental etc" {
				n++
			}
		}
		if n < 7 {
			t.Errorf("%q", b.work.did())
		}
	})
}

// TestOrder has one job run while others come: a restore is first, then backups by tier, verifications last.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, `version: 1
`+approversYAML()+`
hosts:
  h:
    restore: {targets: [/srv/restore]}
    sources:
      a: {files: {roots: [/a]}, objectives: {tier: low}}
      b: {files: {roots: [/b]}, objectives: {tier: critical}}
      c: {files: {roots: [/c]}}
      d: {files: {roots: [/d]}, objectives: {tier: critical}}
`)
		b.queue = &fakeQueue{}
		b.work.takes = time.Minute
		b.start()
		b.queue.sendJob(t, b.job("c", "full"))
		pass(5 * time.Second)
		v := b.job("a", "full")
		v.ID, v.Kind, v.Type = events.RetryID(v.ID, 1), events.Verify, "content"
		b.queue.sendJob(t, v)
		for _, s := range []string{"a", "b", "d"} {
			b.queue.sendJob(t, b.job(s, "full"))
		}
		b.queue.sendJob(t, restoreJob(t, nil))
		pass(10 * time.Minute)
		b.end()
		want := []string{"full c", "restore h/etc", "full b", "full d", "full a", "verify a content"}
		if diff := cmp.Diff(want, b.work.did()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestNetworkAway keeps the bus away for two days: results come later, in order, heartbeats of a day.
func TestNetworkAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.every = time.Minute
		b.bus.down = errors.New("no network")
		b.start()
		pass(48 * time.Hour)
		// The agent is started again meanwhile.
		b.end()
		b.start()
		pass(time.Minute)
		b.bus.mu.Lock()
		b.bus.down = nil
		b.bus.mu.Unlock()
		pass(10 * time.Minute)
		b.end()
		if n := len(b.bus.finished(t)); n != len(b.work.did()) {
			t.Errorf("%d results of %d runs", n, len(b.work.did()))
		}
		if n := len(b.bus.of(events.TypeHeartbeat)); n < journal.MaxHeartbeats-1 || n > journal.MaxHeartbeats+3 {
			t.Errorf("%d heartbeats", n)
		}
		if !slices.IsSortedFunc(b.bus.got, func(x, y journal.Event) int { return x.Time.Compare(y.Time) }) {
			t.Error("not in order")
		}
		if left := b.j.Pending(10); len(left) > 0 {
			t.Errorf("%d wait", len(left))
		}
	})
}

// TestPoisonousEvent has one event that the bus never takes, and one that it takes the second time.
func TestPoisonousEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		refusals := 1
		b.bus.each = func(e journal.Event) error {
			if e.Type == events.TypeHeartbeat {
				return fmt.Errorf("%w: malformed", ErrNever)
			}
			if refusals--; refusals == 0 {
				return errors.New("throttled")
			}
			return nil
		}
		b.start()
		pass(10 * time.Minute)
		b.end()
		if n := len(b.bus.finished(t)); n != 1 || len(b.bus.of(events.TypeJobAccepted)) != 1 {
			t.Errorf("%d results", n)
		}
	})
}

func TestPanicIsTheJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		first := true
		b.work.before = func(context.Context, string) {
			if first {
				first = false
				panic("index out of range with a secret in it")
			}
		}
		b.start()
		pass(10 * time.Minute)
		b.end()
		f := b.bus.finished(t)
		if len(f) != 2 || f[0].Result != events.Failed || strings.Contains(f[0].Error, "secret") || f[1].Result != events.OK {
			t.Errorf("%+v", f)
		}
	})
}

func TestHeartbeatSaysWhatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly+"      app:\n        files: {roots: [/app]}\n")
		b.queue = &fakeQueue{}
		b.start()
		b.queue.sendJob(t, b.due("etc"))
		pass(time.Minute)
		b.work.change(func(w *fakeWork) { w.takes = 10 * time.Minute })
		app, etc := b.job("app", "full"), b.job("etc", "incremental")
		b.queue.sendJob(t, app)
		pass(10 * time.Second)
		b.queue.sendJob(t, etc)
		pass(4 * time.Minute)
		b.end()
		var last *events.Heartbeat
		for _, e := range b.bus.of(events.TypeHeartbeat) {
			h, err := events.DecodeHeartbeat([]byte(e.Detail))
			if err != nil {
				t.Fatal(err)
			}
			if h.Running != nil {
				last = h
			}
		}
		if last == nil || last.Running.Job != app.ID || !slices.Contains(last.Queued, etc.ID) || last.Sources["etc"].Snapshot != 1 || last.Agent != "test" {
			t.Errorf("%+v", last)
		}
	})
}
