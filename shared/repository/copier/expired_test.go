package copier_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// TestRemovedRecordsStayRemoved has a copy with a shorter retention than the original's: what it has removed of the log does
// not come back with the next copy.
func TestRemovedRecordsStayRemoved(t *testing.T) {
	const day = 24 * time.Hour
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	end := log.Place{Stream: w.Stream()}
	for n := range 3 {
		at := end
		f.Log = &at
		f.Backup(t, "", repotest.Tree{"/srv/db": {byte(n)}})
		end = f.WriteLog(t, w, 10*n+1, 10, time.Hour)
	}
	// Another epoch, and with it a head that goes.
	w = f.OpenLog(t, w.Stream(), 1, &end)
	end = f.WriteLog(t, w, 31, 10, time.Hour)
	at := end
	f.Log = &at
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("last")})
	end = f.WriteLog(t, w, 41, 5, time.Hour)
	to := mem.New()
	to.SetClock(func() time.Time { return f.Now })
	run(t, f, to)
	f.Now = f.Now.Add(day)
	f.Log = &end
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("later")})
	f.WriteLog(t, w, 46, 5, time.Hour)
	run(t, f, to)
	there := f.Open(t, to)
	for n := range 4 {
		f.Now = f.Now.Add(8 * day)
		if err := to.Put(t.Context(), fmt.Sprintf("%sother-%d", layout.SourcePrefix(f.Source), n), objstore.Bytes(nil)); err != nil {
			t.Fatal(err) // something arrives: time passes
		}
		if _, err := prune.Run(t.Context(), there, f.Source, prune.Options{LogBase: 5, Now: func() time.Time { return f.Now }}); err != nil {
			t.Fatal(err)
		}
	}
	left := len(repotest.Keys(to, "/log/"))
	if left >= len(repotest.Keys(f.Store, "/log/")) {
		t.Fatal("the copy has removed nothing")
	}
	f.Now = f.Now.Add(day)
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	if n := len(repotest.Keys(to, "/log/")); n != left {
		t.Errorf("%d objects of the log after the copy's retention, %d after the next copy", left, n)
	}
	if lag, err := copier.Lag(t.Context(), f.Repo, to, nil); err != nil || !lag[0].Log.IsZero() {
		t.Errorf("%v, %+v", err, lag)
	}
	// What comes after it does, also in an epoch of which nothing else is there.
	f.WriteLog(t, w, 51, 5, time.Hour)
	run(t, f, to)
	if n := len(repotest.Keys(to, "/log/")); n != left+5 {
		t.Errorf("%d objects of the log, then %d", left, n)
	}
	there = f.Open(t, to)
	if res, err := verify.Run(t.Context(), there, verify.Options{Level: verify.Content}); err != nil || slices.ContainsFunc(res.Findings, func(f verify.Finding) bool { return !f.Warning }) {
		t.Errorf("%v, %+v", err, res.Findings)
	}
}
