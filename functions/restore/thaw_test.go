package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// freeze moves all packs of the newest snapshot's chain to a class and returns their keys.
func (l *lab) freeze(t *testing.T, class objstore.Class) []string {
	t.Helper()
	m, err := l.Repo.Manifest(t.Context(), l.ID(3))
	if err != nil {
		t.Fatal(err)
	}
	keys := repotest.Keys(l.Store, "/packs/"+m.Chain+"/")
	for _, key := range keys {
		l.Store.SetClass(key, class)
	}
	if len(keys) == 0 {
		t.Fatal("the snapshot has no packs")
	}
	return keys
}

// jobs writes what coordinate keeps of the host.
func (l *lab) jobs(t *testing.T, change func(*control.HostJobs)) {
	t.Helper()
	err := statestore.Update(t.Context(), l.state, control.JobsKey("governance-1"), func(h *control.HostJobs) error {
		change(h)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) follow(t *testing.T) {
	t.Helper()
	if got := l.must(t, `{"action":"follow"}`).(followed); got.Failed > 0 {
		t.Fatalf("%+v", got)
	}
}

// TestPlanKnowsWhatIsCold has the packs in each class.
func TestPlanKnowsWhatIsCold(t *testing.T) {
	for _, tt := range []struct {
		class   objstore.Class
		thaw    string
		minutes int
		cold    recovery.ColdClass
	}{
		{objstore.Cool, "", 0, recovery.Instant},
		{objstore.Frozen, "", 5 * 60, recovery.Flexible},
		{objstore.Frozen, "bulk", 12 * 60, recovery.Flexible},
		{objstore.Deep, "standard", 12 * 60, recovery.Deep},
		{objstore.Deep, "bulk", 48 * 60, recovery.Deep},
	} {
		l := newLab(t)
		keys := l.freeze(t, tt.class)
		p := l.must(t, fmt.Sprintf(`{"action":"plan","thaw":%q,%s}`, tt.thaw, wantedApp)).(*recovery.Plan)
		if p.ThawMin != tt.minutes || p.Minutes < tt.minutes || p.Thawing == nil || p.Thawing.Dollar <= 0 || len(p.Thawing.Cold) != 1 ||
			p.Thawing.Cold[0].Class != tt.cold || p.Thawing.Cold[0].Objects != len(keys) || p.Thawing.Cold[0].Bytes <= 0 {
			t.Errorf("%d %s: %+v", tt.class, tt.thaw, p.Thawing)
		}
		if l.Store.Count(mem.Thaw) != 0 {
			t.Error("a plan thaws")
		}
	}
	l := newLab(t)
	if p := l.must(t, `{"action":"plan",`+wantedApp+`}`).(*recovery.Plan); p.Thawing != nil || p.Thaw != 0 {
		t.Errorf("nothing is cold: %+v", p)
	}
	if _, err := l.call(t, `{"action":"plan","thaw":"now",`+wantedApp+`}`); err == nil {
		t.Error("a speed that is none")
	}
	// A list that is gone does not keep the plan from being made; it says what it does not know.
	for _, key := range repotest.Keys(l.Store, "/lists/") {
		l.Store.Tamper(key, nil)
	}
	if p := l.must(t, `{"action":"plan",`+wantedApp+`}`).(*recovery.Plan); !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, "must be thawed") }) {
		t.Errorf("%v", p.Warnings)
	}
}

// TestPlanKnowsTheRoom compares what is to be written with what the agent told.
func TestPlanKnowsTheRoom(t *testing.T) {
	l := newLab(t)
	plan := func() *recovery.Plan {
		return l.must(t, `{"action":"plan",`+wantedApp+`}`).(*recovery.Plan)
	}
	if p := plan(); p.Space != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "not known") {
		t.Errorf("%+v %v", p.Space, p.Warnings)
	}
	l.jobs(t, func(h *control.HostJobs) {
		h.Free, h.FreeAt = map[string]uint64{"/srv": 1 << 40, "/srv/restore": 100, "/var": 1}, l.Now
	})
	if p := plan(); p.Space == nil || p.Space.Path != "/srv/restore" || p.Space.Free != 100 || p.Bytes > 100 && len(p.Warnings) != 1 {
		t.Errorf("%+v %v", p.Space, p.Warnings)
	}
	l.jobs(t, func(h *control.HostJobs) { h.Free["/srv/restore"] = 1 << 40 })
	if p := plan(); len(p.Warnings) != 0 {
		t.Errorf("%v", p.Warnings)
	}
	// In place: where the source has its roots.
	if p := l.must(t, `{"action":"plan","source":"governance-1/app"}`).(*recovery.Plan); p.Space == nil || p.Space.Path != "/srv" {
		t.Errorf("%+v", p.Space)
	}
}

// TestThaw has a restore wait for its packs, whose copies are there long enough, and go on by itself.
func TestThaw(t *testing.T) {
	l := newLab(t)
	l.Store.SetClock(func() time.Time { return l.Now })
	keys := l.freeze(t, objstore.Deep)
	got := l.must(t, `{"action":"request",`+wantedApp+`}`).(requested)
	if valid := got.Request.Expires.Sub(l.Now); valid < 36*time.Hour {
		t.Errorf("valid for %s, and thawing takes 12 h", valid)
	}
	if l.Store.Count(mem.Thaw) != 0 {
		t.Error("thawed before it was approved")
	}
	// The first pack is refused: it is told, and asked for again.
	l.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Thaw && c.Key == keys[0] {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	if _, err := l.call(t, l.signed(t, got.Order, "ada", "bob")); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("%v", err)
	}
	l.Store.SetHook(nil)
	if doc := l.status(t, got.ID, control.RestoreThawing); doc.Thaw.Problem == "" || doc.Thaw.Waiting != len(keys) || doc.Thaw.Packs != len(keys) {
		t.Errorf("%+v", doc.Thaw)
	}
	l.follow(t)
	asked := l.Store.Count(mem.Thaw)
	l.Now = l.Now.Add(15 * time.Minute)
	l.follow(t)
	if l.Store.Count(mem.Thaw) != asked {
		t.Error("what is on its way is asked for again")
	}
	if doc := l.status(t, got.ID, control.RestoreThawing); doc.Thaw.Problem != "" || len(l.queue.jobs) != 0 {
		t.Errorf("%+v, %d jobs", doc.Thaw, len(l.queue.jobs))
	}
	l.Now = l.Now.Add(12 * time.Hour)
	l.Store.Thawed()
	l.follow(t)
	doc := l.status(t, got.ID, control.RestoreSent)
	if len(l.queue.jobs) != 1 || doc.Thaw.Until.Before(doc.Request.Expires.Add(control.FrozenBeyond-24*time.Hour)) || doc.Thaw.Thawed.IsZero() {
		t.Errorf("%+v, %d jobs", doc.Thaw, len(l.queue.jobs))
	}
	// The agent is at it for days: copies and freeze last.
	l.agent(t, events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: got.ID, Host: "governance-1", Kind: events.Restore, Time: l.Now})
	for range 6 * 24 {
		l.Now = l.Now.Add(time.Hour)
		l.jobs(t, func(h *control.HostJobs) {
			h.Restoring = &control.Restoring{Job: got.ID, Started: l.Now, Seen: l.Now.Add(-10 * time.Minute), Bytes: 7}
		})
		l.follow(t)
		if until := l.Store.ThawUntil(keys[0]); until.Sub(l.Now) < 12*time.Hour {
			t.Fatalf("a copy ends at %s, it is %s", until, l.Now)
		}
		if why, err := control.SourceFrozen(t.Context(), l.state, l.Source, l.Now.Add(24*time.Hour)); err != nil || why == "" {
			t.Fatalf("removals are not frozen at %s: %v", l.Now, err)
		}
	}
	if doc := l.status(t, got.ID, control.RestoreAccepted); doc.Restored != 7 || l.Now.Sub(doc.Seen) > 15*time.Minute || len(doc.History) > 30 {
		t.Errorf("seen %s, %d bytes, %d lines", doc.Seen, doc.Restored, len(doc.History))
	}
	// Nobody hears of it any more: the freeze ends by itself.
	l.Now = l.Now.Add(4 * 24 * time.Hour)
	l.follow(t)
	if why, err := control.SourceFrozen(t.Context(), l.state, l.Source, l.Now); err != nil || why != "" {
		t.Errorf("frozen for ever: %q, %v", why, err)
	}
}

// TestThawTakesTooLong: a request that expires before its packs can be read is refused.
func TestThawTakesTooLong(t *testing.T) {
	l := newLab(t)
	l.freeze(t, objstore.Deep)
	if _, err := l.call(t, `{"action":"request","expires":"4h",`+wantedApp+`}`); err == nil || !strings.Contains(err.Error(), "valid for longer") {
		t.Errorf("%v", err)
	}
}
