package postgres

import (
	"cmp"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// ended is the end of a transaction in WAL: from where to where its record goes, and when the newest was up to it.
type ended struct {
	from, to postgres.LSN
	newest   time.Time
}

// newest is the time of the newest of those that end at an LSN at the latest, and of those that begin before it.
func newest(all []ended, at postgres.LSN) (whole, begun time.Time) {
	n, _ := slices.BinarySearchFunc(all, at, func(e ended, at postgres.LSN) int { return cmp.Compare(e.to, at+1) })
	if n > 0 {
		whole = all[n-1].newest
	}
	if begun = whole; n < len(all) && all[n].from < at {
		begun = all[n].newest
	}
	return whole, begun
}

// walOf is what a server has written with some hundred transactions, one of them with an end that goes over pages.
func walOf(t *testing.T) (start postgres.LSN, wal []byte, all []ended) {
	t.Helper()
	const segment = postgres.MinSegmentSize
	s := cluster.Start(t, cluster.Options{SegmentSize: 1})
	s.Psql("CREATE TABLE t (n int, filler text)")
	first, err := postgres.ParseLSN(s.Psql("SELECT pg_current_wal_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.Psql("DO $$ BEGIN FOR i IN 1..150 LOOP INSERT INTO t VALUES (i, repeat('x', 3000)); COMMIT; END LOOP; END $$")
		s.Psql("DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN INSERT INTO t VALUES (i); EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$")
	}
	end, err := postgres.ParseLSN(s.Psql("SELECT pg_switch_wal()"))
	if err != nil {
		t.Fatal(err)
	}
	s.Stop("immediate") // a checkpoint would remove WAL
	start = first.SegmentStart(segment)
	for at := start; at < end; at += segment {
		b, err := os.ReadFile(filepath.Join(s.Dir, "pg_wal", postgres.SegmentName(1, at, segment)))
		if err != nil {
			t.Fatal(err)
		}
		wal = append(wal, b...)
	}
	wal = wal[:end-start]
	w := postgres.NewWalker(postgres.Origin{Timeline: math.MaxUint32, SegmentSize: segment}, start)
	var last time.Time
	w.Observe(func(e postgres.Event) {
		if e.Time.After(last) {
			last = e.Time
		}
		all = append(all, ended{from: e.At, newest: last})
	})
	for i := range wal {
		if _, err := w.Write(wal[i : i+1]); err != nil {
			t.Fatal(err)
		}
		if n := len(all); n > 0 && all[n-1].to == 0 {
			all[n-1].to = start + postgres.LSN(i) + 1
		}
	}
	if !slices.ContainsFunc(all, func(e ended) bool { return e.to-e.from > pageSize }) {
		t.Fatalf("none of %d transactions ends in more than a page", len(all))
	}
	return start, wal, all
}

// TestDated sends WAL in random pieces, some of which end where the server's WAL did then, over processes and connections. The
// time of each record is that of no transaction that ends before it or later, nor of one that begins behind it.
func TestDated(t *testing.T) {
	t.Parallel()
	const segment = postgres.MinSegmentSize
	start, wal, all := walOf(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d bytes", seed, len(wal))
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 5 {
		size, processes := 512+r.IntN(1<<r.IntN(18)), 100
		q := newIntake(point{LSN: start, Time: all[0].newest.Add(-time.Second)}, segment, math.MaxInt32)
		for at := 0; at < len(wal); {
			n := min(1+r.IntN(size), len(wal)-at)
			end := start + postgres.LSN(at+n)
			_, begun := newest(all, end)
			caught := r.IntN(4) == 0
			if err := q.add(t.Context(), start+postgres.LSN(at), wal[at:at+n], arrival{sent: begun, came: begun, caught: caught}); err != nil {
				t.Fatal(err)
			}
			at += n
			if r.IntN(3) > 0 {
				continue
			}
			var b *batch
			for {
				next, _ := q.take(begun, true, func(time.Time) time.Time { return begun })
				if next == nil {
					break
				}
				b = next
				whole, begun := newest(all, b.end())
				if b.newest.Before(whole) || b.newest.After(begun.Add(time.Microsecond/2)) && b.newest.After(all[0].newest) || b.first.After(b.newest) {
					t.Fatalf("round %d: the record from %s to %s is of %s: want %s to %s", round, b.start, b.end(), b.newest, whole, begun)
				}
				q.done()
			}
			if caught && b != nil && r.IntN(4) == 0 && processes > 0 { // each is a nanosecond later
				processes--
				from, tail := q.from, slices.Clone(q.tail)
				q = newIntake((&mark{Last: point{LSN: q.next, Time: b.newest}}).onward(), segment, math.MaxInt32)
				q.proven(from, tail)
			}
		}
	}
}
