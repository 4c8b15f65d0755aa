package main

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestMoments: of a source with a log every moment can be planned and asked for, not only its snapshots.
func TestMoments(t *testing.T) {
	l := newLab(t)
	w := l.OpenLog(t, "", 0, nil)
	l.Log = &log.Place{Stream: w.Stream()}
	m := l.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(9, 5000)})
	began := l.Now
	l.WriteLog(t, w, 1, 30, time.Minute)
	last := l.Now
	l.Now = l.Now.Add(30 * time.Second)

	ask := func(at time.Time, number uint64) (*recovery.Plan, *approval.Request) {
		t.Helper()
		payload := map[string]any{"source": "governance-1/app", "target": "/srv/restore/app", "snapshot": number}
		if !at.IsZero() {
			payload["at"] = at
		}
		payload["action"] = "plan"
		plan := l.must(t, payload).(*recovery.Plan)
		payload["action"] = "request"
		doc := l.must(t, payload).(requested)
		if !doc.Plan.Selection.Reached.Equal(plan.Selection.Reached) {
			t.Errorf("the plan says %s, that of the request %s", plan.Selection.Reached, doc.Plan.Selection.Reached)
		}
		return plan, doc.Request
	}
	for name, c := range map[string]struct {
		at     time.Time
		number uint64
		until  time.Time
		lost   int
	}{
		"a moment within the log":     {began.Add(10*time.Minute + 7*time.Second), 0, began.Add(10*time.Minute + 7*time.Second), 0},
		"the newest":                  {time.Time{}, 0, last, 1},
		"a moment after all":          {l.Now.Add(-10 * time.Second), 0, last, 1},
		"a moment before the log":     {began.Add(-50 * time.Minute), 0, time.Time{}, 10},
		"a snapshot":                  {time.Time{}, m.Sequence, time.Time{}, 31},
		"a snapshot, and a moment":    {began.Add(5 * time.Minute), m.Sequence, began.Add(5 * time.Minute), 0},
		"the moment of the snapshot":  {began, 0, began, 0},
		"another, which has no place": {time.Time{}, 1, time.Time{}, 121},
	} {
		plan, r := ask(c.at, c.number)
		if !r.At.Equal(c.until) || plan.LostMin != c.lost || c.until.IsZero() != (plan.Selection.Log == nil) {
			t.Errorf("%s: up to %s, want %s; %d minutes lost, want %d; %+v", name, r.At, c.until, plan.LostMin, c.lost, plan.Selection)
		}
	}
	if p, _ := ask(time.Time{}, 0); len(p.Window.Spans) == 0 || !p.Window.Spans[len(p.Window.Spans)-1].Log {
		t.Errorf("the window does not tell of the log: %+v", p.Window)
	}
}

// TestMomentInAGap: nobody gets another state than the one that was asked for without being told.
func TestMomentInAGap(t *testing.T) {
	l := newLab(t)
	for range 2 {
		w := l.OpenLog(t, "", 0, nil)
		l.Log = &log.Place{Stream: w.Stream()}
		l.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(9, 5000)})
		l.WriteLog(t, w, 1, 10, time.Minute)
		l.Now = l.Now.Add(time.Hour)
	}
	at := l.Now.Add(-100 * time.Minute) // between the two logs
	payload := map[string]any{"action": "plan", "source": "governance-1/app", "target": "/srv/restore/app", "at": at}
	if p := l.must(t, payload).(*recovery.Plan); len(p.Selection.Warnings) == 0 {
		t.Errorf("%+v", p.Selection)
	}
	payload["action"] = "request"
	if got, err := l.call(t, payload); err == nil {
		t.Errorf("requested: %+v", got)
	}
}
