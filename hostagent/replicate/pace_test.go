package replicate

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := Pace{Interval: time.Second}
	if d := p.Due(at).Sub(at); d != gather {
		t.Errorf("the first record after %s", d)
	}
	p.Cut(at)
	if d := p.Due(at.Add(time.Millisecond)).Sub(at); d != time.Second {
		t.Errorf("the next record after %s", d)
	}
	p.Took(100 * time.Millisecond)
	if d := p.Due(at.Add(time.Millisecond)).Sub(at); d != 900*time.Millisecond {
		t.Errorf("with a store that takes 100 ms: %s", d)
	}
	for range 100 {
		p.Took(3 * time.Second)
	}
	if d := p.Due(at.Add(time.Millisecond)).Sub(at); d != 500*time.Millisecond {
		t.Errorf("with a slow store: %s", d)
	}
	if d := p.Due(at.Add(time.Minute)).Sub(at); d != time.Minute+gather {
		t.Errorf("after a pause: %s", d)
	}
}

func TestLag(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var l lags
	for i := range 100 {
		l.durable([]Seen{{at.Add(-time.Duration(i+1) * time.Millisecond), 10}}, at)
	}
	got := l.lag()
	near := func(x, want float64) bool { return x >= want && x <= want*growth*growth }
	if got.Commits != 1000 || !near(got.P50, 50) || !near(got.P99, 99) || got.Max != 100 {
		t.Errorf("%+v", got)
	}
	l.durable([]Seen{{at.Add(window), 1}}, at.Add(window+time.Second))
	if got := l.lag(); got.Commits != 1001 || got.Max != 1000 {
		t.Errorf("in the next window %+v", got)
	}
	l.durable([]Seen{{at.Add(2 * window), 1}}, at.Add(2*window+2*time.Second))
	if got := l.lag(); got.Commits != 2 {
		t.Errorf("in the one after it %+v", got)
	}
	var groups []Seen
	total := 0
	for i := range 3 * mostGroups {
		groups = Fewer(append(groups, Seen{at.Add(time.Duration(i)), 1}))
		total++
	}
	sum := 0
	for i, g := range groups {
		sum += g.Commits
		if i > 0 && !g.At.After(groups[i-1].At) {
			t.Fatal("groups out of order")
		}
	}
	if sum != total || len(groups) > mostGroups || !groups[0].At.Equal(at) {
		t.Errorf("%d groups of %d commits, of %d", len(groups), sum, total)
	}
}
