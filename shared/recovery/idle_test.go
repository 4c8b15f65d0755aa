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
