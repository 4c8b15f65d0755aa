package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const mib = 1 << 20

func cluster(timeline uint32) *record.PostgresLog {
	return &record.PostgresLog{System: 7412345678901234567, Timeline: timeline, SegmentSize: mib}
}

// walOptions are those of a writer of WAL of a timeline.
func walOptions(f *repotest.Fixture, timeline uint32) log.Options {
	o := options(f)
	o.Kind, o.Postgres = log.KindPostgres, cluster(timeline)
	return o
}

// wal is a record of WAL between two places, whose bytes tell where they are from.
func wal(f *repotest.Fixture, from, to postgres.LSN) log.Record {
	f.Now = f.Now.Add(time.Second)
	b := make([]byte, to-from)
	for i := range b {
		b[i] = byte((int(from) + i) >> 10)
	}
	return log.Record{Time: f.Now, WAL: &log.WAL{Start: from, Bytes: b}}
}

func history(timeline uint32, lines string) log.Record {
	return log.Record{History: &log.History{Timeline: timeline, Content: []byte(lines)}}
}

// put appends records and returns the place of the last.
func put(t testing.TB, w *log.Writer, records ...log.Record) log.Place {
	t.Helper()
	var at log.Place
	for _, r := range records {
		var err error
		if at, err = w.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// readWAL returns what is in the records of a range: "0/100000-0/180000", "history 2".
func readWAL(t testing.TB, f *repotest.Fixture, rg log.Range) ([]string, error) {
	t.Helper()
	var out []string
	for r, err := range log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source)).Records(t.Context(), rg) {
		switch {
		case err != nil:
			return out, err
		case r.History != nil:
			out = append(out, fmt.Sprintf("history %d", r.History.Timeline))
		default:
			if want := wal(f, r.WAL.Start, r.WAL.End()); !bytes.Equal(want.WAL.Bytes, r.WAL.Bytes) {
				t.Errorf("other bytes at %s", r.WAL.Start)
			}
			out = append(out, r.WAL.Start.String()+"-"+r.WAL.End().String())
		}
	}
	return out, nil
}

// timelines is a log of timeline 1 in two epochs, 0/100000 to 0/2C0000, and of timeline 2, which leaves it at 0/2A0000.
func timelines(t *testing.T) (f *repotest.Fixture, first, second *log.Writer, end log.Place) {
	t.Helper()
	f = repotest.New(t)
	w := create(t, f, walOptions(f, 1))
	old := put(t, w, wal(f, 0x100000, 0x180000), wal(f, 0x180000, 0x200000))
	o := walOptions(f, 1)
	o.Stream, o.After, o.Continues = w.Stream(), 1, &old
	first = create(t, f, o)
	left := put(t, first, wal(f, 0x200000, 0x280000), wal(f, 0x280000, 0x2C0000))
	o = walOptions(f, 2)
	o.Continues = &left
	second = create(t, f, o)
	end = put(t, second, history(2, "1\t0/2A0000\tno recovery target specified\n"), wal(f, 0x200000, 0x300000), wal(f, 0x300000, 0x300001))
	return f, first, second, end
}

func TestWAL(t *testing.T) {
	f, first, second, end := timelines(t)
	if !strings.HasPrefix(second.Stream(), cluster(2).StreamPrefix()) {
		t.Errorf("stream %s", second.Stream())
	}
	want := []string{"0/100000-0/180000", "0/180000-0/200000", "0/200000-0/280000", "0/280000-0/2C0000", "history 2", "0/200000-0/300000", "0/300000-0/300001"}
	got, err := readWAL(t, f, log.Range{From: start(first.Stream()), Through: end})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// From the place where the timelines part, and from one in the middle.
	for n := range 5 {
		all := streams(t, f.Repo, f.Source)
		place := log.Place{Stream: first.Stream(), Epoch: []uint64{0, 1, 1, 2, 2}[n], Sequence: uint64(n)}
		got, err := readWAL(t, f, log.Range{From: place, Through: end})
		if err != nil || !slices.Equal(got, want[n:]) {
			t.Errorf("from %s: %v, %v", place, got, err)
		}
		rec, err := log.NewReader(f.Repo, f.Source, all).Record(t.Context(), end.Stream, 1, end.Sequence)
		if err != nil || rec.WAL.Start != 0x300000 || rec.Place != end {
			t.Errorf("%+v, %v", rec, err)
		}
	}
	if _, err := log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source)).Record(t.Context(), end.Stream, 1, end.Sequence+1); !errors.As(err, new(*log.HoleError)) {
		t.Error(err)
	}
	// Joined they are the same.
	if n, err := second.Join(t.Context(), 2); err != nil || n != 1 {
		t.Error(n, err)
	}
	got, err = readWAL(t, f, log.Range{From: start(first.Stream()), Through: end})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("joined: %v, %v", got, err)
	}
	// The old timeline alone can be read as well.
	got, err = readWAL(t, f, log.Range{From: start(first.Stream()), Through: first.Place()})
	if err != nil || !slices.Equal(got, want[:4]) {
		t.Errorf("the old timeline: %v, %v", got, err)
	}
	for e, want := range map[*log.Epoch]uint32{epochOf(t, f, first.Stream(), 2): 1, epochOf(t, f, second.Stream(), 1): 2} {
		if e.Described.Kind != log.KindPostgres || e.Described.Postgres.Timeline != want || e.Described.Postgres.System != cluster(1).System {
			t.Errorf("%+v", e.Described)
		}
	}
}

func epochOf(t *testing.T, f *repotest.Fixture, stream string, epoch uint64) *log.Epoch {
	t.Helper()
	for _, s := range streams(t, f.Repo, f.Source) {
		for _, e := range s.Epochs {
			if s.ID == stream && e.Epoch == epoch {
				return e
			}
		}
	}
	t.Fatalf("no epoch %d of %s", epoch, stream)
	return nil
}

// TestWriterRefusesWAL has a writer get what may not be in a log of WAL; after it, what may still can.
func TestWriterRefusesWAL(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, walOptions(f, 1))
	refuse := func(name string, r log.Record, position bool) {
		t.Helper()
		_, err := w.Prepare(r)
		var p *log.PositionError
		if err == nil || errors.As(err, &p) != position {
			t.Errorf("%s: %v", name, err)
		}
	}
	refuse("not from the start of a segment", wal(f, 0x180000, 0x1A0000), true)
	put(t, w, wal(f, 0x100000, 0x180000))
	refuse("a hole", wal(f, 0x190000, 0x1A0000), true)
	refuse("again", wal(f, 0x100000, 0x180000), true)
	refuse("over the end of a segment", wal(f, 0x180000, 0x200001), false)
	refuse("nothing", log.Record{WAL: &log.WAL{Start: 0x180000}}, false)
	refuse("neither", log.Record{}, false)
	refuse("both", log.Record{WAL: wal(f, 0x180000, 0x180001).WAL, History: history(2, "1\t0/1\n").History}, false)
	refuse("pages", commit(f.Now, 1, 1), false)
	refuse("history of timeline 1", history(1, "x"), false)
	end := put(t, w, wal(f, 0x180000, 0x200000))

	large := walOptions(f, 3)
	large.Postgres.SegmentSize = 16 * mib
	large.Continues = &end
	w = create(t, f, large)
	refuse("no history", wal(f, 0x0, 0x100), true)
	refuse("a history that is none", history(3, "what\n"), true)
	put(t, w, history(2, "1\t0/1F0000\n"), history(3, "1\t0/1F0000\n2\t0/1F8000\n"))
	refuse("more than one record holds", wal(f, 0x0, log.MaxWAL+1), false)
	put(t, w, wal(f, 0x0, log.MaxWAL))

	sqlite := create(t, f, options(f))
	w = sqlite
	refuse("WAL among pages", wal(f, 0x100000, 0x180000), false)

	o := walOptions(f, 1)
	o.Next = 0x500000
	w = create(t, f, o)
	refuse("another place than the caller said", wal(f, 0x600000, 0x600001), true)
	put(t, w, wal(f, 0x500000, 0x500001), wal(f, 0x500001, 0x500002))
	for name, o := range map[string]log.Options{
		"no cluster": {Kind: log.KindPostgres}, "a cluster of SQLite": {Postgres: cluster(1)},
		"another stream": {Kind: log.KindPostgres, Postgres: cluster(1), Stream: cluster(2).StreamPrefix() + "00000000"},
		"no timeline":    {Kind: log.KindPostgres, Postgres: &record.PostgresLog{System: 1, SegmentSize: mib}},
		"segments":       {Kind: log.KindPostgres, Postgres: &record.PostgresLog{System: 1, Timeline: 1, SegmentSize: 5}},
	} {
		o.Tool = "test"
		if _, err := log.Create(t.Context(), f.Repo, f.Source, o); err == nil {
			t.Errorf("%s: a log is opened", name)
		}
	}
}

// forge puts the records of an epoch that a writer would refuse: as if an old program, or an attacker with the host's keys,
// had written them. It does so with a writer each, which does not know where the one before it ended.
func forge(t *testing.T, f *repotest.Fixture, timeline uint32, continues *log.Place, stream string, after uint64, r log.Record) (*log.Writer, log.Place) {
	t.Helper()
	o := walOptions(f, timeline)
	o.Stream, o.After, o.Continues = stream, after, continues
	w := create(t, f, o)
	return w, put(t, w, r)
}

// TestGapsOfWAL reads logs whose records are in order, one after the other, but whose WAL is not.
func TestGapsOfWAL(t *testing.T) {
	f := repotest.New(t)
	w, one := forge(t, f, 1, nil, "", 0, wal(f, 0x100000, 0x180000))
	for i, tt := range []struct {
		name     string
		from, to postgres.LSN
		says     string
	}{
		{"goes on", 0x180000, 0x190000, ""},
		{"missing", 0x1A0000, 0x1B0000, "WAL of timeline 1 from 0/180000 to 0/1A0000 is missing"},
		{"twice", 0x170000, 0x190000, "goes back from 0/180000 to 0/170000"},
	} {
		name := tt.name
		_, two := forge(t, f, 1, &one, w.Stream(), uint64(i+1), wal(f, tt.from, tt.to)) //nolint:gosec // small
		_, err := readWAL(t, f, log.Range{From: start(w.Stream()), Through: two})
		hole := new(log.HoleError)
		if tt.says == "" && err != nil || tt.says != "" && (!errors.As(err, &hole) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Over to another timeline: of the old one there is WAL up to 0/180000.
	for name, tt := range map[string]struct {
		timeline uint32
		history  string
		start    postgres.LSN
		says     string
	}{
		"from its segment":        {2, "1\t0/178000\tx\n", 0x100000, ""},
		"over two":                {3, "1\t0/178000\n2\t0/17A000\n", 0x100000, ""},
		"left later than we have": {2, "1\t0/290000\tx\n", 0x200000, "from 0/180000 to 0/200000 is missing"},
		"later than it was left":  {2, "1\t0/178000\tx\n", 0x200000, "from 0/178000 to 0/200000 is missing"},
		"one between is missing":  {3, "1\t0/178000\n2\t0/270000\n", 0x200000, "from 0/178000 to 0/200000 is missing"},
		"from another":            {3, "2\t0/178000\n", 0x100000, "does not come from timeline 1"},
	} {
		o := walOptions(f, tt.timeline)
		o.Continues = &one
		next := create(t, f, o)
		end := put(t, next, history(tt.timeline, tt.history), wal(f, tt.start, tt.start+100))
		_, err := readWAL(t, f, log.Range{From: start(w.Stream()), Through: end})
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInspectWAL has a piece and a segment say where their WAL is.
func TestInspectWAL(t *testing.T) {
	f, first, second, end := timelines(t)
	if _, err := second.Join(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	r := log.NewReader(f.Repo, f.Source, streams(t, f.Repo, f.Source))
	e := epochOf(t, f, second.Stream(), 1)
	i, err := r.Inspect(t.Context(), e, layout.LogObject{Stream: e.Stream, Epoch: 1, First: end.Sequence - 2, Last: end.Sequence, Joined: true}, true)
	if err != nil || i.Gap != nil || i.WAL != 0x200000 || !slices.Equal(i.Ends, []postgres.LSN{0, 0x300000, 0x300001}) || i.History == nil || i.Records != 3 {
		t.Errorf("%+v, %v", i, err)
	}
	e = epochOf(t, f, first.Stream(), 2)
	i, err = r.Inspect(t.Context(), e, layout.LogObject{Stream: e.Stream, Epoch: 2, First: 3, Last: 3}, true)
	if err != nil || i.Gap != nil || i.WAL != 0x200000 || !slices.Equal(i.Ends, []postgres.LSN{0x280000}) || i.History != nil {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestNeededTimelines says what retention keeps for snapshots on both timelines.
func TestNeededTimelines(t *testing.T) {
	f, first, second, end := timelines(t)
	all := streams(t, f.Repo, f.Source)
	text := func(from ...snapshot.LogPlace) string {
		var out []string
		for name, n := range log.Needed(all, from) {
			which := "old"
			if name.Stream == second.Stream() {
				which = "new"
			}
			out = append(out, fmt.Sprintf("%s/%d from %d", which, name.Epoch, n))
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	for _, tt := range []struct {
		place snapshot.LogPlace
		want  string
	}{
		{log.Place{Stream: first.Stream()}, "new/1 from 5, old/1 from 1, old/2 from 3"},
		{log.Place{Stream: first.Stream(), Epoch: 1, Sequence: 1}, "new/1 from 5, old/1 from 2, old/2 from 3"},
		{log.Place{Stream: first.Stream(), Epoch: 2, Sequence: 3}, "new/1 from 5, old/2 from 4"},
		{end, fmt.Sprintf("new/1 from %d", end.Sequence+1)},
	} {
		if got := text(tt.place); got != tt.want {
			t.Errorf("from %s: %s, want %s", tt.place, got, tt.want)
		}
	}
	if got := text(end, log.Place{Stream: first.Stream(), Epoch: 2, Sequence: 4}); got != "new/1 from 5, old/2 from 5" {
		t.Errorf("from both: %s", got)
	}
}

// BenchmarkWAL writes 64 MiB of WAL as a follower does, and reads it as a recovery does. Its bytes are of medium entropy.
func BenchmarkWAL(b *testing.B) {
	const size, step = 64 * mib, mib
	content := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	for i := range content {
		if content[i] = byte(r.IntN(256)); i%4 > 0 {
			content[i] = byte(i >> 6)
		}
	}
	f := repotest.New(b)
	var from, end log.Place
	b.Run("write", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			w := create(b, f, walOptions(f, 1))
			from = log.Place{Stream: w.Stream()}
			for at := 0; at < size; at += step {
				end = put(b, w, log.Record{Time: f.Now, WAL: &log.WAL{Start: mib + postgres.LSN(at), Bytes: content[at : at+step]}})
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			n := 0
			for r, err := range log.NewReader(f.Repo, f.Source, streams(b, f.Repo, f.Source)).Records(context.Background(), log.Range{From: from, Through: end}) {
				if err != nil {
					b.Fatal(err)
				}
				n += len(r.WAL.Bytes)
			}
			if n != size {
				b.Fatal(n)
			}
		}
	})
}
