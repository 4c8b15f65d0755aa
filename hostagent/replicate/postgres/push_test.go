package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/hostagent/replicate/replicatetest"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// archive gives all files that a server has kept for its archive to wal-push, in the server's order: histories first.
func (w *world) archive(kept string, want func(name string) bool) (pushed []follower.Pushed) {
	w.t.Helper()
	entries, err := os.ReadDir(kept)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int {
		return strings.Compare(filepath.Ext(b.Name()), filepath.Ext(a.Name()))
	})
	for _, e := range entries {
		if want != nil && !want(e.Name()) {
			continue
		}
		p, err := follower.Push(w.t.Context(), w.options(nil), filepath.Join(kept, e.Name()))
		if err != nil {
			w.t.Fatalf("%s: %v", e.Name(), err)
		}
		pushed = append(pushed, p)
	}
	return pushed
}

// TestPush stores WAL by archive_command: over a promotion, over processes, over a change to streaming and back; what comes
// twice, out of order, from elsewhere or damaged is told apart.
func TestPush(t *testing.T) {
	t.Parallel()
	kept, settings := kept(t)
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: settings})
	first := w.server
	w.write("a", 100)()
	first.Psql("SELECT pg_switch_wal()")
	settled := func() {
		t.Helper()
		settled(t, w.server)
	}
	settled()
	if pushed := w.archive(kept, nil); len(pushed) == 0 || pushed[0].Gap != "" || pushed[0].Based || pushed[0].Stored != 1<<20 {
		t.Fatalf("%+v", pushed)
	}
	if b, err := w.base(t.Context()); b.Number != 1 || err != nil {
		t.Fatal(b, err)
	}
	w.write("b", 100)()
	first.Psql("SELECT pg_switch_wal()")
	settled()
	for _, p := range w.archive(kept, nil) { // the first ones come again
		if p.Gap != "" {
			t.Errorf("%+v", p)
		}
	}
	var written time.Time // of the newest segment: all that was committed by then is in it, or before it
	for _, path := range glob(t, kept, "0*") {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(written) {
			written = info.ModTime()
		}
	}
	if s, alive, err := replicate.Read(w.options(nil).Dir); err != nil || !alive || !s.Archived || s.State != replicate.Following || !s.Until().Equal(written) {
		t.Errorf("status %+v, %v, %v: want it to be up to %s", s, alive, err, written)
	}

	// The agent takes over, in the midst of a segment, and gives it back.
	r := w.follow(nil)
	r.Await("it begins with a base backup of its own", func(s replicate.Status) bool { return replicatetest.Following(s) && s.Base == 2 })
	if _, err := os.Stat(filepath.Join(w.options(nil).Dir, "follow.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key of wal-push's epoch is there while somebody else follows: %v", err)
	}
	w.write("e", 20)()
	r.CaughtUp()
	r.Stop()
	first.Psql("SELECT pg_switch_wal()")
	settled()
	held, err := replicate.Hold(w.options(nil).Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follower.Push(t.Context(), w.options(nil), glob(t, kept, "0*")[0]); !errors.Is(err, follower.ErrHeld) {
		t.Errorf("while a restore in place is at work: %v", err)
	}
	_ = held.Close()
	for _, p := range w.archive(kept, nil) {
		if p.Gap != "" || p.Until != 0 && (!p.Based || p.Slot != "holdfast_db") { // others are no segments
			t.Errorf("%+v", p)
		}
	}
	config, err := w.options(nil).Config()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := follower.DropSlot(t.Context(), config, w.options(nil).Dir, "holdfast_db"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, p := range w.archive(kept, nil) {
		if p.Stored != 0 || p.Slot != "" {
			t.Errorf("after the slot was removed: %+v", p)
		}
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
	t.Run("files", func(t *testing.T) { w.pushWrong(t, kept) })

	// A standby is promoted, and goes on to archive.
	second := first.Standby(t)
	w.write("c", 50)()
	second.Follow(first)
	first.Stop("fast")
	second.Promote()
	w.leads(second, 0)
	w.write("d", 100)()
	second.Psql("SELECT pg_switch_wal()")
	settled()
	for _, p := range w.archive(kept, func(name string) bool { return strings.HasPrefix(name, "00000001") && len(name) == 24 }) {
		if p.Gap != "" {
			t.Errorf("%+v", p)
		}
	}
	for _, p := range w.archive(kept, func(name string) bool { return strings.HasPrefix(name, "00000002") }) {
		if p.Gap != "" {
			t.Errorf("%+v", p)
		}
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}

// pushWrong gives files that must not be stored.
func (w *world) pushWrong(t *testing.T, kept string) {
	segments, err := filepath.Glob(filepath.Join(kept, "0000000100000000000000??"))
	if err != nil || len(segments) == 0 {
		t.Fatal(err)
	}
	last := segments[len(segments)-1]
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	push := func(name string, b []byte) (follower.Pushed, error) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return follower.Push(t.Context(), w.options(nil), path)
	}
	base := filepath.Base(last)
	next := base[:22] + nextHex(base[22:])
	foreign := slices.Clone(whole)
	foreign[24] ^= 1
	for what, c := range map[string]struct {
		name string
		b    []byte
		want string
	}{
		"a part of a segment":         {base, whole[:len(whole)/2+1], "not complete"},
		"another segment's":           {next, whole, "the page is of"},
		"no file of PostgreSQL":       {"notes.txt", []byte("x"), "no file of pg_wal"},
		"of another cluster":          {base, foreign, "another cluster"},
		"a segment of before changed": {base, slices.Concat(whole[:len(whole)-8192], make([]byte, 8192)), ""},
	} {
		p, err := push(c.name, c.b)
		if c.want == "" {
			continue // whether it shows depends on where the segment ended
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	if p, err := push("00000005.history", []byte("1\t0/1\n")); err != nil || p.Stored != 0 {
		t.Errorf("a history: %+v, %v", p, err)
	}
	if _, err := follower.Push(t.Context(), w.options(nil), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func nextHex(s string) string {
	const digits = "0123456789ABCDEF"
	a, b := strings.IndexByte(digits, s[0]), strings.IndexByte(digits, s[1])
	n := a*16 + b + 1
	return string([]byte{digits[n/16], digits[n%16]})
}
