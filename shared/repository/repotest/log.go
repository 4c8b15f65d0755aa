package repotest

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// OpenLog opens the next epoch of a log; an empty stream makes a new one.
func (f *Fixture) OpenLog(t testing.TB, stream string, after uint64, continues *log.Place) *log.Writer {
	t.Helper()
	w, err := log.Create(context.Background(), f.Repo, f.Source, log.Options{
		Stream: stream, After: after, Continues: continues, Opened: f.Now, Tool: "test", Temp: f.state, Now: func() time.Time { return f.Now },
		Pause: time.Microsecond, MaxPause: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// Commit is a record of one page; the page and the record's position tell its number.
func Commit(at time.Time, n int) log.Record {
	return log.Record{Time: at, PageSize: 512, Pages: 100, Position: fmt.Append(nil, n), Each: func(yield func(uint32, []byte) error) error {
		b := make([]byte, 512)
		binary.BigEndian.PutUint64(b, uint64(n)) //nolint:gosec // small
		return yield(uint32(n%100)+1, b)         //nolint:gosec // small
	}}
}

// WriteLog appends records, step apart, numbered from first on, and returns the place of the last.
func (f *Fixture) WriteLog(t testing.TB, w *log.Writer, first, count int, step time.Duration) log.Place {
	t.Helper()
	place := w.Place()
	for n := first; n < first+count; n++ {
		f.Now = f.Now.Add(step)
		var err error
		if place, err = w.Append(context.Background(), Commit(f.Now, n)); err != nil {
			t.Fatal(err)
		}
	}
	return place
}

// ReadLog returns the positions of the records of a range in another store; of WAL from where to where it is.
func (f *Fixture) ReadLog(t testing.TB, store objstore.Store, rg log.Range) ([]string, error) {
	t.Helper()
	repo := f.Open(t, store)
	all, err := log.Streams(context.Background(), repo, f.Source)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for r, err := range log.NewReader(repo, f.Source, all).Records(context.Background(), rg) {
		if err != nil {
			return out, err
		}
		switch {
		case r.WAL != nil:
			out = append(out, r.WAL.Start.String()+"-"+r.WAL.End().String())
		case r.History != nil:
			out = append(out, fmt.Sprintf("history %d", r.History.Timeline))
		default:
			out = append(out, string(r.Position))
		}
	}
	return out, nil
}

// Cluster is a timeline of a cluster of PostgreSQL with WAL segments of 1 MiB.
func Cluster(timeline uint32) *record.PostgresLog {
	return &record.PostgresLog{System: 7412345678901234567, Timeline: timeline, SegmentSize: 1 << 20}
}

// OpenWAL opens the next epoch of a log of WAL; an empty stream makes a new one.
func (f *Fixture) OpenWAL(t testing.TB, timeline uint32, stream string, after uint64, continues *log.Place) *log.Writer {
	t.Helper()
	w, err := log.Create(context.Background(), f.Repo, f.Source, log.Options{
		Kind: log.KindPostgres, Postgres: Cluster(timeline), Stream: stream, After: after, Continues: continues, Opened: f.Now, Tool: "test",
		Temp: f.state, Now: func() time.Time { return f.Now }, Pause: time.Microsecond, MaxPause: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// WriteWAL appends a record for each place, of the WAL from the place before it, a second apart, and returns the place of
// the last in the log. The bytes tell where they are from.
func (f *Fixture) WriteWAL(t testing.TB, w *log.Writer, from postgres.LSN, to ...postgres.LSN) log.Place {
	t.Helper()
	place := w.Place()
	for _, end := range to {
		f.Now = f.Now.Add(time.Second)
		b := make([]byte, end-from)
		for i := range b {
			b[i] = byte((uint64(from) + uint64(i)) >> 10) //nolint:gosec // cut on purpose
		}
		var err error
		if place, err = w.Append(context.Background(), log.Record{Time: f.Now, WAL: &log.WAL{Start: from, Bytes: b}}); err != nil {
			t.Fatal(err)
		}
		from = end
	}
	return place
}

// WriteHistory appends the history of a timeline.
func (f *Fixture) WriteHistory(t testing.TB, w *log.Writer, timeline uint32, lines string) log.Place {
	t.Helper()
	place, err := w.Append(context.Background(), log.Record{Time: f.Now, History: &log.History{Timeline: timeline, Content: []byte(lines)}})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

// Timelines makes a snapshot and a log of WAL after it: 20 records of timeline 1, of which a segment has all, 5 in another
// epoch, then a history and 4 of timeline 2, before which there is another snapshot. It returns where the log begins, where
// the timelines part, and its end.
func (f *Fixture) Timelines(t testing.TB) (start, parted, end log.Place) {
	t.Helper()
	places := func(from postgres.LSN, n int) []postgres.LSN {
		var out []postgres.LSN
		for range n {
			from += 0x10000
			out = append(out, from)
		}
		return out
	}
	w := f.OpenWAL(t, 1, "", 0, nil)
	start = log.Place{Stream: w.Stream()}
	f.Log = &start
	f.Backup(t, "", Tree{"/srv/db": []byte("base")})
	parted = f.WriteWAL(t, w, 0x100000, places(0x100000, 20)...)
	if n, err := w.Join(context.Background(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	continues := parted
	parted = f.WriteWAL(t, f.OpenWAL(t, 1, w.Stream(), 1, &continues), 0x240000, places(0x240000, 5)...)
	f.Log = &parted
	f.Backup(t, "", Tree{"/srv/db": []byte("later")})
	w = f.OpenWAL(t, 2, "", 0, &parted)
	f.WriteHistory(t, w, 2, "1\t0/28F000\tno recovery target specified\n")
	end = f.WriteWAL(t, w, 0x200000, places(0x200000, 4)...)
	return start, parted, end
}
