package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
)

func TestWatchdog(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	service := &service{}
	primary, replica, out := memstate.New(), mem.New(), &bytes.Buffer{}
	var unreachable error
	role := granted.Of(t, "watchdog", true)
	w := &watchdog{
		env: environment.Watchdog{PrimaryRegion: "eu-central-1"}, primary: role.FirstState(primary), state: role.State(memstate.New()), people: newPeople("arn:topic", "", service, nil),
		out: out, now: func() time.Time { return now },
		replica: func(context.Context) (objstore.Store, error) { return role.Store(replica), unreachable },
	}
	run := func(want ...string) {
		t.Helper()
		out.Reset()
		if _, err := w.handle(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		has(t, service.taken(), want...)
	}
	beat := func(newest ...control.Arrived) {
		t.Helper()
		err := statestore.Update(t.Context(), primary, control.MonitorKey, func(m *control.Monitor) error {
			m.Time, m.Newest = now, newest
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	run() // the primary has not begun yet: there is time
	now = now.Add(10 * time.Minute)
	arrived := control.Arrived{Host: "h", Source: "s", Sequence: 3, Time: now}
	beat(arrived)
	run()
	now = now.Add(20 * time.Minute)
	primary.Before = func(memstate.Op, string) error { return errors.New("region is down") }
	run()
	now = now.Add(20 * time.Minute)
	run("critical primary_silent: control-plane, not met")
	if !strings.Contains(out.String(), `"PrimaryHeartbeatAge":2400`) {
		t.Errorf("%s", out)
	}
	primary.Before = nil
	beat(arrived)
	run()
	now = now.Add(21 * time.Minute)
	beat(arrived)
	run("primary_silent: control-plane, over", "critical replica_late: control-plane, not met")
	key := layout.ManifestKey(snapshot.ID{Source: snapshot.Source{Host: "h", Name: "s"}, Sequence: 3})
	if err := replica.Put(t.Context(), key, objstore.Bytes([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	beat(arrived)
	run()
	// A replica that does not answer is an error of the function, which has an alarm; nothing is told to be over by it.
	unreachable = errors.New("no such bucket")
	now = now.Add(20 * time.Minute)
	beat(arrived)
	if _, err := w.handle(t.Context(), nil); err == nil {
		t.Error("no error")
	}
	has(t, service.taken())
	unreachable = nil
	run("replica_late: control-plane, over")
	// A clock that was wrong, or who has the primary, says that it was at work in a year: that keeps nobody quiet.
	now = now.Add(time.Minute)
	ahead := now.Add(365 * 24 * time.Hour)
	err := statestore.Update(t.Context(), primary, control.MonitorKey, func(m *control.Monitor) error {
		m.Time = ahead
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	run()
	now = now.Add(31 * time.Minute)
	run("critical primary_silent: control-plane, not met")
	for line := range bytes.Lines(out.Bytes()) {
		values, err := emf.Parse(line)
		if err != nil || len(values) != 3 {
			t.Errorf("%v, %v", values, err)
		}
	}
}

// TestBusyFleet: where many snapshots arrive in each minute, the newest are always new. That nothing comes over any more is
// told all the same, and ends when all that was missed is there.
func TestBusyFleet(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	service := &service{}
	primary, replica, out := memstate.New(), mem.New(), &bytes.Buffer{}
	w := &watchdog{
		env: environment.Watchdog{PrimaryRegion: "eu-central-1"}, primary: primary, state: memstate.New(), people: newPeople("arn:topic", "", service, nil),
		out: out, now: func() time.Time { return now }, replica: func(context.Context) (objstore.Store, error) { return replica, nil },
	}
	var all []control.Arrived
	key := func(a control.Arrived) string {
		return layout.ManifestKey(a.ID())
	}
	pass := func(replicates bool) []string {
		t.Helper()
		now = now.Add(5 * time.Minute)
		for i := range newestManifests {
			all = append(all, control.Arrived{Host: "h", Source: fmt.Sprintf("s%d", i), Sequence: uint64(len(all) + 1), Time: now.Add(-time.Minute)})
		}
		for _, a := range all {
			if replicates {
				if err := replica.Put(t.Context(), key(a), objstore.Bytes([]byte("x"))); err != nil {
					t.Fatal(err)
				}
			}
		}
		err := statestore.Update(t.Context(), primary, control.MonitorKey, func(m *control.Monitor) error {
			m.Time, m.Newest = now, all[len(all)-newestManifests:]
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if _, err := w.handle(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return service.taken()
	}
	for range 3 {
		has(t, pass(true))
	}
	if !strings.Contains(out.String(), `"ReplicaLag":0`) {
		t.Errorf("%s", out)
	}
	var told []string
	for range 15 {
		told = append(told, pass(false)...)
	}
	has(t, told, "critical replica_late: control-plane, not met")
	if len(told) != 1 || !strings.Contains(out.String(), `"ReplicaLag":4260`) { // 14 passes and a minute
		t.Errorf("%q, %s", told, out)
	}
	told = nil
	for range 4 {
		told = append(told, pass(true)...)
	}
	has(t, told, "critical replica_late: control-plane, over")
	// What is removed from the primary before it came over is not waited for for ever.
	pass(false)
	all = nil
	for range 9 {
		now = now.Add(24 * time.Hour)
		pass(true)
	}
	if !strings.Contains(out.String(), `"ReplicaLag":0`) {
		t.Errorf("%s", out)
	}
}

func TestFetchKeepsTheURLSecret(t *testing.T) {
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	if err := fetch(t.Context(), srv.Client(), srv.URL+"/secret"); err != nil {
		t.Error(err)
	}
	status = http.StatusNotFound
	check := func(err error) {
		t.Helper()
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
	check(fetch(t.Context(), srv.Client(), srv.URL+"/secret"))
	address := srv.URL
	srv.Close()
	check(fetch(t.Context(), http.DefaultClient, address+"/secret"))
	check(fetch(t.Context(), http.DefaultClient, "http://example.org/secret"))
	check(fetch(t.Context(), http.DefaultClient, "secret\x00"))
}
