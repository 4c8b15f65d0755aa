package recovery_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// world is a naive model of a source with a log: one second after the other something happens, and it is written down who
// holds which state. Branches are lists of commits; an epoch is a piece of one.
type world struct {
	now     int // seconds
	epochs  []modelEpoch
	points  []recovery.Point
	states  map[uint64][]int // of each snapshot: times of the commits in it
	streams int
}

type modelEpoch struct {
	stream    string
	epoch     uint64
	opened    int
	continues *snapshot.LogPlace
	before    []int // commits up to where it goes on
	first     uint64
	commits   []int // times
	lost      map[uint64]bool
}

func second(n int) time.Time { return at("2026-11-20 10:00").Add(time.Duration(n) * time.Second) }

func (e *modelEpoch) place() snapshot.LogPlace {
	n := e.first + uint64(len(e.commits)) - 1
	if n == 0 {
		return snapshot.LogPlace{Stream: e.stream}
	}
	if len(e.commits) == 0 {
		return *e.continues
	}
	return snapshot.LogPlace{Stream: e.stream, Epoch: e.epoch, Sequence: n, Record: fmt.Sprint(e.commits)}
}

// randomHistory makes a random one: commits, restarts that know all or not, clones that write on, gaps, snapshots with and
// without a place, records that are lost.
func randomHistory(rng *rand.Rand) *world {
	w := &world{states: map[uint64][]int{}}
	live := -1 // the epoch that the follower writes
	highest := map[string]uint64{}
	open := func(stream string, from *modelEpoch, keep int) {
		highest[stream]++
		e := modelEpoch{stream: stream, epoch: highest[stream], opened: w.now, first: 1, lost: map[uint64]bool{}}
		if from != nil && (keep > 0 || from.continues != nil) {
			cut := *from
			cut.commits = from.commits[:keep]
			p := cut.place()
			e.continues, e.first, e.before = &p, p.Sequence+1, slices.Concat(from.before, cut.commits)
		}
		w.epochs = append(w.epochs, e)
		live = len(w.epochs) - 1
	}
	for range 10 + rng.IntN(60) {
		w.now++
		switch k := rng.IntN(24); {
		case live < 0 || k == 0: // a new stream: what was before can't be proven
			w.streams++
			open(fmt.Sprintf("%032x", w.streams), nil, 0)
			w.snapshot(live, true)
		case k == 1: // a restart that knows all
			open(w.epochs[live].stream, &w.epochs[live], len(w.epochs[live].commits))
		case k == 2: // a restart that does not know the last records
			e := &w.epochs[live]
			open(e.stream, e, len(e.commits)-rng.IntN(min(3, len(e.commits)+1)))
		case k <= 5:
			w.snapshot(live, true)
		case k == 6:
			w.snapshot(live, false)
		case k == 7 && len(w.epochs[live].commits) > 0: // something is lost
			e := &w.epochs[rng.IntN(len(w.epochs))]
			if n := len(e.commits); n > 1 { // that the last one is lost, nothing tells
				e.lost[e.first+uint64(rng.IntN(n-1))] = true
			}
		case k == 8: // a clone goes on with an older epoch
			e := &w.epochs[rng.IntN(len(w.epochs))]
			e.commits = append(e.commits, w.now)
		default:
			w.epochs[live].commits = append(w.epochs[live].commits, w.now)
		}
	}
	return w
}

// snapshot is made by the follower (with its place in the log) or by somebody else.
func (w *world) snapshot(live int, place bool) {
	e := &w.epochs[live]
	p := recovery.Point{Sequence: uint64(len(w.points) + 1), Started: second(w.now), Finished: second(w.now), Arrived: second(w.now)}
	if place {
		at := e.place()
		p.Log = &at
	}
	w.points = append(w.points, p)
	w.states[p.Sequence] = slices.Concat(e.before, e.commits)
}

// listed is what a listing shows of the model.
func (w *world) listed() []recovery.LogEpoch {
	var out []recovery.LogEpoch
	for i := range w.epochs {
		e := &w.epochs[i]
		l := recovery.LogEpoch{Stream: e.stream, Epoch: e.epoch, Opened: second(e.opened), Continues: e.continues}
		for k, t := range e.commits {
			n := e.first + uint64(k)
			if e.lost[n] {
				continue
			}
			if r := len(l.Runs); r > 0 && l.Runs[r-1].Last == n-1 {
				l.Runs[r-1].Last, l.Runs[r-1].To = n, second(t)
			} else {
				l.Runs = append(l.Runs, recovery.LogRun{First: n, Last: n, From: second(t), To: second(t)})
			}
		}
		out = append(out, l)
	}
	return out
}

func (w *world) find(stream string, epoch uint64) *modelEpoch {
	i := slices.IndexFunc(w.epochs, func(e modelEpoch) bool { return e.stream == stream && e.epoch == epoch })
	if i < 0 {
		return nil
	}
	return &w.epochs[i]
}

// apply restores what was selected, naively, and says what is wrong with it.
func (w *world) apply(s recovery.Selection) (state []int, problem string) {
	state = slices.Clone(w.states[s.Point.Sequence])
	if s.Log == nil {
		return state, ""
	}
	if s.Point.Log == nil || s.Log.From != *s.Point.Log {
		return nil, fmt.Sprintf("it begins after %+v, the snapshot is at %+v", s.Log.From, s.Point.Log)
	}
	// The way back from the last record to the snapshot's place.
	type step struct {
		e       *modelEpoch
		through uint64
	}
	var way []step
	e, through := w.find(s.Log.Through.Stream, s.Log.Through.Epoch), s.Log.Through.Sequence
	from := s.Log.From
	for {
		if e == nil {
			return nil, "it leads through an epoch that is not there"
		}
		way = append(way, step{e, through})
		if e.stream == from.Stream && e.epoch == from.Epoch {
			break
		}
		if e.continues == nil {
			if from.Sequence != 0 || e.stream != from.Stream {
				return nil, "it begins elsewhere"
			}
			break
		}
		if e.continues.Stream == from.Stream && e.continues.Epoch == from.Epoch && e.continues.Sequence == from.Sequence {
			break
		}
		e, through = w.find(e.continues.Stream, e.continues.Epoch), e.continues.Sequence
	}
	slices.Reverse(way)
	for _, st := range way {
		for k, t := range st.e.commits {
			n := st.e.first + uint64(k)
			if n > st.through || st.e.stream == from.Stream && st.e.epoch == from.Epoch && n <= from.Sequence {
				continue
			}
			if !s.Log.Until.IsZero() && second(t).After(s.Log.Until) {
				return state, ""
			}
			if st.e.lost[n] {
				return nil, fmt.Sprintf("record %d is lost", n)
			}
			state = append(state, t)
		}
	}
	return state, ""
}

// truth is the state at a time: of the highest epoch, in the newest stream, that had been opened by then; false if nobody
// wrote it down.
func (w *world) truth(t int) ([]int, bool) {
	stream := ""
	var best *modelEpoch
	for i := range w.epochs {
		e := &w.epochs[i]
		if e.opened <= t && (best == nil || e.stream > stream || e.stream == stream && len(e.commits) > 0 && e.epoch > best.epoch) {
			if len(w.listed()[i].Runs) == 0 && best != nil && e.stream == stream {
				continue
			}
			best, stream = e, e.stream
		}
	}
	if best == nil {
		return nil, false
	}
	state := slices.Clone(best.before)
	for _, c := range best.commits {
		if c <= t {
			state = append(state, c)
		}
	}
	return state, true
}

// TestMomentsAgainstModel: whatever happened, what is selected can be applied, holds nothing later than was asked for, and
// within a span it is there for every moment.
func TestMomentsAgainstModel(t *testing.T) {
	check := func(seed uint64) bool {
		w := randomHistory(rand.New(rand.NewPCG(seed, 7)))
		epochs := w.listed()
		window := recovery.RecoverableMoments(w.points, epochs, time.Minute, second(w.now))
		ok := true
		fail := func(format string, args ...any) {
			ok = false
			t.Errorf("seed %d: %s", seed, fmt.Sprintf(format, args...))
		}
		for now := 1; now <= w.now+1; now++ {
			s, err := recovery.SelectMoment(w.points, epochs, recovery.Selector{At: second(now)})
			inside := slices.ContainsFunc(window.Spans, func(sp recovery.Span) bool { return !second(now).Before(sp.From) && !second(now).After(sp.To) })
			if err != nil {
				if inside {
					fail("%d is in a span and fails: %v", now, err)
				}
				continue
			}
			state, problem := w.apply(s)
			if problem != "" {
				fail("%d: %s: %+v", now, problem, s)
				continue
			}
			if len(state) > 0 && slices.Max(state) > now {
				fail("%d: holds a commit of %d", now, slices.Max(state))
			}
			if inside && !s.Reached.Equal(second(now)) {
				fail("%d is in a span, reached is %s by %+v", now, s.Reached, s)
			}
			if s.Reached.After(second(now)) {
				fail("%d: reached is %s", now, s.Reached)
			}
			// What was reached is what was true then, on some branch: the commits of the snapshot's stream up to then.
			if inside && s.Log != nil {
				if want, known := w.truth(now); known && !slices.Equal(state, want) {
					fail("%d: %v, true was %v, by %+v", now, state, want, s)
				}
			}
		}
		latest, err := recovery.SelectMoment(w.points, epochs, recovery.Selector{})
		if err != nil {
			fail("newest: %v", err)
		} else if _, problem := w.apply(latest); problem != "" {
			fail("newest: %s", problem)
		}
		if !slices.IsSortedFunc(window.Spans, func(a, b recovery.Span) int { return cmp.Or(a.From.Compare(b.From), 1) }) || len(window.Spans) > 0 && len(window.Gaps) < len(window.Spans)-1 {
			fail("%+v", window)
		}
		return ok
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 120}); err != nil {
		t.Error(err)
	}
}

const streamOne, streamTwo = "00000000000000000000000000000001", "00000000000000000000000000000002"

func place(stream string, epoch, sequence uint64) *snapshot.LogPlace {
	return &snapshot.LogPlace{Stream: stream, Epoch: epoch, Sequence: sequence}
}

func based(seq uint64, sec int, p *snapshot.LogPlace) recovery.Point {
	return recovery.Point{Sequence: seq, Started: second(sec), Finished: second(sec), Arrived: second(sec), Log: p}
}

func TestSelectMoment(t *testing.T) {
	run := func(first, last uint64, from, to int) recovery.LogRun {
		return recovery.LogRun{First: first, Last: last, From: second(from), To: second(to)}
	}
	epoch := func(stream string, n uint64, opened int, continues *snapshot.LogPlace, runs ...recovery.LogRun) recovery.LogEpoch {
		return recovery.LogEpoch{Stream: stream, Epoch: n, Opened: second(opened), Continues: continues, Runs: runs}
	}
	holed := []recovery.LogEpoch{epoch(streamOne, 1, 1, nil, run(1, 10, 1, 10), run(13, 30, 13, 30))}
	forked := []recovery.LogEpoch{
		epoch(streamOne, 1, 1, nil, run(1, 40, 1, 40)),
		epoch(streamOne, 2, 20, place(streamOne, 1, 15), run(16, 30, 20, 34)),
	}
	recreated := []recovery.LogEpoch{epoch(streamOne, 1, 1, nil, run(1, 10, 1, 10)), epoch(streamTwo, 1, 50, nil, run(1, 9, 52, 60))}
	for name, tt := range map[string]struct {
		points  []recovery.Point
		epochs  []recovery.LogEpoch
		at      int // 0: the newest
		base    uint64
		through uint64 // 0: nothing of the log
		epoch   uint64
		reached int
		warns   string
	}{
		"in the log":             {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 6, place(streamOne, 1, 5))}, holed, 8, 2, 10, 1, 8, ""},
		"before the next base":   {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 6, place(streamOne, 1, 5))}, holed, 5, 1, 10, 1, 5, ""},
		"in a hole":              {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 15, place(streamOne, 1, 14))}, holed, 12, 1, 10, 1, 10, "next state is known"},
		"after a hole":           {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 15, place(streamOne, 1, 14))}, holed, 20, 2, 30, 1, 20, ""},
		"hole without a base":    {[]recovery.Point{based(1, 0, place(streamOne, 0, 0))}, holed, 20, 1, 10, 1, 10, ""},
		"the newest":             {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 15, place(streamOne, 1, 14))}, holed, 0, 2, 30, 1, 30, ""},
		"before the fork":        {[]recovery.Point{based(1, 0, place(streamOne, 0, 0))}, forked, 18, 1, 40, 1, 18, ""},
		"after the fork":         {[]recovery.Point{based(1, 0, place(streamOne, 0, 0))}, forked, 25, 1, 30, 2, 25, ""},
		"base on the old branch": {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 30, place(streamOne, 1, 30))}, forked, 33, 1, 30, 2, 33, ""},
		"old stream":             {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 51, place(streamTwo, 0, 0))}, recreated, 9, 1, 10, 1, 9, ""},
		"new stream":             {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 51, place(streamTwo, 0, 0))}, recreated, 55, 2, 9, 1, 55, ""},
		"between streams":        {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 51, place(streamTwo, 0, 0))}, recreated, 40, 1, 10, 1, 10, "next state is known"},
		"a snapshot alone":       {[]recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 12, nil)}, holed, 12, 2, 0, 0, 12, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := recovery.Selector{}
			if tt.at != 0 {
				want.At = second(tt.at)
			}
			s, err := recovery.SelectMoment(tt.points, tt.epochs, want)
			if err != nil {
				t.Fatal(err)
			}
			if s.Point.Sequence != tt.base || !s.Reached.Equal(second(tt.reached)) || (s.Log == nil) != (tt.through == 0) || !strings.Contains(strings.Join(s.Warnings, ""), tt.warns) || s.Reason == "" {
				t.Fatalf("%+v", s)
			}
			if s.Log == nil {
				return
			}
			if s.Log.Through.Sequence != tt.through || s.Log.Through.Epoch != tt.epoch || tt.at != 0 && s.Log.Until.After(want.At) {
				t.Errorf("%+v", s.Log)
			}
		})
	}
	if _, err := recovery.SelectMoment([]recovery.Point{based(1, 20, place(streamOne, 1, 20))}, holed, recovery.Selector{At: second(5)}); err == nil {
		t.Error("nothing is there, and it is found")
	}
	// A damaged base gives way to an older one: the records make up for it.
	points := []recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 6, place(streamOne, 1, 5))}
	points[1].Damaged = true
	if s, err := recovery.SelectMoment(points, holed, recovery.Selector{At: second(8)}); err != nil || s.Point.Sequence != 1 || !s.Reached.Equal(second(8)) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestBeside: a log that goes on beside the one that counts is told, by the times of its records and not by their arrivals.
func TestBeside(t *testing.T) {
	points := []recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 51, place(streamTwo, 0, 0))}
	for _, tt := range []struct {
		arrived, written int // the last record of the log of before
		asked            int
		want             string
	}{
		{70, 70, 1, "another log, which begins before, goes on beside this one up to 2026-11-20T10:01:10.000Z: two processes have followed the source; snapshot @1 with a time leads along it"},
		{70, 50, 1, ""}, // a copy has got it late
		{50, 50, 0, ""},
	} {
		epochs := []recovery.LogEpoch{
			{Stream: streamOne, Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{{First: 1, Last: 9, From: second(1), To: second(9)}}},
			{Stream: streamOne, Epoch: 2, Opened: second(10), Continues: place(streamOne, 1, 9), Runs: []recovery.LogRun{{First: 10, Last: 40, From: second(10), To: second(tt.arrived)}}},
			{Stream: streamTwo, Epoch: 1, Opened: second(50), Runs: []recovery.LogRun{{First: 1, Last: 9, From: second(52), To: second(60)}}},
		}
		s, err := recovery.SelectMoment(points, epochs, recovery.Selector{})
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		got, err := recovery.Beside(points, epochs, s, func(i int) error {
			asked++
			epochs[i].Runs[0].To = second(tt.written)
			return nil
		})
		if err != nil || strings.Join(got, "") != tt.want || asked != tt.asked {
			t.Errorf("%+v: %q, %v, asked %d times", tt, got, err, asked)
		}
	}
}

func TestRecoverableMoments(t *testing.T) {
	epochs := []recovery.LogEpoch{
		{Stream: streamOne, Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{{First: 1, Last: 10, From: second(1), To: second(10)}, {First: 13, Last: 30, From: second(13), To: second(30)}}},
		{Stream: streamTwo, Epoch: 1, Opened: second(50), Runs: []recovery.LogRun{{First: 1, Last: 9, From: second(52), To: second(60)}}},
	}
	points := []recovery.Point{based(1, 0, place(streamOne, 0, 0)), based(2, 15, place(streamOne, 1, 14)), based(3, 51, place(streamTwo, 0, 0))}
	w := recovery.RecoverableMoments(points, epochs, time.Minute, second(1000))
	var got []string
	for _, s := range w.Spans {
		got = append(got, fmt.Sprintf("%d-%d", int(s.From.Sub(second(0)).Seconds()), int(s.To.Sub(second(0)).Seconds())))
	}
	if want := []string{"0-10", "15-30", "51-60"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for i, want := range []string{"records 11 to 12 of the log are missing", "snapshot @3 begins a new one", "no record since"} {
		if i >= len(w.Gaps) || !strings.Contains(w.Gaps[i].Cause, want) {
			t.Errorf("gap %d: want %q: %+v", i, want, w.Gaps)
		}
	}
	if len(w.Gaps) == 3 && !w.Gaps[2].Open {
		t.Errorf("%+v", w.Gaps[2])
	}
	// A branch that counts from right after the last commit of the one before leaves no gap.
	epochs = []recovery.LogEpoch{
		{Stream: streamOne, Epoch: 1, Opened: second(1), Runs: []recovery.LogRun{{First: 1, Last: 30, From: second(1), To: second(30)}}},
		{Stream: streamTwo, Epoch: 1, Opened: second(30).Add(2), Continues: place(streamOne, 1, 12), Runs: []recovery.LogRun{{First: 13, Last: 20, From: second(13), To: second(60)}}},
	}
	w = recovery.RecoverableMoments([]recovery.Point{based(1, 0, place(streamOne, 0, 0))}, epochs, time.Hour, second(1000))
	if len(w.Spans) != 1 || len(w.Gaps) != 0 || !w.Spans[0].To.Equal(second(60)) {
		t.Errorf("%+v", w)
	}
}
