package recovery_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestNothingHappened has a snapshot whose place is the end of the log before it: nothing was committed between, so that
// every moment between is known.
func TestNothingHappened(t *testing.T) {
	place := func(epoch, n uint64) *snapshot.LogPlace {
		return &snapshot.LogPlace{Stream: "a", Epoch: epoch, Sequence: n}
	}
	point := func(n uint64, at int, log *snapshot.LogPlace) recovery.Point {
		return recovery.Point{Sequence: n, Started: second(at), Finished: second(at), Arrived: second(at), Log: log}
	}
	points := []recovery.Point{point(1, 0, place(0, 0)), point(2, 3000, place(1, 5)), point(3, 3200, place(1, 5)), point(4, 3600, place(2, 6))}
	epochs := []recovery.LogEpoch{
		{Stream: "a", Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{{First: 1, Last: 5, From: second(1), To: second(5)}}},
		{Stream: "a", Epoch: 2, Opened: second(3300), Continues: place(1, 5), Runs: []recovery.LogRun{{First: 6, Last: 6, From: second(3300), To: second(3300)}}},
	}
	w := recovery.RecoverableMoments(points, epochs, time.Minute, second(3600))
	if len(w.Gaps) != 0 || len(w.Spans) != 1 || !w.Spans[0].To.Equal(second(3600)) {
		t.Errorf("%+v", w)
	}
	for _, at := range []int{1000, 2999, 3100, 3299, 3500} {
		s, err := recovery.SelectMoment(points, epochs, recovery.Selector{At: second(at)})
		if err != nil || !s.Reached.Equal(second(at)) || len(s.Warnings) != 0 {
			t.Errorf("%d: %+v, %v", at, s, err)
		}
	}
}

// TestNotFollowed has base backups of a cluster whose log nobody went on with: what was committed between two is not known,
// although both have the same place.
func TestNotFollowed(t *testing.T) {
	place := &snapshot.LogPlace{Stream: "a", Epoch: 1, Sequence: 5}
	var points []recovery.Point
	for n, at := range []int{10, 3000, 6000} {
		points = append(points, recovery.Point{Sequence: uint64(n + 1), Started: second(at), Finished: second(at), Arrived: second(at), Log: place, Beyond: true}) //nolint:gosec // small
	}
	epochs := []recovery.LogEpoch{{Stream: "a", Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{{First: 1, Last: 5, From: second(1), To: second(5)}}}}
	if w := recovery.RecoverableMoments(points, epochs, time.Minute, second(6000)); len(w.Gaps) != 2 || len(w.Spans) != 3 {
		t.Errorf("%+v", w)
	}
	for at, reached := range map[int]int{10: 10, 1000: 10, 2999: 10, 3000: 3000, 3001: 3000, 7000: 6000} {
		s, err := recovery.SelectMoment(points, epochs, recovery.Selector{At: second(at)})
		if err != nil || !s.Reached.Equal(second(reached)) || (at > 10 && at < 3000) != (len(s.Warnings) > 0) && at != 3001 {
			t.Errorf("%d: %+v, %v", at, s, err)
		}
	}
}

// TestLost has a log that goes on behind records that are missing: its newest state is not where they are.
func TestLost(t *testing.T) {
	began := recovery.Point{Sequence: 1, Started: second(0), Finished: second(0), Arrived: second(0), Log: &snapshot.LogPlace{Stream: "a"}}
	run := func(first, last int) recovery.LogRun {
		return recovery.LogRun{First: uint64(first), Last: uint64(last), From: second(first), To: second(last)} //nolint:gosec // small
	}
	for _, c := range []struct {
		name   string
		epochs []recovery.LogEpoch
		want   recovery.LostRecords
	}{
		{"one", []recovery.LogEpoch{{Stream: "a", Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{run(1, 5), run(7, 9)}}}, recovery.LostRecords{Stream: "a", Epoch: 1, First: 6, Last: 6}},
		{"at the end of an epoch", []recovery.LogEpoch{
			{Stream: "a", Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{run(1, 5)}},
			{Stream: "a", Epoch: 2, Opened: second(7), Continues: &snapshot.LogPlace{Stream: "a", Epoch: 1, Sequence: 7}, Runs: []recovery.LogRun{run(8, 9)}},
		}, recovery.LostRecords{Stream: "a", Epoch: 1, First: 6, Last: 7}},
	} {
		for _, at := range []int{0, 4, 5, 8, 100} {
			want := recovery.Selector{}
			if at > 0 {
				want.At = second(at)
			}
			s, err := recovery.SelectMoment([]recovery.Point{began}, c.epochs, want)
			if err != nil || s.Reached.After(second(5)) {
				t.Fatalf("%s, at %d: %+v, %v", c.name, at, s, err)
			}
			if lost := at == 0 || at > 5; (s.Lost != nil) != lost || lost && (*s.Lost != c.want || len(s.Warnings) == 0) {
				t.Errorf("%s, at %d: %+v", c.name, at, s)
			}
		}
		w := recovery.RecoverableMoments([]recovery.Point{began}, c.epochs, time.Hour, second(100))
		if n := len(w.Gaps); n != 1 || w.Gaps[0].Cause != c.want.String() || !w.Gaps[0].Open {
			t.Errorf("%s: %+v", c.name, w)
		}
		// A snapshot that was made behind them makes up for it.
		later := recovery.Point{Sequence: 2, Started: second(9), Finished: second(9), Arrived: second(9), Log: &snapshot.LogPlace{Stream: "a", Epoch: c.epochs[len(c.epochs)-1].Epoch, Sequence: 9}}
		if s, err := recovery.SelectMoment([]recovery.Point{began, later}, c.epochs, recovery.Selector{}); err != nil || s.Lost != nil || s.Point.Sequence != 2 {
			t.Errorf("%s, with a snapshot: %+v, %v", c.name, s, err)
		}
	}
}
