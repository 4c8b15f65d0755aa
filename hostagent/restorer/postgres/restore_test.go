package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestTargets restores one cluster to every kind of target, on each version.
func TestTargets(t *testing.T) {
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cluster.Options{Version: v})
			w.insert(1)
			w.base()
			w.insert(2)
			w.ship()
			between := w.insert(3)
			w.ship()
			w.Psql("DELETE FROM kept WHERE n = 1")
			w.bulk(3 << 10)
			w.ship()
			lsn := w.flushed()
			w.Psql("SELECT pg_create_restore_point('before the mistake')")
			xid := w.Psql("BEGIN; INSERT INTO kept VALUES (4, 'row'); SELECT txid_current() % (2^32)::bigint; COMMIT")
			w.Psql("DELETE FROM kept WHERE n = 2")
			w.ship()
			late := w.now()
			var number uint64
			if _, err := fmt.Sscan(xid, &number); err != nil {
				t.Fatal(xid, err)
			}
			for _, c := range []struct {
				target Target
				rows   string
			}{
				{Target{Kind: Latest}, "3,4"},
				{Target{Kind: Time, Time: between}, "1,2,3"},
				{Target{Kind: Time, Time: late}, "3,4"},
				{Target{Kind: LSN, LSN: lsn}, "2,3"},
				{Target{Kind: XID, XID: number}, "2,3,4"},
				{Target{Kind: XID, XID: number, Exclusive: true}, "2,3"},
				{Target{Kind: Name, Name: "before the mistake"}, "2,3"},
			} {
				r, err := w.restore(c.target)
				if err != nil {
					t.Errorf("%s: %v", c.target, err)
					continue
				}
				if r.Reached.Now != 2 || r.Reached.LSN < w.src.Stop || len(r.Warnings) > 0 {
					t.Errorf("%s: %+v, %q", c.target, r.Reached, r.Warnings)
				}
				w.done(r)
				if got := w.rows(r.Path); got != c.rows {
					t.Errorf("%s: rows %s, want %s; %s", c.target, got, c.rows, r.Reached.Words)
				}
			}
		})
	}
}

// TestRefused asks for targets that can't be had: nothing is touched.
func TestRefused(t *testing.T) {
	w := newWorld(t, cluster.Options{})
	w.base()
	w.insert(2)
	w.ship()
	for _, target := range []Target{
		{Kind: Time, Time: w.src.Time.Add(-time.Second)},
		{Kind: LSN, LSN: w.src.Stop - 8},
		{Kind: LSN, LSN: w.flushed() + 1<<20},
		{Kind: LSN},
		{Kind: XID, XID: 2},
		{Kind: Name},
	} {
		_, err := w.restore(target)
		var refused *TargetError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", target, err)
			continue
		}
		t.Log(refused, "/", refused.Hint())
	}
	// What only the log can tell.
	for _, target := range []Target{{Kind: Name, Name: "nobody made it"}, {Kind: XID, XID: 4000000}} {
		if _, err := w.restore(target); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", target, err)
		} else {
			t.Log(err)
		}
	}
}

// TestDamage takes pieces out of the log, cuts, empties and alters them: recovery ends and says where, and never promotes.
func TestDamage(t *testing.T) {
	w := newWorld(t, cluster.Options{})
	w.base()
	for n := range 4 {
		w.insert(n)
		w.bulk(1 << 10)
		w.ship()
	}
	end := w.insert(9)
	w.ship()
	whole := w.records
	amid := len(whole) / 2
	for name, spoil := range map[string]func([]Record) []Record{
		"missing":  func(r []Record) []Record { return append(r[:amid:amid], r[amid+1:]...) },
		"cut":      func(r []Record) []Record { r[amid].WAL = r[amid].WAL[:100]; return r },
		"zeros":    func(r []Record) []Record { r[amid].WAL = make([]byte, len(r[amid].WAL)); return r },
		"altered":  func(r []Record) []Record { flip(&r[amid], len(r[amid].WAL)/2); return r },
		"swapped":  func(r []Record) []Record { r[amid].WAL, r[amid+1].WAL = r[amid+1].WAL, r[amid].WAL; return r },
		"repeated": func(r []Record) []Record { return append(r[:amid+1:amid+1], r[amid:]...) },
	} {
		w.records = spoil(append([]Record(nil), whole...))
		for _, target := range []Target{{Kind: Latest}, {Kind: Time, Time: end}} {
			dir := w.place + "/damaged"
			_, err := w.toDir(dir, target)
			e := w.gone(err, dir)
			var hole *HoleError
			if !errors.As(err, &hole) && !errors.Is(err, ErrShort) {
				t.Errorf("%s: %v", name, err)
			}
			t.Log(name, target, e)
		}
	}
}

var _ pg.LSN
