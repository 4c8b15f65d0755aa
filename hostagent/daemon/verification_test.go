package daemon

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/schedule"
)

const verified = hourly + `        verification: {content: 7d, restore: 30d}
`

// verifications are those that ran.
func (w *fakeWork) verifications() []string {
	return slices.DeleteFunc(w.did(), func(what string) bool { return !strings.HasPrefix(what, "verify") })
}

// TestVerifiesByItself runs an agent without AWS for seventeen days.
func TestVerifiesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hours = 17*24 + 4
		b := newBench(t, strings.Replace(verified, "content: 7d, restore: 30d", "content: 2d, restore: 8d", 1))
		b.change, b.every = func(c *Config) { c.Bus = nil }, 5*time.Minute
		b.start()
		pass(hours * time.Hour)
		b.end()
		content, restore := 0, 0
		for _, what := range b.work.verifications() {
			switch what {
			case "verify etc content":
				content++
			case "verify etc restore":
				restore++
			}
		}
		if content < 9 || content > 11 || restore < 2 || restore > 3 {
			t.Errorf("%d by content, %d by restore", content, restore)
		}
		if n := len(b.work.did()) - content - restore; n < hours {
			t.Errorf("%d backups beside", n)
		}
	})
}

// TestVerificationThatFails is tried again a day later, and not before.
func TestVerificationThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, strings.Replace(verified, ", restore: 30d", "", 1))
		b.work.refuse, b.every = true, 5*time.Minute
		b.start()
		pass(5*24*time.Hour + time.Hour)
		b.end()
		if n := len(b.work.verifications()); n < 5 || n > 6 {
			t.Errorf("%d attempts in five days", n)
		}
	})
}

// TestVerificationGivesWay: one that takes hours is in no backup's way, and is made when there is time.
func TestVerificationGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, strings.Replace(verified, ", restore: 30d", "", 1)) // an rpo of two hours
		b.work.takesOf = map[string]time.Duration{"verify etc content": 100 * time.Minute, "incremental etc": 6 * time.Minute}
		b.start()
		pass(9 * time.Hour)
		if n := len(b.work.verifications()); n < 5 || !b.work.proofs["etc"].Content.At.IsZero() {
			t.Errorf("it was begun %d times", n)
		}
		// While it waits, heartbeats say that it does: the control plane must not take it for lost.
		told := false
		for _, e := range b.bus.of(events.TypeHeartbeat) {
			h, err := events.DecodeHeartbeat([]byte(e.Detail))
			if err != nil {
				t.Fatal(err)
			}
			told = told || h.Running != nil && h.Running.Kind == events.Backup && len(h.Queued) > 0
		}
		if !told {
			t.Error("no heartbeat tells of the verification that waits")
		}
		b.work.change(func(w *fakeWork) { w.takesOf["verify etc content"] = 50 * time.Minute })
		pass(3 * time.Hour)
		if b.work.proofs["etc"].Content.At.IsZero() {
			t.Error("it was never made")
		}
		backups := 0
		for i, what := range b.work.did() {
			if strings.HasPrefix(what, "verify") {
				continue
			}
			backups++
			if at := b.work.when()[i]; at.Sub(at.Truncate(time.Hour)) > 31*time.Minute {
				t.Errorf("%s began at %s", what, at)
			}
		}
		if backups < 12 {
			t.Errorf("%d backups in twelve hours", backups)
		}
		b.end()
	})
}

// TestVerificationOfTheQueue has the control plane ask; what was done since is not done again.
func TestVerificationOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, strings.Replace(verified, ", restore: 30d", "", 1))
		b.queue = &fakeQueue{}
		b.start()
		b.queue.sendJob(t, b.due("etc"))
		pass(time.Minute)
		job := func(due time.Time) *events.Job {
			return &events.Job{
				Version: 1, ID: events.JobID("/srv/repo", "h/etc", due, "verify", "content"), Host: "h", Source: "etc",
				Kind: events.Verify, Type: schedule.Content, Due: due, NotAfter: due.Add(24 * time.Hour),
			}
		}
		due := time.Now().UTC().Truncate(time.Second)
		b.queue.sendJob(t, job(due))
		pass(time.Minute)
		b.queue.sendJob(t, job(due.Add(-time.Hour))) // due before, asked for later
		pass(time.Minute)
		if diff := cmp.Diff([]string{"verify etc content"}, b.work.verifications()); diff != "" {
			t.Error(diff)
		}
		for _, f := range b.bus.finished(t) {
			if f.Result != events.OK {
				t.Errorf("%+v", f)
			}
		}
		b.end()
	})
}

// TestTakesVerificationsOver: a control plane that does not ask is waited for, a day.
func TestTakesVerificationsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, strings.Replace(verified, ", restore: 30d", "", 1))
		b.queue, b.every = &fakeQueue{}, time.Minute
		b.start()
		pass(22 * time.Hour)
		if got := b.work.verifications(); len(got) > 0 {
			t.Errorf("%v after 22 hours", got)
		}
		pass(4 * time.Hour)
		if n := len(b.work.verifications()); n != 1 {
			t.Errorf("%d after 26 hours", n)
		}
		b.end()
	})
}

// TestForEver sends jobs whose ids would be remembered for ever.
func TestForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{}
		b.start()
		for _, until := range []time.Time{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Now().Add(events.MaxAhead + time.Hour)} {
			j := b.job("etc", "incremental")
			j.ID, j.NotAfter = events.JobID("x", "h/etc", until, "backup", "incremental"), until
			b.queue.sendJob(t, j)
			pass(time.Minute)
			if b.j.Known(j.ID) {
				t.Errorf("a job that may begin until %s is remembered", until)
			}
		}
		near := b.job("etc", "full")
		near.NotAfter = time.Now().Add(events.MaxAhead)
		b.queue.sendJob(t, near)
		pass(time.Minute)
		if got := b.bus.refused(t)[events.Malformed]; got != 2 || !b.j.Known(near.ID) {
			t.Errorf("%d refused, %v", got, b.bus.refused(t))
		}
		b.end()
	})
}
