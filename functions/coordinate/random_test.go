package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const randomPolicy = `
version: 1
repository: {primary: "s3://bucket?region=eu-central-1"}
limits: {concurrent: %d}
hosts:
  web-1:
    sources:
      etc: {files: {roots: [/etc]}, schedule: {full: "0 3 * * *", incremental: "0 * * * *"}, objectives: {tier: critical}, verification: {content: 6h, restore: 1d}}
      srv: {files: {roots: [/srv]}, schedule: {incremental: "*/30 * * * *", blackout: ["08:00-18:00"]}}
  web-2:
    sources:
      etc: {files: {roots: [/etc]}, schedule: {full: "30 3 * * *", differential: "0 */4 * * *"}, verification: {content: 2h}}
  web-3:
    sources:
      log: {files: {roots: [/var/log]}, schedule: {incremental: "*/20 * * * *"}}
`

var (
	first  = flag.Uint64("seed", 1, "first seed of random tests; 0: a random one")
	rounds = flag.Int("rounds", 4, "how many seeds")
)

// TestRandomTrouble lets days pass in which the function dies at random, ticks come twice, late or not at all, events
// are lost, repeated and reordered, agents stop and jobs fail. However it goes, no run is made twice, and when the
// trouble is over, all is up to date.
func TestRandomTrouble(t *testing.T) {
	seed := *first
	if seed == 0 {
		seed = rand.Uint64()
	}
	for round := range *rounds {
		t.Run(fmt.Sprintf("seed %d", seed+uint64(round)), func(t *testing.T) {
			trouble(t, seed+uint64(round), int((seed+uint64(round))%4), (seed+uint64(round))%3 == 2)
		})
	}
}

func trouble(t *testing.T, seed uint64, limit int, jumps bool) {
	w := newWorld(t, seed, fmt.Sprintf(randomPolicy, max(limit, 1)))
	if limit == 0 {
		w.p.Limits.Concurrent = 0
	}
	w.lossy = jumps
	const days = 2
	for minute := range days * 24 * 60 {
		w.clock = w.clock.Add(time.Minute)
		calm := minute > (days-1)*24*60
		w.unsettle(minute, calm, jumps)
		for range w.ticks(calm) {
			if !calm && w.r.IntN(12) == 0 {
				w.crash = w.r.IntN(8)
			}
			_, _ = w.tick() // what fails is made up by the next
		}
		for i, host := range []string{"web-1", "web-2", "web-3"} {
			w.agents[host].minute(minute%5 == i)
		}
		w.deliver()
		w.once(t)
		if t.Failed() {
			t.Logf("%s", w.log.Bytes()[max(0, w.log.Len()-4000):])
			return
		}
		if w.log.Len() > 1<<20 {
			w.log.Reset()
		}
	}
	w.covered(t)
}

// unsettle changes what works and what does not.
func (w *world) unsettle(minute int, calm, jumps bool) {
	if calm {
		w.skew, w.calm = 0, true
		for _, a := range w.agents {
			a.online, a.fails = true, false
		}
		return
	}
	for _, host := range []string{"web-1", "web-2", "web-3"} {
		a := w.agents[host]
		if w.r.IntN(200) == 0 {
			a.online = !a.online
			if !a.online {
				// It dies at its job and begins it again when it is back.
				a.running = nil
			}
		}
		if !a.online && w.r.IntN(60) == 0 {
			a.online = true
		}
		if w.r.IntN(300) == 0 {
			a.fails = !a.fails
		}
	}
	if jumps && minute%97 == 0 {
		w.skew = []time.Duration{0, 0, 0, 2 * time.Hour, -3 * time.Hour, 400 * 24 * time.Hour, time.Minute}[w.r.IntN(7)]
	}
	if w.lossy && w.r.IntN(300) == 0 { // the state is lost
		for _, host := range []string{"web-1", "web-2", "web-3"} {
			if w.r.IntN(3) == 0 {
				w.forget(host)
			}
		}
	}
}

// ticks is how many ticks come in this minute.
func (w *world) ticks(calm bool) int {
	if calm {
		return 1
	}
	return []int{0, 1, 1, 1, 1, 1, 2, 3}[w.r.IntN(8)]
}

// once looks that no run was made twice.
func (w *world) once(t *testing.T) {
	t.Helper()
	for src, runs := range w.seen {
		for due, n := range runs {
			if n > 1 {
				t.Errorf("%s: the run of %s was made %d times", src, due, n)
				for _, e := range w.agents[strings.Split(src, "/")[0]].order {
					if strings.HasPrefix(due, e.job.Due.Format(time.RFC3339)) {
						t.Logf("%s: %s %s, attempt %d, begun %s: %+v", w.clock, e.job.ID, e.job.Type, e.job.Attempt, e.started, e.result)
					}
				}
			}
		}
	}
}

// covered looks that, after a calm day, each source has a snapshot of its newest run.
func (w *world) covered(t *testing.T) {
	t.Helper()
	for host, a := range w.agents {
		for name := range w.p.Hosts[host].Sources {
			src := snapshot.Source{Host: host, Name: name}
			var h schedule.History
			for _, m := range w.stored[src.String()] {
				h = h.Settle(m.typ, m.started)
			}
			v, due, _ := schedule.DueVerification(w.p, src, w.proofs[src.String()], w.clock)
			if due && w.clock.Sub(v.First) > 2*time.Hour {
				t.Errorf("%s: verification at level %s is due since %s; %+v", src, v.Level, v.First, w.doc(a.host).Verify[name])
			}
			run, due, _ := schedule.Due(w.p, src, h, w.clock)
			if due && w.clock.Sub(run.Due) > time.Hour {
				t.Errorf("%s: the run of %s, %s, was not made; %+v", src, run.Due, run.Type, w.doc(a.host).Sources[name])
			}
		}
	}
}
