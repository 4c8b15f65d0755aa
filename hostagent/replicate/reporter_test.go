package replicate

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestUntil has a follower come and go: at no time is more said to be durable than is, and never less than was before.
func TestUntil(t *testing.T) {
	dir, src := t.TempDir(), snapshot.Source{Host: "test", Name: "app"}
	at := func(seconds int) time.Time { return time.Date(2026, 3, 1, 12, 0, seconds, 0, time.UTC) }
	r := NewReporter(dir, src, "/app.db", time.Second, nil)
	want := func(what string, until time.Time) {
		t.Helper()
		if s := r.Status(); !s.Until().Equal(until) {
			t.Errorf("%s: all is durable until %s, want %s", what, s.Until(), until)
		}
	}
	looked, oldest := at(10), time.Time{}
	live := func(s *Status) { s.Looked, s.Oldest = looked, oldest }
	want("nothing is known", time.Time{})
	r.Unsure()
	want("nothing is known still", time.Time{})
	r.Follows(live)
	want("all that was seen is durable", at(10))
	r.Unsure() // such as where the server is away
	want("nobody could look since", at(10))
	looked, oldest = at(20), at(15)
	want("something is on its way", at(15))
	oldest = time.Time{}
	want("it has arrived", at(20))
	oldest = at(18)
	r.Follows(nil)
	want("it is given up", at(18))
	r.Unsure()
	want("nobody follows", at(18))
	stop := r.Keep()
	stop()

	r = NewReporter(dir, src, "/app.db", time.Second, nil)
	r.Keep()()
	want("the next process knows it", at(18))
	r.Missed("a test", 1)
	want("it can't be made up for", at(18))
	if gap := r.Status().Gaps[0]; !gap.From.Equal(at(18)) || !gap.To.IsZero() {
		t.Errorf("the gap is %+v", gap)
	}
	r.Based(2, log.Place{}, time.Second)
	want("a snapshot has it", at(20))
	looked, oldest = at(30), time.Time{}
	r.Follows(live)
	want("the next log", at(30))
}
