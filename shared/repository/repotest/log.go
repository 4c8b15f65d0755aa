package repotest

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/log"
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

// ReadLog returns the positions of the records of a range in another store.
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
		out = append(out, string(r.Position))
	}
	return out, nil
}
