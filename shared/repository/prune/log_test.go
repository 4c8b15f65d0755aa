package prune_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// followed is a source with a log of 60 days: a record each 6 hours, a snapshot each 5 days, a new epoch each 10, and after
// 40 days a new stream. It returns the places of the snapshots.
func followed(t *testing.T) (f *repotest.Fixture, places []log.Place) {
	t.Helper()
	f = repotest.New(t)
	var w *log.Writer
	var end log.Place
	stream, epoch, n := "", uint64(0), 1
	for d := range 60 {
		if d == 40 {
			stream, epoch, end = "", 0, log.Place{}
		}
		if d%10 == 0 {
			var continues *log.Place
			if end.Sequence > 0 {
				continues = &end
			}
			w = f.OpenLog(t, stream, epoch, continues)
			stream, epoch = w.Stream(), epoch+1
			if end.Sequence == 0 {
				end = log.Place{Stream: stream}
			}
		}
		if d%5 == 0 {
			at := end
			f.Log = &at
			f.Backup(t, "", repotest.Tree{"/srv/db": fmt.Append(nil, d)})
			places = append(places, at)
		}
		end = f.WriteLog(t, w, n, 4, 6*time.Hour)
		n += 4
	}
	return f, append(places, end)
}

// window reads what follows each snapshot from base on: every record must be there.
func window(t *testing.T, f *repotest.Fixture, store objstore.Store, places []log.Place, base int) {
	t.Helper()
	for i := base - 1; i < len(places)-1; i++ {
		through := places[len(places)-1]
		if places[i].Stream != through.Stream {
			through = places[7] // the last snapshot of the first stream
		}
		got, err := f.ReadLog(t, store, log.Range{From: places[i], Through: through})
		if want := int(through.Sequence - places[i].Sequence); err != nil || len(got) != want {
			t.Fatalf("after snapshot %d: %d records of %d, %v", i+1, len(got), want, err)
		}
	}
}

func sound(t *testing.T, f *repotest.Fixture) {
	t.Helper()
	res, err := verify.Run(t.Context(), f.Repo, verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res.Findings)
	}
}

// TestLogsGoInTwoPhases: what no moment of the window needs is announced, and after the wait removed; nothing else is.
func TestLogsGoInTwoPhases(t *testing.T) {
	f, places := followed(t)
	pieces := func() int { return len(repotest.Keys(f.Store, "/log/")) }
	all := pieces()
	o := prune.Options{LogBase: 6} // of day 25, in the middle of epoch 3
	r := run(t, f, o)
	if pieces() != all+3 || len(r.LogsCondemned) != 3 || r.Logs != 0 { // the announcements of epochs 1 to 3
		t.Fatalf("%d objects of %d, %+v", pieces(), all, r)
	}
	f.Now = f.Now.Add(6 * day)
	if r = run(t, f, o); r.Logs != 0 {
		t.Fatalf("removed too early: %+v", r)
	}
	f.Now = f.Now.Add(day)
	r = run(t, f, o)
	// Records 1 to 100, and the heads of the first two epochs.
	if len(r.LogsRemoved) != 3 || r.Logs != 100+2 {
		t.Errorf("%+v", r)
	}
	if got := repotest.Keys(f.Store, "/condemned/log/"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	window(t, f, f.Store, places, 6)
	sound(t, f)
	if r = run(t, f, o); r.Logs != 0 || len(r.LogsCondemned) != 0 {
		t.Errorf("more goes: %+v", r)
	}
	// In the new stream nothing of the first one is needed any more.
	o.LogBase = 10
	for range 3 {
		f.Now = f.Now.Add(8 * day)
		run(t, f, o)
	}
	if left := repotest.Keys(f.Store, "/log/"+places[0].Stream+"/"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	window(t, f, f.Store, places, 10)
	sound(t, f)
}

func TestLogsStay(t *testing.T) {
	f, places := followed(t)
	all := len(repotest.Keys(f.Store, "/log/"))
	f.Now = f.Now.Add(100 * day)
	for name, o := range map[string]prune.Options{
		"nobody has decided":         {},
		"a snapshot that is gone":    {LogBase: 99},
		"the first snapshot":         {LogBase: 1},
		"a dry run":                  {LogBase: 6, DryRun: true},
		"a clock that is the host's": {LogBase: 6, HostClock: true},
	} {
		g := f.Fork(t, f.Store.Clone())
		for range 3 {
			run(t, g, o)
		}
		if n := len(repotest.Keys(g.Store, "/log/")); n != all && o.LogBase != 6 || o.DryRun && n != all {
			t.Errorf("%s: %d objects of %d", name, n, all)
		}
	}
	// The rules were made longer while something was announced.
	run(t, f, prune.Options{LogBase: 6})
	f.Now = f.Now.Add(8 * day)
	for range 2 {
		if r := run(t, f, prune.Options{LogBase: 2}); len(r.LogsRemoved) > 1 {
			t.Errorf("%+v", r)
		}
		f.Now = f.Now.Add(8 * day)
	}
	window(t, f, f.Store, places, 2)
	sound(t, f)
	// A head that can't be read keeps its stream.
	g, others := followed(t)
	stream := others[0].Stream
	g.Store.Tamper(repotest.Keys(g.Store, stream+"/0000000001/head.json")[0], []byte("{}"))
	for range 3 {
		g.Now = g.Now.Add(20 * day)
		run(t, g, prune.Options{LogBase: 6})
	}
	if n := len(repotest.Keys(g.Store, "/log/"+stream+"/")); n < 100 {
		t.Errorf("%d objects of the stream are left", n)
	}
}

// TestLogCrashes ends runs after calls to the store: in between, and when all is done, every record that is needed is
// there and verification misses nothing.
func TestLogCrashes(t *testing.T) {
	t.Parallel()
	f, places := followed(t)
	run(t, f, prune.Options{LogBase: 6})
	f.Now = f.Now.Add(8 * day)
	for call := 1; ; call += 31 { // all of them take long
		g := f.Fork(t, f.Store.Clone())
		now := f.Now
		g.Store.SetClock(func() time.Time { return now })
		o := prune.Options{LogBase: 6, Now: func() time.Time { return now }}
		var reached atomic.Bool // heads are read side by side
		g.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Number < call {
				return mem.Fault{}
			}
			reached.Store(true)
			return mem.Fault{Err: errors.New("killed"), Persisted: c.Number == call}
		})
		_, err := prune.Run(t.Context(), g.Repo, g.Source, o)
		if err != nil && !reached.Load() { // a head that can't be read keeps its stream, and is no error
			t.Fatalf("call %d: %v", call, err)
		}
		g.Store.SetHook(nil)
		if call%2 == 0 || !reached.Load() {
			sound(t, g)
		}
		run(t, g, o)
		now = now.Add(20 * day)
		run(t, g, o)
		if n := len(repotest.Keys(g.Store, "/log/"+places[0].Stream+"/")); !reached.Load() && n > 64+2 {
			t.Errorf("%d objects are left", n)
		}
		window(t, g, g.Store, places, 6)
		if !reached.Load() {
			return
		}
	}
}

// TestJoinedPieces: pieces of which a segment has all go when both are old and the segment was proven; without a key they
// stay.
func TestJoinedPieces(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	f.Log = &log.Place{Stream: w.Stream()}
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	f.WriteLog(t, w, 1, 20, time.Second)
	if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	end := f.WriteLog(t, w, 21, 3, time.Second)
	f.Now = f.Now.Add(13 * day)
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("later")})
	if r := run(t, f, prune.Options{}); r.Joined != 0 {
		t.Errorf("too early: %+v", r)
	}
	f.Now = f.Now.Add(2 * day)
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("later still")})
	segment := repotest.Keys(f.Store, "/joined/")[0]
	for name, tt := range map[string]struct {
		damage func(*mem.Store)
		joined int
	}{
		"sound":           {func(*mem.Store) {}, 20},
		"segment damaged": {func(s *mem.Store) { b, _ := s.Object(segment); b[99] ^= 1; s.Tamper(segment, b) }, 0},
		"last piece gone": {func(s *mem.Store) { s.Tamper(strings.Replace(segment, "joined/0000000001-", "0000000020-", 1), nil) }, 0},
	} {
		g := f.Fork(t, f.Store.Clone())
		tt.damage(g.Store)
		if r := run(t, g, prune.Options{}); r.Joined != tt.joined {
			t.Errorf("%s: %+v", name, r)
		}
		got, err := g.ReadLog(t, g.Store, log.Range{From: log.Place{Stream: w.Stream()}, Through: end})
		if name != "last piece gone" && (err != nil || len(got) != 23) {
			t.Errorf("%s: %d records, %v", name, len(got), err)
		}
	}
	id := f.Grant(t, "*")
	g := f.Fork(t, f.Store.Clone())
	g.Identity = id
	g.Repo = g.Open(t, g.Store)
	if r := run(t, g, prune.Options{}); r.Joined != 0 {
		t.Errorf("without a key: %+v", r)
	}
}

// TestForkedLogStays: a host is put back to a state before its newest snapshot, and its log goes on from a record that is
// older. What the new branch needs stays, for as long as no snapshot of it is old enough: the snapshot before the fork and
// the records that lead from that to the branch.
func TestForkedLogStays(t *testing.T) {
	f := repotest.New(t)
	first := f.OpenLog(t, "", 0, nil)
	begin := log.Place{Stream: first.Stream()}
	f.Log = &begin
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	fork := f.WriteLog(t, first, 1, 10, time.Hour)
	left := f.WriteLog(t, first, 11, 10, time.Hour)
	f.Log = &left
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("given up")})
	f.Now = f.Now.Add(time.Hour)
	second := f.OpenLog(t, begin.Stream, 1, &fork)
	end := f.WriteLog(t, second, 11, 30, 24*time.Hour)
	branch := log.Range{From: begin, Through: end}
	o := prune.Options{Decisions: keep(2), LogBase: 2}
	for range 4 {
		run(t, f, o)
		f.Now = f.Now.Add(20 * day)
	}
	got, err := f.ReadLog(t, f.Store, branch)
	if err != nil || len(got) != 40 {
		t.Fatalf("%d records of 40, %v", len(got), err)
	}
	wantThere(t, f, 1, 2)
	sound(t, f)
	// With a snapshot of its own that is the base, the branch needs nothing older.
	f.Log = &end
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("of the branch")})
	f.WriteLog(t, second, 41, 5, time.Hour)
	o = prune.Options{Decisions: keep(3), LogBase: 3}
	for range 4 {
		f.Now = f.Now.Add(20 * day)
		run(t, f, o)
	}
	wantThere(t, f, 3)
	if left := repotest.Keys(f.Store, "/log/"+begin.Stream+"/0000000001/"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if got, err := f.ReadLog(t, f.Store, log.Range{From: end, Through: log.Place{Stream: begin.Stream, Epoch: 2, Sequence: 45}}); err != nil || len(got) != 5 {
		t.Errorf("%d records of 5, %v", len(got), err)
	}
	sound(t, f)
}
