package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// restored runs a request up to its end on the host.
func (l *lab) restored(t *testing.T, payload string) requested {
	t.Helper()
	got := l.must(t, payload).(requested)
	l.must(t, l.signed(t, got.Order, "ada", "bob"))
	host := got.Request.Host
	l.agent(t, events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: got.ID, Host: host, Kind: events.Restore, Time: l.Now})
	l.agent(t, events.TypeJobFinished, events.JobFinished{
		Version: 1, Job: got.ID, Host: host, Kind: events.Restore, Result: events.OK, Snapshot: 3, Started: l.Now, Finished: l.Now.Add(90 * time.Second),
		Counts: &events.Counts{Files: 5, Bytes: 4096},
	})
	l.Now = l.Now.Add(2 * time.Minute)
	return got
}

// TestReportOfARestoreInPlace ends when a full that began afterwards has arrived.
func TestReportOfARestoreInPlace(t *testing.T) {
	l := newLab(t)
	got := l.restored(t, `{"action":"request","source":"governance-1/app","in_place":true}`)
	l.queue.jobs = nil
	// The queue does not answer: it is ordered by the next tick, once.
	l.queue.fail = errors.New("no answer")
	if _, err := l.call(t, `{"action":"follow"}`); err == nil {
		t.Error("no restore could be followed, and that is no error")
	}
	l.queue.fail = nil
	for range 3 {
		l.Now = l.Now.Add(15 * time.Minute)
		l.follow(t)
	}
	if len(l.queue.jobs) != 1 || l.queue.jobs[0].Kind != events.Backup || l.queue.jobs[0].Type != "full" || l.queue.jobs[0].Source != "app" {
		t.Fatalf("%+v", l.queue.jobs)
	}
	doc := l.status(t, got.ID, control.RestoreDone)
	if r := doc.Report; r == nil || r.Protected || r.Minutes != 2 || r.Files != 5 || r.Bytes != 4096 || r.Expected != doc.Plan.Minutes || len(r.Sources) != 1 {
		t.Fatalf("%+v", doc.Report)
	}
	l.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(9, 5000)})
	l.follow(t)
	doc = l.status(t, got.ID, control.RestoreDone)
	if r := doc.Report; !r.Protected || r.Sources[0].Snapshot != 4 || r.Sources[0].Arrived.IsZero() {
		t.Errorf("%+v", r)
	}
	// It is over: nothing is read or written any more.
	writes := l.state.Count(memstate.Put)
	if out := l.must(t, `{"action":"follow"}`).(followed); out.Restores != 0 || l.state.Count(memstate.Put) != writes {
		t.Errorf("%+v", out)
	}
}

// TestNotProtectedAgain: no backup comes. It is said once, and given up after a week.
func TestNotProtectedAgain(t *testing.T) {
	l := newLab(t)
	got := l.restored(t, `{"action":"request",`+wantedApp+`}`)
	l.queue.jobs = nil
	for range 10 * 4 {
		l.Now = l.Now.Add(6 * time.Hour)
		l.follow(t)
	}
	doc := l.status(t, got.ID, control.RestoreDone)
	said := 0
	for _, e := range doc.History {
		if strings.Contains(e.What, "not backed up again") {
			said++
		}
	}
	if said != 1 || doc.Report.Protected || len(l.queue.jobs) != 0 {
		t.Errorf("said %d times, %+v, %d jobs", said, doc.Report, len(l.queue.jobs))
	}
	if out := l.must(t, `{"action":"follow"}`).(followed); out.Restores != 0 {
		t.Error("watched for ever")
	}
}

// TestFollowHeals: what a crash or an outage left approved is sent, what expired is ended, and one in trouble keeps no
// other waiting.
func TestFollowHeals(t *testing.T) {
	l := newLab(t)
	l.queue.fail = errors.New("no answer")
	a := l.must(t, `{"action":"request",`+wantedApp+`}`).(requested)
	if _, err := l.call(t, l.signed(t, a.Order, "ada", "bob")); err == nil {
		t.Error("no error")
	}
	b := l.must(t, `{"action":"request","expires":"1h",`+wantedApp+`}`).(requested)
	l.Now = l.Now.Add(2 * time.Hour)
	if out := l.must(t, `{"action":"follow"}`).(followed); out.Restores != 2 || out.Failed != 1 {
		t.Errorf("%+v", out)
	}
	l.status(t, b.ID, control.RestoreExpired)
	l.queue.fail = nil
	l.follow(t)
	l.status(t, a.ID, control.RestoreSent)
	if len(l.queue.jobs) != 1 {
		t.Errorf("%d jobs", len(l.queue.jobs))
	}
}

// TestProtects finds the sources that back up what was restored.
func TestProtects(t *testing.T) {
	files := func(roots ...string) *policy.Source { return &policy.Source{Files: &policy.Files{Roots: roots}} }
	p := &policy.Policy{Hosts: map[string]*policy.Host{
		"a": {Sources: map[string]*policy.Source{"app": files("/srv/app")}},
		"b": {Sources: map[string]*policy.Source{"all": files("/srv"), "part": files("/srv/app/data"), "etc": files("/etc")}},
	}}
	for _, tt := range []struct {
		source, host, target, want string
	}{
		{"a/app", "a", "/srv/restore", "a/app"},
		{"a/gone", "a", "/srv/restore", ""},
		{"a/app", "b", "/srv/app", "b/all b/part"},
		{"a/app", "b", "/mnt", ""},
		{"gone/app", "b", "/etc/x", "b/etc"},
	} {
		got := strings.Join(protects(p, &approval.Request{Source: tt.source, Host: tt.host, Target: tt.target}), " ")
		if got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// TestDamagedDocument: the document of one restore can't be read. That is an error, and the others go on.
func TestDamagedDocument(t *testing.T) {
	l := newLab(t)
	got := l.restored(t, `{"action":"request","source":"governance-1/app","in_place":true}`)
	if _, err := l.state.Put(t.Context(), control.RestoreKey("00000000000000000000000000000000"), []byte("{"), ""); err != nil {
		t.Fatal(err)
	}
	l.queue.jobs = nil
	if _, err := l.call(t, `{"action":"follow"}`); err == nil || len(l.queue.jobs) != 1 {
		t.Errorf("%v, %+v", err, l.queue.jobs)
	}
	if all := l.must(t, `{"action":"list"}`).([]line); len(all) != 1 || all[0].ID != got.ID {
		t.Errorf("%+v", all)
	}
}
