package main

import (
	"bytes"
	"context"
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

// TestWatchdogTellsOfBytes: what verify finds in the replica, and that it does not get through, is told there, and its end.
func TestWatchdogTellsOfBytes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	service, state := &service{}, memstate.New()
	w := &watchdog{
		env:     environment.Watchdog{PrimaryRegion: "eu-central-1", Cloud: environment.Cloud{Repository: "s3://replica?region=eu-west-1"}},
		primary: memstate.New(), state: state, people: newPeople("arn:topic", "", service, nil),
		out: &bytes.Buffer{}, now: func() time.Time { return now },
		replica: func(context.Context) (objstore.Store, error) { return mem.New(), nil },
	}
	src := snapshot.Source{Host: "h", Name: "s"}
	note := func(found ...control.Finding) {
		t.Helper()
		err := statestore.Update(t.Context(), state, control.VerifyFindingsKey(src), func(d *control.Findings) error {
			d.Note(src, now, found, "rotation", "period")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.handle(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	note(control.Finding{By: "rotation", Key: "v1/h/s/packs/c/p", Problem: "bytes differ"}, control.Finding{By: "period", Key: "h/s", Problem: "not read again in time"})
	has(t, service.taken(), "critical damaged: h/s", "critical unverified: h/s")
	now = now.Add(20 * time.Minute)
	note()
	now = now.Add(20 * time.Minute)
	note()
	has(t, service.taken(), "damaged: h/s, over", "unverified: h/s, over")
}
