package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/events"
)

// TestIDsOfRunsAreForeseen: whoever has the queue sends other things under the ids of runs to come. They run, and the
// backups are made all the same: the control plane can be lost, and it can be somebody else's, without costing one.
func TestIDsOfRunsAreForeseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue, b.every = &fakeQueue{}, time.Minute
		b.start()
		pass(3 * time.Hour) // it has its first snapshot, by itself
		if got := b.work.did(); len(got) == 0 {
			t.Fatal("no backup at all")
		}
		now := time.Now().UTC().Truncate(time.Hour)
		for n := range 48 {
			due := now.Add(time.Duration(n+1) * time.Hour)
			first := events.JobID("/srv/repo", "h/etc", due, "backup", "incremental")
			long := due.Add(48 * time.Hour)
			b.queue.sendJob(t, &events.Job{
				Version: 1, ID: first, Host: "h", Source: "etc", Kind: events.Verify, Type: "structure", Due: now, NotAfter: long,
			})
			// Nothing to do for this one: it was due long ago.
			b.queue.sendJob(t, &events.Job{
				Version: 1, ID: events.RetryID(first, 1), Host: "h", Source: "etc", Kind: events.Backup, Type: "incremental",
				Due: now.Add(-24 * time.Hour), NotAfter: long,
			})
		}
		pass(36 * time.Hour)
		made := 0
		for _, what := range b.work.did() {
			if what == "incremental etc" {
				made++
			}
		}
		// The agent waits for its turn until the objective of two hours is used up.
		if made < 12 {
			t.Errorf("%d backups in 36 hours: %v", made, b.work.did()[:min(20, len(b.work.did()))])
		}
		b.end()
	})
}
