package main

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// fleet is a policy of so many hosts with sources each, all due at the full hour.
func fleet(hosts, sources int) string {
	var b strings.Builder
	b.WriteString("version: 1\nrepository: {primary: \"s3://bucket?region=eu-central-1\"}\nhosts:\n")
	for h := range hosts {
		fmt.Fprintf(&b, "  host-%04d:\n    sources:\n", h)
		for s := range sources {
			fmt.Fprintf(&b, "      s%02d: {files: {roots: [/srv/%d]}, schedule: {full: \"0 3 1 * *\", incremental: \"0 * * * *\"}}\n", s, s)
		}
	}
	return b.String()
}

// fleetHosts is a part of the ten thousand sources that a fleet may have: what a host costs does not depend on how many there are.
var fleetHosts = flag.Int("hosts", 300, "hosts of the fleet whose requests are counted; 1000 for all of it")

// TestRequestsOfAFleet lets an hour of hosts with ten hourly sources each pass, minute by minute, and counts what AWS would
// charge for.
func TestRequestsOfAFleet(t *testing.T) {
	const sources, hours = 10, 1
	hosts := *fleetHosts
	text := fleet(hosts, sources)
	began := cpu(t)
	if _, err := policy.Parse([]byte(text)); err != nil {
		t.Fatal(err)
	}
	t.Logf("reading a policy of %d KiB takes %s of processor time", len(text)>>10, (cpu(t) - began).Round(time.Millisecond))

	w := calm(t, text)
	w.fn.shardHosts = (hosts + 1) / 2
	w.clock = w.clock.Add(-30 * time.Minute)
	w.must(w.tick()) // two shards
	invocations, slowest := 1, time.Duration(0)
	minute := func() (asked int) {
		w.clock = w.clock.Add(time.Minute)
		w.own = nil
		w.must(w.tick())
		invocations++
		for _, tick := range w.own {
			began := cpu(t)
			s, err := w.fn.tick(t.Context(), &tick)
			if err != nil {
				t.Fatal(err)
			}
			invocations++
			slowest = max(slowest, cpu(t)-began)
			asked += s.Asked
		}
		return asked
	}
	for range 20 { // whatever the first looks had to do
		minute()
	}
	gets, puts, looks := w.state.Count(memstate.Get), w.state.Count(memstate.Put), w.looked
	invocations, slowest = 0, 0
	jobs, batches := 0, 0
	for range hours * 60 {
		jobs += minute()
		w.finishAll(t, &batches)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	gets, puts, looks = w.state.Count(memstate.Get)-gets, w.state.Count(memstate.Put)-puts, w.looked-looks
	t.Logf("%d hours: %d jobs, %d invocations by ticks and %d by events; state: %d reads, %d writes; repository: %d requests",
		hours, jobs, invocations, batches, gets, puts, looks)
	t.Logf("per job: %.2f reads, %.2f writes, %.2f requests to the repository; the slowest tick of a shard took %s of processor time; heap %d MiB",
		float64(gets)/float64(jobs), float64(puts)/float64(jobs), float64(looks)/float64(jobs), slowest.Round(time.Millisecond), memory.HeapSys>>20)
	if jobs != hours*hosts*sources {
		t.Errorf("%d jobs, want %d", jobs, hours*hosts*sources)
	}
	// A job is written down, and its end, with others of its host where they come together; and one look shows its snapshot.
	if gets > 4*jobs || puts > 3*jobs || looks > jobs {
		t.Error("more requests than planned for")
	}
	if slowest > 20*time.Second {
		t.Errorf("a tick takes %s", slowest)
	}
}

// cpu returns the processor time that the process has used, which does not depend on what else the machine does.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// finishAll lets all agents finish what is in their queues, and tells of it in batches of ten.
func (w *world) finishAll(t *testing.T, batches *int) {
	t.Helper()
	var bodies [][]byte
	for host := range w.p.Hosts {
		for _, j := range w.take(host) {
			src := snapshot.Source{Host: host, Name: j.Source}
			n := w.put(src.String(), snapshot.SnapshotType(j.Type), w.clock)
			w.stored[src.String()][n-1].arrived = w.clock
			bodies = append(bodies, w.accepted(j), w.finished(j, events.OK, n))
		}
	}
	for len(bodies) > 0 {
		n := min(10, len(bodies))
		w.tell(bodies[:n]...)
		bodies = bodies[n:]
		*batches++
	}
}
