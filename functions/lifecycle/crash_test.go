package main

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestCrashes ends a pass at each call of the store, as a killed process does, and has another one.
func TestCrashes(t *testing.T) {
	for at := 0; ; at += 11 {
		s := newStage(t, "{keep_last: 2}")
		s.Store.KeepLocks(0)
		s.f.rules.Default = time.Nanosecond
		for range 3 {
			s.backup(snapshot.Full)
		}
		s.call(tick)
		s.Now = s.Now.Add(60 * day)
		base := s.Store.Calls()
		var crashed atomic.Bool
		s.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Number <= base+at {
				return mem.Fault{}
			}
			crashed.Store(true)
			return mem.Fault{Err: errors.New("killed"), Persisted: at%2 == 0 && c.Number == base+at+1}
		})
		_, _ = s.f.handle(t.Context(), []byte(tick))
		s.Store.SetHook(nil)
		s.CheckAll(t, s.Store)
		for range 3 {
			s.Now = s.Now.Add(60 * day)
			if out := s.call(tick); out.Failed > 0 {
				t.Fatalf("crash at %d: %+v, %s", at, out, s.doc().Error)
			}
		}
		if diff := cmp.Diff([]uint64{2, 3}, s.CheckAll(t, s.Store)); diff != "" {
			t.Fatalf("crash at %d: %s", at, diff)
		}
		if !crashed.Load() {
			return
		}
	}
}
