package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestWatchdogTellsFindings: what lifecycle finds about the replica is told in the replica's region, and its end too.
func TestWatchdogTellsFindings(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	service, state := &service{}, memstate.New()
	w := &watchdog{
		env: environment.Watchdog{PrimaryRegion: "eu-central-1"}, primary: memstate.New(), state: state, people: newPeople("arn:topic", "", service, nil),
		out: &bytes.Buffer{}, now: func() time.Time { return now },
		replica: func(context.Context) (objstore.Store, error) { return mem.New(), nil },
	}
	src := snapshot.Source{Host: "h", Name: "s"}
	note := func(found ...control.Finding) {
		t.Helper()
		err := statestore.Update(t.Context(), state, control.LifecycleFindingsKey(src), func(d *control.Findings) error {
			d.Note(src, now, found, "replica", "lock", "retention")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(want ...string) {
		t.Helper()
		if _, err := w.handle(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		has(t, service.taken(), want...)
	}
	note(control.Finding{By: "replica", Key: "h/s", Problem: "the replica is not like the primary", Detail: "2 objects are missing"},
		control.Finding{By: "lock", Key: "h/s", Problem: "locked for less time than it is kept"})
	run("critical replica_late: h/s", "critical lock_short: h/s")
	now = now.Add(5 * time.Minute)
	run()
	// While the state does not answer, nothing is over.
	state.Before = func(op memstate.Op, key string) error {
		if op == memstate.Get && key == control.LifecycleFindingsKey(src) {
			return errors.New("no answer")
		}
		return nil
	}
	if _, err := w.handle(t.Context(), nil); err == nil {
		t.Error("no error")
	}
	has(t, service.taken())
	state.Before = nil
	note()
	now = now.Add(20 * time.Minute)
	run()
	now = now.Add(20 * time.Minute)
	run("replica_late: h/s, over", "lock_short: h/s, over")
}
