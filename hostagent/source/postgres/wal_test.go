package postgres

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// segment is a file of pg_wal.
type segment struct {
	name  string
	bytes []byte
}

// segments makes a server write WAL and returns it from the segment on in which it began.
func segments(t *testing.T) (all []segment, origin postgres.Origin, stop postgres.LSN) {
	t.Helper()
	s := cluster.Start(t, cluster.Options{SegmentSize: 1, Config: map[string]string{"wal_keep_size": "64MB"}})
	parse := func(text string) postgres.LSN {
		at, err := postgres.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	s.Psql("SELECT pg_switch_wal()")
	start := parse(s.Psql("SELECT pg_current_wal_lsn()")).SegmentStart(1 << 20)
	s.Psql("CREATE TABLE t AS SELECT i, repeat('x', 100) FROM generate_series(1, 30000) i")
	s.Psql("SELECT pg_switch_wal(); CREATE TABLE u AS SELECT i FROM generate_series(1, 10) i; CHECKPOINT")
	stop = parse(s.Psql("SELECT pg_current_wal_flush_lsn()"))
	control, err := os.ReadFile(filepath.Join(s.Dir, controlFile))
	if err != nil {
		t.Fatal(err)
	}
	c, err := postgres.ParseControl(control)
	if err != nil {
		t.Fatal(err)
	}
	s.Stop("immediate")
	for at := start; at < stop; at += 1 << 20 {
		name := postgres.SegmentName(1, at, 1<<20)
		b, err := os.ReadFile(filepath.Join(s.Dir, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, segment{name, b})
	}
	if len(all) < 4 {
		t.Fatalf("%d segments", len(all))
	}
	return all, postgres.Origin{System: c.System, Timeline: 1, SegmentSize: 1 << 20}, stop
}

func TestWALOfABackup(t *testing.T) {
	all, origin, stop := segments(t)
	first, err := postgres.ParseName(all[0].name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	// follow takes segments in, in small parts, and says what is wrong.
	follow := func(o postgres.Origin, files []segment) error {
		w := newWALCheck(o, first.Start+40)
		for _, f := range files {
			look := w.file(f.name, uint64(len(f.bytes)))
			if look == nil {
				continue
			}
			for at := 0; at < len(f.bytes); at += 64 << 10 {
				if err := look(uint64(at), f.bytes[at:at+64<<10]); err != nil {
					t.Fatal(err)
				}
			}
		}
		return w.reaches(stop)
	}
	clone := func() []segment {
		out := slices.Clone(all)
		for i := range out {
			out[i].bytes = bytes.Clone(out[i].bytes)
		}
		return out
	}
	whole := clone()
	if err := follow(origin, whole); err != nil {
		t.Fatalf("whole: %v", err)
	}
	// Behind the end of what was written there are zeros, before it nothing has changed.
	last := whole[len(whole)-1].bytes
	used := int(stop - stop.SegmentStart(1<<20))
	end := (used + 2*postgres.BlockSize) / postgres.BlockSize * postgres.BlockSize
	if !bytes.Equal(last[:used], all[len(all)-1].bytes[:used]) || len(bytes.Trim(last[end:], "\x00")) > 0 {
		t.Error("the end of WAL is not what it should be")
	}

	fails := func(what string, o postgres.Origin, files []segment, want string) {
		t.Helper()
		if err := follow(o, files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	fails("one is missing", origin, slices.Delete(clone(), 1, 2), "comes the segment "+all[2].name)
	fails("the last is missing", origin, clone()[:len(all)-1], "it ends at ")
	fails("the first is missing", origin, clone()[1:], "comes the segment "+all[1].name)
	fails("all are missing", origin, nil, "it ends at 0/0")
	damaged := clone()
	damaged[1].bytes[300<<10] ^= 1
	fails("a bit", origin, damaged, "WAL at ")
	short := clone()
	clear(short[1].bytes[512<<10:])
	fails("the end of one", origin, short, "WAL at ")
	other := origin
	other.System++
	fails("another system", other, clone(), "WAL at ")
	other = origin
	other.Timeline++
	fails("another timeline", other, clone(), "it ends at 0/0")
}
