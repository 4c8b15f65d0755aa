package log_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// chosenOf is what is chosen of a log alone, which begins with a snapshot.
func chosenOf(t *testing.T, f *repotest.Fixture, began time.Time, want recovery.Selector) recovery.Selection {
	t.Helper()
	all := streams(t, f.Repo, f.Source)
	base := start(all[0].ID)
	points := []recovery.Point{{Sequence: 1, Started: began, Finished: began, Arrived: began, Log: &base}}
	s, err := log.NewReader(f.Repo, f.Source, all).Select(t.Context(), points, log.Epochs(all), want)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestArrivalsAreNotBelieved puts the last piece back two days later, as repair and copies do: nothing is promised of the
// time between.
func TestArrivalsAreNotBelieved(t *testing.T) {
	f := repotest.New(t)
	began := f.Now
	w := create(t, f, options(f))
	write(t, f, w, 1, 5)
	last := f.Now
	key := layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: 5, Last: 5})
	piece, _ := f.Store.Object(key)
	f.Store.Tamper(key, nil)
	f.Now = f.Now.Add(48 * time.Hour)
	if err := f.Store.Put(t.Context(), key, objstore.Bytes(piece)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]recovery.Selector{"newest": {}, "between": {At: last.Add(time.Hour)}} {
		if s := chosenOf(t, f, began, want); !s.Reached.Equal(last) || s.Log == nil || s.Log.Through.Sequence != 5 {
			t.Errorf("%s: reaches %s with %+v, the last record is of %s", name, s.Reached, s.Log, last)
		}
	}
	all := streams(t, f.Repo, f.Source)
	epochs := log.Epochs(all)
	if err := log.NewReader(f.Repo, f.Source, all).Times(t.Context(), epochs); err != nil {
		t.Fatal(err)
	}
	if run := epochs[0].Runs[0]; !run.From.Equal(began.Add(last.Sub(began)/5)) || !run.To.Equal(last) {
		t.Errorf("%+v", run)
	}
}

// TestBeginningsOfTransactionsReachNothing has a process that was killed while it put the second part of a large one.
func TestBeginningsOfTransactionsReachNothing(t *testing.T) {
	f := repotest.New(t)
	began := f.Now
	w := create(t, f, options(f))
	write(t, f, w, 1, 3)
	whole := f.Now
	f.Now = f.Now.Add(time.Hour)
	end, err := w.Append(t.Context(), large(f.Now, 4, 2500))
	if err != nil || end.Sequence != 6 {
		t.Fatal(end, err)
	}
	f.Store.Tamper(layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: 6, Last: 6}), nil)
	s := chosenOf(t, f, began, recovery.Selector{})
	if !s.Reached.Before(f.Now) || s.Reached.Before(whole) {
		t.Errorf("reaches %s, the transaction that is not whole is of %s", s.Reached, f.Now)
	}
	check(t, f, log.RangeOf(*s.Log), numbers(1, 3))
}

// TestMomentsOverTimelines chooses moments of a log of WAL that goes on over a promotion.
func TestMomentsOverTimelines(t *testing.T) {
	f := repotest.New(t)
	began := f.Now
	_, parted, end := f.Timelines(t) // a record each second: 25 of timeline 1, then a history and 4 of timeline 2
	for name, tt := range map[string]struct {
		at     time.Duration // after the first snapshot; 0: the newest
		stream string
		want   int
	}{
		"the newest":             {0, end.Stream, 30},
		"on the old timeline":    {10 * time.Second, parted.Stream, 10},
		"its last record":        {25 * time.Second, "", 25},
		"on the new timeline":    {27 * time.Second, end.Stream, 28},
		"after the last record":  {time.Hour, end.Stream, 30},
		"between two records":    {11500 * time.Millisecond, parted.Stream, 11},
		"before the first":       {500 * time.Millisecond, parted.Stream, 0},
		"between both timelines": {25500 * time.Millisecond, "", 25},
	} {
		var want recovery.Selector
		if tt.at != 0 {
			want.At = began.Add(tt.at)
		}
		s := chosenOf(t, f, began, want)
		if s.Log == nil {
			if tt.want != 0 {
				t.Errorf("%s: %+v", name, s)
			}
			continue
		}
		got, err := f.ReadLog(t, f.Store, log.RangeOf(*s.Log))
		if tt.stream == "" && tt.want == 25 {
			// The history, which was stored in the same second, may be read too.
			for len(got) > 0 && got[len(got)-1] == "history 2" {
				got = got[:len(got)-1]
			}
		}
		if err != nil || len(got) != tt.want || tt.stream != "" && s.Log.Through.Stream != tt.stream {
			t.Errorf("%s: %s with %d records of %d up to %s: %v", name, s.Reason, len(got), tt.want, s.Log.Through, err)
		}
	}
}

// TestRecordSaysWhatIsWrong tells a record that is damaged from one that is missing.
func TestRecordSaysWhatIsWrong(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	write(t, f, w, 1, 3)
	key := layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: 1, First: 2, Last: 2})
	piece, _ := f.Store.Object(key)
	piece[len(piece)/2] ^= 1
	f.Store.Tamper(key, piece)
	r := log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source))
	for n, word := range map[uint64]string{2: "is damaged", 4: "is missing"} {
		_, err := r.Record(t.Context(), w.Stream(), 1, n)
		var hole *log.HoleError
		if !errors.As(err, &hole) || !strings.Contains(err.Error(), word) || errors.As(err, new(*repository.DamageError)) != (n == 2) {
			t.Errorf("record %d: %v", n, err)
		}
	}
}
