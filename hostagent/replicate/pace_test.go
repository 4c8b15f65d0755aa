package replicate

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
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
	if d := p.due(at).Sub(at); d != gather {
		t.Errorf("the first record after %s", d)
	}
	p.cut = at
	if d := p.due(at.Add(time.Millisecond)).Sub(at); d != time.Second {
		t.Errorf("the next record after %s", d)
	}
	p.shipped(100 * time.Millisecond)
	if d := p.due(at.Add(time.Millisecond)).Sub(at); d != 900*time.Millisecond {
		t.Errorf("with a store that takes 100 ms: %s", d)
	}
	for range 100 {
		p.shipped(3 * time.Second)
	}
	if d := p.due(at.Add(time.Millisecond)).Sub(at); d != 500*time.Millisecond {
		t.Errorf("with a slow store: %s", d)
	}
	if d := p.due(at.Add(time.Minute)).Sub(at); d != time.Minute+gather {
		t.Errorf("after a pause: %s", d)
	}
}

func TestLag(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var l lags
	for i := range 100 {
		l.durable([]seen{{at.Add(-time.Duration(i+1) * time.Millisecond), 10}}, at)
	}
	got := l.lag()
	near := func(x, want float64) bool { return x >= want && x <= want*growth*growth }
	if got.Commits != 1000 || !near(got.P50, 50) || !near(got.P99, 99) || got.Max != 100 {
		t.Errorf("%+v", got)
	}
	l.durable([]seen{{at.Add(window), 1}}, at.Add(window+time.Second))
	if got := l.lag(); got.Commits != 1001 || got.Max != 1000 {
		t.Errorf("in the next window %+v", got)
	}
	l.durable([]seen{{at.Add(2 * window), 1}}, at.Add(2*window+2*time.Second))
	if got := l.lag(); got.Commits != 2 {
		t.Errorf("in the one after it %+v", got)
	}
	var groups []seen
	total := 0
	for i := range 3 * mostGroups {
		groups = fewer(append(groups, seen{at.Add(time.Duration(i)), 1}))
		total++
	}
	sum := 0
	for i, g := range groups {
		sum += g.commits
		if i > 0 && !g.at.After(groups[i-1].at) {
			t.Fatal("groups out of order")
		}
	}
	if sum != total || len(groups) > mostGroups || !groups[0].at.Equal(at) {
		t.Errorf("%d groups of %d commits, of %d", len(groups), sum, total)
	}
}

func TestMarks(t *testing.T) {
	dir := t.TempDir()
	m, newest, err := openMarks(dir)
	if err != nil || newest != nil {
		t.Fatal(newest, err)
	}
	for i := range 5 {
		if err := m.set(mark{Path: "/x", Stream: "s", Epoch: uint64(i)}, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	m, newest, err = openMarks(dir)
	if err != nil || newest == nil || newest.Epoch != 4 {
		t.Fatal(newest, err)
	}
	// A torn one leaves the one before.
	if _, err := m.f.WriteAt([]byte("torn"), int64(newest.Number%2)*slotSize+20); err != nil {
		t.Fatal(err)
	}
	_ = m.close()
	m, newest, err = openMarks(dir)
	if err != nil || newest == nil || newest.Epoch != 3 {
		t.Fatal(newest, err)
	}
	if err := m.set(mark{Epoch: 9}, false); err != nil {
		t.Fatal(err)
	}
	_ = m.close()
	if m, newest, err = openMarks(dir); err != nil || newest == nil || newest.Epoch != 9 {
		t.Fatal(newest, err)
	}
	_ = m.close()
}

func FuzzMark(f *testing.F) {
	f.Add([]byte(`{"number":1} ` + sumOf([]byte(`{"number":1}`)) + "\n"))
	f.Add([]byte("x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := decodeMark(b); m != nil && m.Number == 0 && len(b) < sumSize {
			t.Error("a mark out of nothing")
		}
	})
}
