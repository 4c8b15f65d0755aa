package sqlite

import (
	"testing"
	"time"
)

// listener hears what it is told to.
type listener struct{ deaf, on, heard bool }

func (l *listener) Listen(on bool) bool {
	l.on = on && !l.deaf
	return l.on
}

func (l *listener) Heard() bool { return l.heard }

// untilRest looks until nothing but a long wait is left, and returns how many looks it took.
func untilRest(t *testing.T, r *rest) (looks int) {
	t.Helper()
	for ; looks < 1000; looks++ {
		if r.next(0, false) == restTick {
			return looks
		}
	}
	t.Fatal("never at rest")
	return 0
}

func TestRest(t *testing.T) {
	l := &listener{}
	r := rest{pace: pace{interval: 50 * time.Millisecond}, ears: l}
	r.next(1, false)
	if l.on {
		t.Error("a busy database is listened to")
	}
	untilRest(t, &r)
	if !l.on {
		t.Error("an idle database is not listened to")
	}
	// Something was written, and is not committed yet: it is looked at often.
	if d := r.next(0, true); d > busyTick || l.on {
		t.Errorf("after a write it waits for %s, listens: %v", d, l.on)
	}
	if d := r.next(1, false); d > busyTick {
		t.Errorf("after a commit it waits for %s", d)
	}
	untilRest(t, &r)
	// Between the beginning of listening and the first long wait there is a look.
	r = rest{pace: pace{interval: 50 * time.Millisecond}, ears: l}
	l.on = false
	for last := time.Duration(-1); ; {
		d := r.next(0, false)
		if d == restTick {
			if last != 0 {
				t.Errorf("the wait before the first long one was %s", last)
			}
			break
		}
		last = d
	}
}

// TestRestUnheard has file systems that tell nothing: the database is looked at often all the time.
func TestRestUnheard(t *testing.T) {
	l := &listener{}
	r := rest{pace: pace{interval: time.Second}, ears: l}
	for range mostUnheard {
		untilRest(t, &r)
		r.next(1, false)
	}
	for range 1000 {
		if d := r.next(0, false); d > idleTick {
			t.Fatalf("it waits for %s", d)
		}
	}
	l = &listener{deaf: true}
	r = rest{pace: pace{interval: time.Second}, ears: l}
	for range 1000 {
		if d := r.next(0, false); d > idleTick || d == 0 {
			t.Fatalf("it waits for %s", d)
		}
	}
	// What was heard a moment too late is no sign of that.
	l = &listener{heard: true}
	r = rest{pace: pace{interval: time.Second}, ears: l}
	for range 2 * mostUnheard {
		untilRest(t, &r)
		r.next(1, false)
	}
	untilRest(t, &r)
}
