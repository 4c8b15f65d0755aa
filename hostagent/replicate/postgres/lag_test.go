package postgres_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

var measure = flag.Duration("lag", 0, "measure the lag for so long")

// TestLag measures from when a client hears that a transaction is committed until the record that holds it is durable, with a
// store that is near and one that is 25 ms away. It wants nothing: a machine that is busy has other figures. With -lag it
// takes as long as that says.
//
//	go test ./hostagent/replicate/postgres -run TestLag -v -args -lag 20s
func TestLag(t *testing.T) {
	away := []time.Duration{25 * time.Millisecond}
	if *measure > 0 {
		away = []time.Duration{0, 25 * time.Millisecond}
	}
	for _, far := range away {
		t.Run(far.String(), func(t *testing.T) {
			w := newWorld(t, cluster.Options{})
			type landing struct {
				at  time.Time
				lsn postgres.LSN
			}
			var landings []landing
			r := w.follow(func(o *follower.Options) { o.Interval = 100 * time.Millisecond })
			r.Await("the base backup", replicatetest.Following)
			w.fix.Store.SetHook(func(mem.Call) mem.Fault {
				time.Sleep(far)
				return mem.Fault{}
			})
			span := max(*measure, 500*time.Millisecond)
			writer := cluster.StartWriter(t, w.server, cluster.WriterOptions{Connections: 8, Payload: 200, Pause: 6 * time.Millisecond})
			cpu := processor(t)
			began := time.Now()
			time.Sleep(span)
			cpu = processor(t) - cpu
			writer.Await(1)
			rows := writer.Stop()
			rate := float64(len(rows)) / time.Since(began).Seconds()
			r.CaughtUp()
			for _, e := range r.Events() {
				if e.Kind != replicate.Shipped {
					continue
				}
				lsn, err := postgres.ParseLSN(e.LSN)
				if err != nil {
					t.Fatal(err)
				}
				landings = append(landings, landing{e.Time, lsn})
			}
			var lags []time.Duration
			for _, row := range rows {
				upto, err := postgres.ParseLSN(row.Upto)
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(landings, func(l landing) bool { return l.lsn >= upto })
				if i < 0 {
					continue // its place is behind what others had not flushed yet when all ended
				}
				lags = append(lags, landings[i].at.Sub(row.Acked))
			}
			slices.Sort(lags)
			at := func(part float64) time.Duration {
				if len(lags) == 0 {
					return 0
				}
				return lags[min(len(lags)-1, int(part*float64(len(lags))))].Round(time.Millisecond)
			}
			s := r.Status().Lag
			t.Logf("from when WAL came: p50 %.0f ms, p99 %.0f ms, max %.0f ms", s.P50, s.P99, s.Max)
			t.Logf("store %s away: %.0f transactions/s, %d records; lag p50 %s, p95 %s, p99 %s, max %s; %.1f %% of a core (server's writer included)", far, rate, len(landings),
				at(0.5), at(0.95), at(0.99), at(1), 100*cpu.Seconds()/span.Seconds())
			r.Stop()
		})
	}
}

// processor is the CPU time of this process.
func processor(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11], &user); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(fields[12], &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
