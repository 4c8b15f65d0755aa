package postgres

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

const testSegment = 16 << 20

// logUpTo is a mark of a log on timeline 2 that has some segments, and a little more.
func logUpTo(t *testing.T, segments int, rest postgres.LSN) *mark {
	t.Helper()
	m, err := newMark(7, 2, testSegment, testSegment)
	if err != nil {
		t.Fatal(err)
	}
	at := func(sequence uint64, lsn postgres.LSN) point {
		return point{Place: log.Place{Stream: m.Stream, Epoch: 1, Sequence: sequence}, LSN: lsn}
	}
	for i := range segments {
		m.reached(at(uint64(i+1), postgres.LSN(i+2)*testSegment))
	}
	m.reached(at(uint64(segments+1), m.Last.LSN+rest))
	return m
}

func TestPlan(t *testing.T) {
	m := logUpTo(t, 20, 100)
	end := m.Last.LSN
	history := func(timeline uint32, text string) *postgres.TimelineHistory {
		h, err := postgres.ParseHistory(timeline, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, c := range map[string]struct {
		m        *mark
		s        server
		received postgres.LSN
		course   course
		why      string
	}{
		"nothing is known":    {nil, server{7, 2, end, testSegment, true, nil, nil}, 0, begin, ""},
		"it goes on":          {m, server{7, 2, end, testSegment, true, nil, nil}, end, resume, ""},
		"another cluster":     {m, server{8, 2, end, testSegment, true, nil, nil}, end, refuse, "another cluster"},
		"other segments":      {m, server{7, 2, end, 1 << 20, true, nil, nil}, end, gap, "segments"},
		"the old primary":     {m, server{7, 1, end + 99, testSegment, true, nil, nil}, end, refuse, "timeline 1"},
		"a late standby":      {m, server{7, 2, end - 1, testSegment, true, nil, nil}, end, refuse, "only"},
		"late for memory":     {m, server{7, 2, end, testSegment, true, nil, nil}, end + 1, refuse, "only"},
		"promoted later":      {m, server{7, 3, end, testSegment, true, history(3, "1\t0/1000000\n2\t"+(end+5).String()), nil}, end, resume, ""},
		"promoted right here": {m, server{7, 3, end, testSegment, true, history(3, "1\t0/1000000\n2\t"+end.String()), nil}, end, resume, ""},
		"promoted before":     {m, server{7, 3, end, testSegment, true, history(3, "1\t0/1000000\n2\t"+(end-200).String()), nil}, end, fork, ""},
		"two behind":          {m, server{7, 4, end, testSegment, true, history(4, "1\t0/1000000\n2\t"+(end-200).String()+"\n3\t"+end.String()), nil}, end, fork, ""},
		"long before":         {m, server{7, 3, end, testSegment, true, history(3, "1\t0/1000000\n2\t0/3000000"), nil}, end, gap, "long before"},
		"not from ours":       {m, server{7, 3, end, testSegment, true, history(3, "1\t0/1000000"), nil}, end, gap, "does not descend"},
		"nothing says":        {m, server{7, 3, end, testSegment, true, nil, nil}, end, gap, "does not descend"},
	} {
		got := plan(c.m, c.received, c.s)
		if got.course != c.course || !strings.Contains(got.why, c.why) || (got.why == "") != (c.why == "") {
			t.Errorf("%s: %+v", name, got)
		}
		if got.course == refuse && (got.hint == "" || got.state == "") {
			t.Errorf("%s: what can a person do? %+v", name, got)
		}
		if got.course == fork && (got.timeline != 3 || got.at != end-200 || got.place.Sequence != 19) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestTail wants that a snapshot stands where all WAL that it needs comes behind its place.
func TestTail(t *testing.T) {
	if tail, err := ReadTail(filepath.Join(t.TempDir(), "none")); tail != nil || err != nil {
		t.Fatal(tail, err)
	}
	if p := (*Tail)(nil).Place(7, 2, 1, 2); p != nil {
		t.Fatal(p)
	}
	dir := t.TempDir()
	marks, found, err := replicate.OpenMarks(dir, policy.KindPostgres, new(mark))
	if err != nil || found {
		t.Fatal(found, err)
	}
	defer func() { _ = marks.Close() }()
	m := logUpTo(t, 20, 100)
	if err := marks.Set(m, false); err != nil {
		t.Fatal(err)
	}
	tail, err := ReadTail(dir)
	if err != nil || tail == nil {
		t.Fatal(tail, err)
	}
	first := m.Bounds[0].LSN
	if len(m.Bounds) != keptBounds {
		t.Errorf("%d starts of segments are known", len(m.Bounds))
	}
	for start, want := range map[postgres.LSN]postgres.LSN{
		m.Last.LSN + 5*testSegment:          m.Last.LSN.SegmentStart(testSegment),    // the log is late
		m.Last.LSN:                          m.Last.LSN.SegmentStart(testSegment),    //
		m.Last.LSN.SegmentStart(16<<20) - 1: m.Last.LSN.SegmentStart(16<<20) - 1<<24, // it is ahead
		first:                               first,
		first - 1:                           first, // a standby
	} {
		got := tail.Place(7, 2, start, max(start, first))
		bound, ok := m.bound(want)
		if got == nil || !ok || *got != bound {
			t.Errorf("a backup that begins at %s stands at %v, want %v of %s", start, got, bound, want)
		}
	}
	if tail.Place(8, 2, first, first) != nil || tail.Place(7, 1, first, first) != nil {
		t.Error("a place in the log of another system or timeline")
	}
	// A standby that is far behind what it has received: nothing has what is between.
	if p := tail.Place(7, 2, first-testSegment, first-1); p != nil {
		t.Errorf("a backup that ends before all that is known stands at %v", p)
	}
}

func TestDanger(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	u := func(v uint64) *uint64 { return &v }
	for name, c := range map[string]struct {
		slot replicate.Slot
		bad  bool
	}{
		"well":         {replicate.Slot{State: "reserved", Retained: 5 << 20, Safe: n(1 << 40), Limit: u(1 << 40)}, false},
		"extended":     {replicate.Slot{State: "extended", Retained: 5 << 30}, false},
		"lost":         {replicate.Slot{State: "lost"}, true},
		"unreserved":   {replicate.Slot{State: "unreserved", Retained: 1 << 30, Limit: u(1 << 29), Safe: n(-5)}, true},
		"soon":         {replicate.Slot{State: "extended", Retained: 950 << 20, Limit: u(1 << 30), Safe: n(74 << 20)}, true},
		"small limit":  {replicate.Slot{State: "reserved", Retained: 1 << 20, Limit: u(32 << 20), Safe: n(6 << 20)}, false},
		"disk":         {replicate.Slot{State: "extended", Retained: 1 << 30, Free: u(5 << 30), Disk: u(100 << 30)}, true},
		"somebody":     {replicate.Slot{State: "reserved", Retained: 1 << 20, Free: u(5 << 30), Disk: u(100 << 30)}, false},
		"enough space": {replicate.Slot{State: "extended", Retained: 1 << 30, Free: u(50 << 30), Disk: u(100 << 30)}, false},
	} {
		got := danger(&c.slot, false)
		if (got != nil) != c.bad || got != nil && (got.why == "" || got.hint == "" || got.state != replicate.Endangered) {
			t.Errorf("%s: %+v", name, got)
		}
		if notes := notesOf(&seenSlot{Slot: c.slot}); (len(notes) == 0) != (c.slot.Limit != nil) {
			t.Errorf("%s: %v", name, notes)
		}
	}
}
