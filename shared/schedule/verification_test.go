package schedule_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func verified(t *testing.T, body string) (*policy.Policy, snapshot.Source) {
	t.Helper()
	p, err := policy.Parse([]byte("version: 1\nrepository: {primary: /srv/repo}\nhosts: {h: {sources: {s: {files: {roots: [/srv]}, " + body + "}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p, snapshot.Source{Host: "h", Name: "s"}
}

// TestVerificationsAreDueOnce follows a source for a year: each verification is due once, never later than the policy
// wants it.
func TestVerificationsAreDueOnce(t *testing.T) {
	p, src := verified(t, "verification: {content: 30d, restore: 90d}")
	var have schedule.Proofs
	now := time.Date(2026, 3, 5, 12, 34, 56, 0, time.UTC)
	made, seen := map[string]int{}, map[string]bool{}
	last := map[string]time.Time{}
	for end := now.Add(365 * 24 * time.Hour); now.Before(end); {
		v, due, next := schedule.DueVerification(p, src, have, now)
		if !due {
			if !next.After(now) {
				t.Fatalf("asked again at %s, it is %s", next, now)
			}
			now = next
			continue
		}
		if again, _, _ := schedule.DueVerification(p, src, have, now.Add(time.Minute)); again.ID != v.ID || seen[v.ID] {
			t.Fatalf("%+v, then %+v", v, again)
		}
		if at := last[v.Level]; !at.IsZero() && now.Sub(at) > 90*24*time.Hour {
			t.Errorf("%s is due after %s", v.Level, now.Sub(at))
		}
		seen[v.ID], last[v.Level] = true, now
		made[v.Level]++
		now = now.Add(20 * time.Minute)
		*have.Of(v.Level) = schedule.Proof{At: now}
		if !have.Since(v.Level, v.Due) {
			t.Error("done, and not since it was due")
		}
	}
	if made[schedule.Content] < 12 || made[schedule.Content] > 14 || made[schedule.Restore] < 4 || made[schedule.Restore] > 5 {
		t.Errorf("%v", made)
	}
}

func TestVerificationAfterTrouble(t *testing.T) {
	p, src := verified(t, "verification: {content: 30d}")
	now := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	// Given up: the next attempt is a day later, under another id, and says since when.
	have := schedule.Proofs{Content: schedule.Proof{At: now.Add(-31 * 24 * time.Hour)}}
	v, due, _ := schedule.DueVerification(p, src, have, now)
	if !due || v.First.After(now) || v.Due.Before(v.First) || !v.NotAfter.After(now) {
		t.Fatalf("%+v", v)
	}
	have = have.GiveUp(v.Level, v.Due)
	_, due, next := schedule.DueVerification(p, src, have, now)
	if wait := next.Sub(now); due || wait <= 0 || wait > 24*time.Hour {
		t.Fatalf("%v, %s", due, wait)
	}
	w, due, _ := schedule.DueVerification(p, src, have, next)
	if !due || w.ID == v.ID || !w.First.Equal(v.First) {
		t.Errorf("%+v", w)
	}
	// Receipts do not forget what was given up; what they show counts.
	have = have.Learn(schedule.Proofs{Content: schedule.Proof{At: now, Failed: true}})
	if have.Content.Tried.IsZero() {
		t.Error("forgotten")
	}
	// It found damage: a day later it is due again, because it may be repaired.
	if _, due, next := schedule.DueVerification(p, src, have, now); due || next.Sub(now) > 24*time.Hour || next.Sub(now) < 20*time.Hour {
		t.Errorf("%v, %s", due, next.Sub(now))
	}
	// A clock that was wrong puts off nothing for years.
	have = schedule.Proofs{Content: schedule.Proof{At: now.Add(10 * 365 * 24 * time.Hour)}}
	if _, _, next := schedule.DueVerification(p, src, have, now); next.Sub(now) > 31*24*time.Hour {
		t.Errorf("in %s", next.Sub(now))
	}
}

// TestTriedAhead: what was given up by a clock that was ahead puts off nothing for as long as that was.
func TestTriedAhead(t *testing.T) {
	p, src := verified(t, "verification: {content: 30d}")
	now := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	have := schedule.Proofs{}.GiveUp(schedule.Content, now.Add(400*24*time.Hour))
	for range 3 * 24 {
		have = have.Sane(now)
		if _, due, _ := schedule.DueVerification(p, src, have, now); due {
			return
		}
		now = now.Add(time.Hour)
	}
	t.Error("not due for three days")
}

func TestVerificationWaitsForWindows(t *testing.T) {
	p, src := verified(t, "verification: {content: 1h}, schedule: {blackout: ['08:00-18:00']}")
	now := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	if _, due, next := schedule.DueVerification(p, src, schedule.Proofs{}, now); due || next.Hour() != 18 {
		t.Errorf("%v, %s", due, next)
	}
	if _, due, _ := schedule.DueVerification(p, src, schedule.Proofs{}, now.Add(7*time.Hour)); !due {
		t.Error("not due after the window")
	}
	p, src = verified(t, "metrics: false")
	if _, due, next := schedule.DueVerification(p, src, schedule.Proofs{}, now); due || !next.IsZero() {
		t.Error("due, and nobody wants it")
	}
	if _, due, _ := schedule.DueVerification(p, snapshot.Source{Host: "h", Name: "other"}, schedule.Proofs{}, now); due {
		t.Error("due, and not in the policy")
	}
}
