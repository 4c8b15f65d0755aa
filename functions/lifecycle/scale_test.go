package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestTimeOfAPass measures, by a clock that does not run, how long passes over sources take where each request takes as
// long as in its region, or across: a shard must get through in the time that an invocation has. Requests are counted too.
func TestTimeOfAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const near, far = 30 * time.Millisecond, 100 * time.Millisecond
		const sources, snapshots = 2, 30
		const limit = 14 * time.Minute / shardSources
		s := newStage(t, "{daily: 30}")
		for n := range sources {
			s.Source = snapshot.Source{Host: fmt.Sprintf("h%d", n), Name: "app"}
			for i := range snapshots {
				kind := snapshot.Incremental
				if i%10 == 0 {
					kind = snapshot.Full
				}
				s.backup(kind)
			}
		}
		s.copied()
		delay := func(store *mem.Store, d time.Duration) {
			store.SetHook(func(mem.Call) mem.Fault {
				time.Sleep(d)
				return mem.Fault{}
			})
		}
		wait := func(d time.Duration) func(memstate.Op, string) error {
			return func(memstate.Op, string) error {
				time.Sleep(d)
				return nil
			}
		}
		for _, tt := range []struct {
			name             string
			call             func(string) passed
			primary, replica time.Duration // of a request
			state, there     time.Duration
			store            *mem.Store
		}{
			{"first region", s.call, near, far, near, far, s.Store},
			{"replica", s.callSecond, far, near, far, near, s.replica},
		} {
			delay(s.Store, tt.primary)
			delay(s.replica, tt.replica)
			s.state.Before, s.there.Before = wait(tt.state), wait(tt.there)
			for _, pass := range []string{"first", "later"} { // the first one locks everything for longer
				s.Now = s.Now.Add(day)
				calls, began := tt.store.Calls(), time.Now()
				out := tt.call(tick)
				each := time.Since(began) / sources
				if out.Done != sources || each > limit {
					t.Errorf("%s, %s pass: %+v, %s for each source, want %s", tt.name, pass, out, each, limit)
				}
				t.Logf("%s, %s pass over a source with %d snapshots: %s, %d requests", tt.name, pass, snapshots, each, (tt.store.Calls()-calls)/sources)
			}
		}
		s.Store.SetHook(nil)
		s.replica.SetHook(nil)
		s.state.Before, s.there.Before = nil, nil
	})
}
