package sqlite

import (
	"testing"
	"time"
)

func TestTick(t *testing.T) {
	p := pace{interval: time.Second}
	if d := p.next(3); d != busyTick {
		t.Errorf("a busy database is looked at every %s", d)
	}
	var waited time.Duration
	n := 0
	for p.tick < idleTick {
		waited += p.next(0)
		if n++; n > 1000 {
			t.Fatal("never idle")
		}
	}
	if waited < time.Second || waited > 5*time.Second {
		t.Errorf("idle after %s", waited)
	}
	if d := p.next(1); d != busyTick {
		t.Errorf("a database that wakes up is looked at every %s", d)
	}
}
