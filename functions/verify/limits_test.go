package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// stored is how many bytes the packs have.
func (s *stage) stored() (bytes, largest int64) {
	for _, key := range repotest.Keys(s.Store, "/packs/") {
		body, _ := s.Store.Object(key)
		bytes, largest = bytes+int64(len(body)), max(largest, int64(len(body)))
	}
	return bytes, largest
}

// emitted are the newest metrics.
func (s *stage) emitted() map[string]float64 {
	s.t.Helper()
	out := map[string]float64{}
	for line := range bytes.Lines(s.metrics.Bytes()) {
		values, err := emf.Parse(line)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, v := range values {
			out[v.Name] = v.Value
		}
	}
	return out
}

// beat is how far ticks are apart where weeks go by: fewer than the schedule's make the same.
const beat, day = 6 * time.Hour, 24 * time.Hour

// TestLimitOfBytes reads no more in any month than is allowed, evenly, and says that it does not suffice.
func TestLimitOfBytes(t *testing.T) {
	s := newStage(t, 12)
	s.f.env.Period = 10 * 24 * time.Hour
	total, largest := s.stored()
	s.f.env.Bytes = int(total) // once in 31 days
	var read []int64
	laps := 0
	const month = 30 * day
	for n := range int(75 * day / beat) {
		out := s.tick()
		read, laps = append(read, out.Bytes), laps+out.Laps
		var sum int64
		for _, bytes := range read[max(0, n-int(month/beat)+1):] {
			sum += bytes
		}
		if most := total + 3*largest; sum > most {
			t.Fatalf("tick %d: %d bytes in 30 days, %d are allowed", n, sum, total)
		}
		s.Now = s.Now.Add(beat)
	}
	if laps != 2 {
		t.Errorf("%d laps in 75 days", laps)
	}
	got := s.emitted()
	if days := got[environment.MetricRereadDays]; days < 28 || days > 33 || got[environment.MetricRereadBehind] != 1 {
		t.Errorf("%v", got)
	}
	key := "period " + s.Source.String() + " " + string(tooLate)
	if !slices.Contains(s.findings(), key) {
		t.Errorf("%v", s.findings())
	}
	// Without the limit it is over with the next lap.
	s.f.env.Bytes = 0
	if out := s.tick(); out.Behind != 0 || slices.Contains(s.findings(), key) {
		t.Errorf("%+v, %v", out, s.findings())
	}
	if got := s.emitted(); got[environment.MetricRereadBehind] != 0 || got[environment.MetricRereadDays] != 0 {
		t.Errorf("%v", got)
	}
}

// TestMetricsAreKnown: what is emitted is what infrastructure knows of, and all of it.
func TestMetricsAreKnown(t *testing.T) {
	s := newStage(t, 1)
	s.tick()
	got := s.emitted()
	for _, m := range environment.Metrics() {
		if m.Function != environment.FunctionVerify {
			continue
		}
		if _, ok := got[m.Name]; !ok {
			t.Errorf("%s is not emitted", m.Name)
		}
		delete(got, m.Name)
	}
	if len(got) > 0 {
		t.Errorf("emitted and not known: %v", got)
	}
}

// deliver hands the ranges that were asked for to the function, in batches as SQS would, until none is left.
func (s *stage) deliver(size int) (invocations int) {
	s.t.Helper()
	for len(s.asked) > 0 {
		n := min(size, len(s.asked))
		var bodies []string
		for _, r := range s.asked[:n] {
			body, err := json.Marshal(r)
			if err != nil {
				s.t.Fatal(err)
			}
			bodies = append(bodies, string(body))
		}
		s.asked = s.asked[n:]
		if failed := s.batch(bodies...); len(failed) > 0 {
			s.t.Errorf("%v", failed)
		}
		if invocations++; invocations > 1000 {
			s.t.Fatal("it never ends")
		}
	}
	return invocations
}

// some is a range that was asked for and that has packs: the ids of packs are by chance, and so is what is in a range.
func (s *stage) some() events.Reread {
	s.t.Helper()
	for _, r := range s.asked {
		doc, _, err := statestore.Read[control.VerifyRange](s.t.Context(), s.state, control.VerifyRangeKey(s.Source, r.Lap, r.Range, r.Ranges))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, key := range repotest.Keys(s.Store, "/packs/") {
			_, id, err := layout.ParsePack(s.Source, key)
			if err != nil {
				s.t.Fatal(err)
			}
			if w := doc.Sweep; id.String() > w.Position && id.String() >= w.From && (w.To == "" || id.String() < w.To) {
				return r
			}
		}
	}
	s.t.Fatal("no range has packs")
	return events.Reread{}
}

// lap is the cursor of the source.
func (s *stage) lap() *control.SourceTour {
	s.t.Helper()
	c, _, err := statestore.Read[control.VerifyCursor](s.t.Context(), s.state, control.VerifyCursorKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Sources[s.Source.String()]
}

// ranges are the keys of the documents of ranges.
func (s *stage) ranges() (keys []string) {
	s.t.Helper()
	err := s.state.List(s.t.Context(), control.VerifyRangesPrefix, func(key string) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

// TestRanges reads a source in ranges: all packs once, receipts for all snapshots only when all are read, damage found at
// once.
func TestRanges(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprint("damaged ", damaged), func(t *testing.T) {
			s := newStage(t, 12)
			s.f.queue = s
			total, _ := s.stored()
			s.f.env.Range, s.f.env.RunBytes = int(total/5), 1
			s.tick() // the lap begins, and it is known how much there is to read
			s.f.env.RunBytes = 0
			if out := s.tick(); out.Laps != 0 || len(s.asked) < 4 || len(s.ranges()) != len(s.asked) {
				t.Fatalf("%+v, %d asked for", out, len(s.asked))
			}
			// The last that is read: the lap has begun with the first.
			key := slices.MaxFunc(repotest.Keys(s.Store, "/packs/"), func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
			if damaged {
				s.Store.Tamper(key, []byte("rot"))
			}
			// Each comes twice, and is read once.
			s.asked = append(s.asked, s.asked...)
			s.deliver(3)
			if n := len(s.receipts("bytes")); !damaged && n > 0 {
				t.Errorf("%d receipts before the end", n)
			}
			if damaged && !slices.Contains(s.findings(), "rotation "+key+" "+string(verify.SizeDiffers)) {
				t.Errorf("%v", s.findings())
			}
			out := s.tick()
			if out.Laps != 1 || len(s.ranges()) > 0 || s.lap().Split != nil {
				t.Errorf("%+v, %v", out, s.ranges())
			}
			if at := s.lap(); at.Packs != len(repotest.Keys(s.Store, "/packs/")) {
				t.Errorf("%d packs read of %d", at.Packs, len(repotest.Keys(s.Store, "/packs/")))
			}
			results := map[string]int{}
			for _, r := range s.receipts("bytes") {
				results[r]++
			}
			if results[record.Pass]+results[record.Fail] != 12 || (results[record.Fail] > 0) != damaged {
				t.Errorf("%v", results)
			}
		})
	}
}

// TestRangesWithinTheLimit: the allowance is shared, and none of it is exceeded by much.
func TestRangesWithinTheLimit(t *testing.T) {
	s := newStage(t, 40)
	s.f.queue = s
	total, largest := s.stored()
	s.f.env.Range, s.f.env.Bytes = int(total/4), int(3*total)
	var before int64
	var passed time.Duration
	for ; s.lapsDone() == 0; passed += beat {
		if passed > 40*day {
			t.Fatal("it never ends")
		}
		s.tick()
		s.deliver(10)
		read := s.readSoFar()
		if most := int64(float64(s.f.env.Bytes)*beat.Hours()/24/31) + 12*largest; passed > day && read-before > most {
			t.Fatalf("after %s: %d bytes, about %d are allowed", passed, read-before, most)
		}
		before = read
		s.Now = s.Now.Add(beat)
	}
	if passed < 6*day || passed >= 14*day {
		t.Errorf("%s for a third of a month's limit", passed)
	}
}

func (s *stage) lapsDone() uint64 {
	c, _, err := statestore.Read[control.VerifyCursor](s.t.Context(), s.state, control.VerifyCursorKey)
	if err != nil || c.Sources[s.Source.String()] == nil {
		return 0
	}
	return c.Sources[s.Source.String()].Laps
}

// readSoFar is what the lap and its ranges have read.
func (s *stage) readSoFar() int64 {
	s.t.Helper()
	read := s.lap().Lap.Bytes
	if s.lap().Split == nil {
		return read
	}
	for _, key := range s.ranges() {
		doc, _, err := statestore.Read[control.VerifyRange](s.t.Context(), s.state, key)
		if err != nil {
			s.t.Fatal(err)
		}
		read += doc.Sweep.Bytes
	}
	return read
}

// TestRangesAreLost: messages that never arrive are sent again, a document that is gone makes the lap one again, and
// messages about what is over do nothing.
func TestRangesAreLost(t *testing.T) {
	s := newStage(t, 8)
	s.f.queue = s
	total, _ := s.stored()
	s.f.env.Range, s.f.env.RunBytes = int(total/4), 1
	s.tick()
	s.f.env.RunBytes = 0
	s.tick()
	first := s.asked
	s.asked = nil
	s.Now = s.Now.Add(time.Hour)
	if s.tick(); len(s.asked) > 0 {
		t.Errorf("%d asked for again after an hour", len(s.asked))
	}
	s.Now = s.Now.Add(askAgain)
	if s.tick(); len(s.asked) != len(first) {
		t.Errorf("%d of %d asked for again", len(s.asked), len(first))
	}
	s.asked = nil
	key := s.ranges()[1]
	_, tag, err := s.state.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.state.Delete(t.Context(), key, tag); err != nil {
		t.Fatal(err)
	}
	s.f.env.Range = int(2 * total)
	if out := s.tick(); out.Laps != 1 || len(s.ranges()) > 0 {
		t.Errorf("%+v, %v", out, s.ranges())
	}
	s.asked = first
	s.deliver(10)
	if len(s.ranges()) > 0 {
		t.Error("a message about what is over left something")
	}
	// Rubbish goes to the dead letters; arrivals beside it are checked.
	failed := s.batch(`{"ranges":2,"range":2,"source":"a/b","lap":"2026-03-06T12:00:00Z"}`, `{"ranges":2,"range":1,"source":"..","lap":"2026-03-06T12:00:00Z"}`,
		event(layout.ManifestKey(s.ID(8))))
	if strings.Join(failed, ",") != "0,1" || s.receipts("structure")[8] != record.Pass {
		t.Errorf("%v", failed)
	}
}

// TestRangeIsTaken: one that another invocation is at is left alone; one of whom a crash left its lease is not for long.
func TestRangeIsTaken(t *testing.T) {
	s := newStage(t, 6)
	s.f.queue = s
	total, _ := s.stored()
	s.f.env.Range, s.f.env.RunBytes = int(total/3), 1
	s.tick()
	s.f.env.RunBytes = 0
	s.tick()
	r := s.asked[0]
	key := control.VerifyRangeKey(s.Source, r.Lap, r.Range, r.Ranges)
	err := statestore.Update(t.Context(), s.state, key, func(d *control.VerifyRange) error {
		d.Busy = control.Lease{Owner: "another", Until: s.Now.Add(10 * time.Minute)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.asked = []events.Reread{r}
	s.deliver(1)
	if doc, _, err := statestore.Read[control.VerifyRange](t.Context(), s.state, key); err != nil || doc.Done || doc.Sweep.Packs > 0 {
		t.Errorf("%+v, %v", doc, err)
	}
	s.Now = s.Now.Add(11 * time.Minute)
	s.asked = []events.Reread{r}
	s.deliver(1)
	if doc, _, err := statestore.Read[control.VerifyRange](t.Context(), s.state, key); err != nil || !doc.Done || doc.Busy.Owner != "" {
		t.Errorf("%+v, %v", doc, err)
	}
}

// TestCopy reads a replica: receipts say so.
func TestCopy(t *testing.T) {
	s := newStage(t, 2)
	s.f.env.Copy = "s3://replica?region=eu-west-1"
	s.tick()
	n := 0
	for _, key := range repotest.Keys(s.Store, "/receipts/cloud/") {
		var r record.Receipt
		if _, err := s.Open(t, s.Store).Document(t.Context(), key, &r); err != nil {
			t.Fatal(err)
		}
		if r.Level == "bytes" && r.Copy == s.f.env.Copy && r.Result == record.Pass {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d receipts that name the copy", n)
	}
}

// FuzzReread takes a message for a range only if it names one, and never for the event of a manifest.
func FuzzReread(f *testing.F) {
	f.Add([]byte(event("v1/web/app/snapshots/0000000001.json")))
	f.Add([]byte(`{"version":1,"source":"web/app","lap":"2026-03-06T12:00:00Z","range":1,"ranges":2,"bytes":7}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := reread(body)
		if err != nil || r == nil {
			return
		}
		if r.Range < 0 || r.Range >= r.Ranges || r.Bytes < 0 || r.Lap.IsZero() {
			t.Errorf("%+v of %q", r, body)
		}
		if _, ok, err := arrived(body); ok && err == nil {
			t.Errorf("both of %q", body)
		}
	})
}

// TestRangeWithoutTime: where the time of an invocation is up before anything is read, a range does not ask for itself again:
// it would do so for ever, and each time costs. It fails instead, and the queue tries it again later and not too often.
func TestRangeWithoutTime(t *testing.T) {
	s := newStage(t, 12)
	s.f.queue = s
	total, _ := s.stored()
	s.f.env.Range, s.f.env.RunBytes = int(total/5), 1
	s.tick()
	s.f.env.RunBytes = 0
	s.tick()
	if len(s.asked) == 0 {
		t.Fatal("nothing is read in ranges")
	}
	r := s.some()
	s.asked = nil
	repo, err := s.Repository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := s.f.readRange(ctx, repo, &r, math.MaxInt); err == nil || len(s.asked) != 0 {
		t.Errorf("%v, asked for again: %v", err, s.asked)
	}
	if err := s.f.readRange(ctx, repo, &r, 1); err != nil || len(s.asked) != 0 {
		t.Errorf("%v, asked for again: %v", err, s.asked)
	}
}
