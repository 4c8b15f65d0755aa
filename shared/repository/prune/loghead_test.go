package prune_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestBehindABadHead: while the head of an epoch can't be read nobody knows which streams go on from it. They stay until it is
// put back.
func TestBehindABadHead(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	first := w.Stream()
	start := log.Place{Stream: first}
	f.Log = &start
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("first")})
	place := f.WriteLog(t, w, 1, 10, time.Hour)
	end := f.WriteLog(t, f.OpenLog(t, first, 1, &place), 11, 10, time.Hour)
	next := f.OpenLog(t, "", 0, &end) // another stream, which goes on from the second epoch
	end = f.WriteLog(t, next, 21, 10, time.Hour)
	further := f.OpenLog(t, "", 0, &end) // and one more
	end = f.WriteLog(t, further, 31, 10, time.Hour)
	// A snapshot that took long: it holds what was there when it began.
	f.Log = &place
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("second")})
	all := log.Range{From: place, Through: end}
	if got, err := f.ReadLog(t, f.Store, all); err != nil || len(got) != 30 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	head := layout.LogKey(f.Source, layout.LogObject{Stream: first, Epoch: 2})
	good, _ := f.Store.Object(head)
	f.Store.Tamper(head, good[1:])
	for range 4 {
		f.Now = f.Now.Add(8 * day)
		f.Abandon(t, repotest.Tree{"/srv/x": []byte("x")}) // something arrives: time passes
		run(t, f, prune.Options{LogBase: 2})
	}
	f.Store.Tamper(head, good)
	if got, err := f.ReadLog(t, f.Store, all); err != nil || len(got) != 30 {
		t.Errorf("%d records, %v", len(got), err)
	}
	// With the head again, what nothing needs goes.
	before := len(repotest.Keys(f.Store, "/log/"))
	for range 2 {
		f.Now = f.Now.Add(8 * day)
		run(t, f, prune.Options{LogBase: 2})
	}
	if n := len(repotest.Keys(f.Store, "/log/")); n >= before {
		t.Errorf("%d objects of %d", n, before)
	}
	if got, err := f.ReadLog(t, f.Store, all); err != nil || len(got) != 30 {
		t.Errorf("%d records, %v", len(got), err)
	}
}
