package main

import (
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// unscheduled are sources that nobody backs up and that are to be verified.
const unscheduled = `
version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
limits: {concurrent: 1}
hosts:
  web-1:
    sources:
      etc: {files: {roots: [/etc]}, verification: {content: 30d, restore: 90d}}
      srv: {files: {roots: [/srv]}, verification: {content: 7d}}
      tmp: {files: {roots: [/tmp]}}
`

func (w *world) proves(src, level string, p schedule.Proof) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.proofs[src]
	*all.Of(level) = p
	w.proofs[src] = all
}

func (w *world) verified(src string) *control.SourceJobs {
	w.t.Helper()
	host, name, _ := strings.Cut(src, "/")
	return w.doc(host).Verify[name]
}

// TestVerifications follows the verifications of a host: one at a time, each closed by its receipt.
func TestVerifications(t *testing.T) {
	w := calm(t, unscheduled)
	w.must(w.tick())
	seen := map[string]bool{}
	for range 3 {
		j := w.one("web-1")
		if j.Kind != events.Verify || seen[j.Source+j.Type] || !j.NotAfter.After(w.clock) {
			t.Fatalf("%+v", j)
		}
		seen[j.Source+j.Type] = true
		w.tell(w.accepted(j))
		w.run(10 * time.Minute)
		if more := w.take("web-1"); len(more) > 0 {
			t.Fatalf("%d more while one is at work", len(more))
		}
		// The event alone proves nothing; with the receipt it does, and comes twice.
		w.proves("web-1/"+j.Source, j.Type, schedule.Proof{At: w.clock})
		w.tell(w.finished(j, events.OK, 0), w.finished(j, events.OK, 0))
		if v := w.verified("web-1/" + j.Source); v.Open != nil || v.State != control.StateOK || v.Last.Result != events.OK {
			t.Errorf("%+v", v)
		}
		w.run(2 * time.Hour)
	}
	for _, want := range []string{"etccontent", "etcrestore", "srvcontent"} {
		if !seen[want] {
			t.Errorf("%s was not asked for", want)
		}
	}
	if more := w.take("web-1"); len(more) > 0 {
		t.Errorf("%d more", len(more))
	}
	// A week on, one is due, and a person has made it meanwhile.
	w.proves("web-1/srv", schedule.Content, schedule.Proof{At: w.clock.Add(6 * 24 * time.Hour)})
	w.clock = w.clock.Add(7*24*time.Hour + time.Hour)
	w.run(2 * time.Hour)
	if more := w.take("web-1"); len(more) > 0 {
		t.Errorf("%+v", more[0])
	}
	if got := w.verified("web-1/srv").Proofs.Content.At; got.IsZero() || w.clock.Sub(got) > 2*24*time.Hour {
		t.Errorf("%s", got)
	}
}

// TestVerificationWithoutReceipt is not believed, tried again, and told when it is given up.
func TestVerificationWithoutReceipt(t *testing.T) {
	w := calm(t, strings.ReplaceAll(strings.ReplaceAll(unscheduled, ", restore: 90d", ""), "verification: {content: 7d}", "metrics: false"))
	w.must(w.tick())
	first := w.one("web-1")
	ids := map[string]bool{}
	for attempt := range 4 {
		j := first
		if attempt > 0 {
			w.run(4 * time.Hour)
			j = w.one("web-1")
		}
		ids[j.ID] = true
		result := events.OK
		if attempt%2 == 1 {
			result = events.Failed
		}
		w.tell(w.accepted(j), w.finished(j, result, 0))
	}
	v := w.verified("web-1/etc")
	if len(ids) != 4 || v.State != control.StateFailing || v.Open != nil || v.Proofs.Content.Tried.IsZero() {
		t.Errorf("%d attempts, %+v", len(ids), v)
	}
	// The next day it is tried anew, and it goes well.
	w.clock = w.clock.Add(24 * time.Hour)
	w.run(2 * time.Hour)
	j := w.one("web-1")
	w.proves("web-1/etc", schedule.Content, schedule.Proof{At: w.clock})
	w.tell(w.finished(j, events.OK, 0))
	if v := w.verified("web-1/etc"); v.State != control.StateOK || v.Failures != 0 {
		t.Errorf("%+v", v)
	}
}

// TestVerificationFindsDamage: it was made, whatever it found; receipts tell of the damage.
func TestVerificationFindsDamage(t *testing.T) {
	w := calm(t, unscheduled)
	w.must(w.tick())
	j := w.one("web-1")
	w.proves("web-1/"+j.Source, j.Type, schedule.Proof{At: w.clock.Add(time.Minute), Failed: true})
	w.clock = w.clock.Add(2 * time.Minute)
	w.tell(w.finished(j, events.Failed, 0))
	if v := w.verified("web-1/" + j.Source); v.Open != nil || v.State != control.StateOK || !v.Proofs.Of(j.Type).Failed {
		t.Errorf("%+v", v)
	}
}

// TestVerificationEventLost: nothing was heard of its end, and the receipt is there.
func TestVerificationEventLost(t *testing.T) {
	w := calm(t, unscheduled)
	w.must(w.tick())
	j := w.one("web-1")
	w.tell(w.accepted(j))
	w.proves("web-1/"+j.Source, j.Type, schedule.Proof{At: w.clock.Add(time.Minute)})
	w.run(30 * time.Minute)
	if v := w.verified("web-1/" + j.Source); v.Last == nil || v.Last.Job != j.ID || v.Last.Result != events.OK {
		t.Errorf("%+v", v)
	}
	// A heartbeat that names a verification keeps it from being lost.
	j = w.one("web-1")
	w.tell(w.accepted(j))
	for range 20 {
		w.run(5 * time.Minute)
		w.tell(w.event(events.TypeHeartbeat, events.Heartbeat{
			Version: 1, Host: "web-1", Agent: "1", Time: w.clock, Running: &events.RunningJob{Job: j.ID, Source: j.Source, Kind: j.Kind, Started: w.clock},
		}))
	}
	if v := w.verified("web-1/" + j.Source); v.Open == nil || v.Open.Losses > 0 || len(w.take("web-1")) > 0 {
		t.Errorf("%+v", v.Open)
	}
}

// TestVerificationNeedsNoSlot: the limit of backups at once is none of verifications.
func TestVerificationNeedsNoSlot(t *testing.T) {
	w := calm(t, strings.Replace(unscheduled, "tmp: {files: {roots: [/tmp]}", "tmp: {files: {roots: [/tmp]}, schedule: {incremental: '0 * * * *', jitter: 0s}", 1))
	w.must(w.tick())
	kinds := map[events.JobKind]int{}
	for _, j := range w.take("web-1") {
		kinds[j.Kind]++
	}
	if kinds[events.Backup] != 1 || kinds[events.Verify] != 1 {
		t.Errorf("%v", kinds)
	}
	// No longer in the policy: nobody waits for it.
	w.use(hourly)
	w.tag = "2"
	w.run(2 * time.Minute)
	if all := w.doc("web-1").Verify; len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

// TestNothingToVerify: a source without a snapshot is not verified.
func TestNothingToVerify(t *testing.T) {
	w := calm(t, unscheduled)
	w.stored = map[string][]manifest{}
	w.run(2 * time.Hour)
	if jobs := w.take("web-1"); len(jobs) > 0 {
		t.Errorf("%+v", jobs[0])
	}
	w.put("web-1/srv", snapshot.Full, w.clock)
	w.run(2 * time.Hour)
	if j := w.one("web-1"); j.Source != "srv" || j.Kind != events.Verify {
		t.Errorf("%+v", j)
	}
}

// TestAnotherHostsName: whoever has the credentials of one host speaks in the name of another. It is not believed, and
// told of the one whose credentials they are.
func TestAnotherHostsName(t *testing.T) {
	w := calm(t, hourly+"  web-2:\n    sources:\n      etc: {files: {roots: [/etc]}}\n")
	w.must(w.tick())
	j := w.one("web-1")
	forge := func(body []byte) []byte {
		return []byte(strings.Replace(string(body), "holdfast.agent.web-1", "holdfast.agent.web-2", 1))
	}
	w.tell(forge(w.accepted(j)), forge(w.finished(j, events.Failed, 0)), forge(w.event(events.TypeHeartbeat, events.Heartbeat{Version: 1, Host: "web-1", Agent: "evil", Time: w.clock})))
	if h := w.doc("web-1"); !h.Sources["etc"].Open.Accepted.IsZero() || h.Agent != "" || len(h.Refused) > 0 {
		t.Errorf("%+v", h)
	}
	h := w.doc("web-2")
	if len(h.Refused) != 1 || h.Refused[0].Code != events.Forged || !strings.Contains(h.Refused[0].Reason, "web-1") || !h.Seen.IsZero() {
		t.Errorf("%+v", h)
	}
	// A host that is not in the policy gets no document.
	w.tell([]byte(strings.Replace(string(w.accepted(j)), "holdfast.agent.web-1", "holdfast.agent.web-9", 1)))
	if !w.source("web-1/etc").Open.Accepted.IsZero() {
		t.Error("believed")
	}
}
