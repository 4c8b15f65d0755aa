package copier_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// logged is a source with a snapshot and a log of two epochs: 1 to 20, of which a segment has all, then 21 to 25.
func logged(t *testing.T) (*repotest.Fixture, log.Range) {
	t.Helper()
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	start := log.Place{Stream: w.Stream()}
	f.Log = &start
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	end := f.WriteLog(t, w, 1, 20, time.Second)
	if n, err := w.Join(t.Context(), 0); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	end = f.WriteLog(t, f.OpenLog(t, w.Stream(), 1, &end), 21, 5, time.Second)
	return f, log.Range{From: start, Through: end}
}

func TestLogsAreCopied(t *testing.T) {
	f, rg := logged(t)
	to := mem.New()
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil || !res.OK() {
		t.Fatalf("%v, %+v", err, res)
	}
	// Two heads, a segment instead of its pieces, five pieces.
	if n := len(repotest.Keys(to, "/log/")); n != 2+1+5 {
		t.Errorf("%d objects of logs", n)
	}
	if got, err := f.ReadLog(t, to, rg); err != nil || len(got) != 25 {
		t.Errorf("%d records, %v", len(got), err)
	}
	copied := f.Open(t, to)
	if res, err := verify.Run(t.Context(), copied, verify.Options{Level: verify.Content}); err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res.Findings)
	}
	if res, err = copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil || !res.OK() || res.Objects != 0 {
		t.Errorf("again: %v, %+v", err, res)
	}
	// Without a key everything is copied, and damage still does not spread.
	id := f.Grant(t, "*")
	blind := repotest.OpenAs(t, f.Store, id)
	all := mem.New()
	if res, err = copier.Run(t.Context(), blind, all, copier.Options{}); err != nil || !res.OK() || len(repotest.Keys(all, "/log/")) != 2+20+1+5 {
		t.Errorf("%v, %+v, %d objects", err, res, len(repotest.Keys(all, "/log/")))
	}
	for _, deep := range []bool{false, true} {
		g := f.Fork(t, f.Store.Clone())
		bad := repotest.Keys(g.Store, "0000000023-")[0]
		b, _ := g.Store.Object(bad)
		b[70] ^= 1
		g.Store.Tamper(bad, b)
		repo := g.Repo
		if !deep {
			repo = repotest.OpenAs(t, g.Store, id)
		}
		to := mem.New()
		res, err := copier.Run(t.Context(), repo, to, copier.Options{})
		if err != nil || res.OK() || res.Findings[0].Key != bad || len(repotest.Keys(to, "0000000023-")) != 0 {
			t.Errorf("%v, %+v", err, res)
		}
	}
}

// TestLogCopyGoesOn ends copies at each call: the next one completes them.
func TestLogCopyGoesOn(t *testing.T) {
	f, rg := logged(t)
	for call := 1; ; call += 2 {
		to := mem.New()
		var reached atomic.Bool // pieces are put side by side
		to.SetHook(func(c mem.Call) mem.Fault {
			if c.Number < call || !strings.Contains(c.Key, "/log/") {
				return mem.Fault{}
			}
			reached.Store(true)
			return mem.Fault{Err: errors.New("killed"), Persisted: call%4 == 1}
		})
		if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); reached.Load() != (err != nil) {
			t.Fatal(err)
		}
		to.SetHook(nil)
		if res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil || !res.OK() {
			t.Fatalf("%v, %+v", err, res)
		}
		if got, err := f.ReadLog(t, to, rg); err != nil || len(got) != 25 {
			t.Errorf("call %d: %d records, %v", call, len(got), err)
		}
		if !reached.Load() {
			return
		}
	}
}

// TestLogConflict: what the copy has under the name of a piece and is another stays, and is named.
func TestLogConflict(t *testing.T) {
	f, _ := logged(t)
	to := mem.New()
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	bad := repotest.Keys(to, "0000000023-")[0]
	to.Tamper(bad, nil)
	if err := to.Put(t.Context(), bad, objstore.Bytes([]byte("another"))); err != nil {
		t.Fatal(err)
	}
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil || len(res.Findings) != 1 || !res.Findings[0].InCopy || res.Findings[0].Key != bad {
		t.Errorf("%v, %+v", err, res)
	}
}

// TestWALIsCopied copies WAL of two timelines, and what was read is read from the copy.
func TestWALIsCopied(t *testing.T) {
	f := repotest.New(t)
	start, _, end := f.Timelines(t)
	rg := log.Range{From: start, Through: end}
	want, err := f.ReadLog(t, f.Store, rg)
	if err != nil || len(want) != 30 {
		t.Fatal(want, err)
	}
	to := mem.New()
	res, err := copier.Run(t.Context(), f.Repo, to, copier.Options{})
	if err != nil || !res.OK() || len(repotest.Keys(to, "/log/")) != 3+1+5+5 {
		t.Fatalf("%v, %+v, %q", err, res, repotest.Keys(to, "/log/"))
	}
	if got, err := f.ReadLog(t, to, rg); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if res, err := verify.Run(t.Context(), f.Open(t, to), verify.Options{Level: verify.Content}); err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res.Findings)
	}
}

// TestLagOfLogs: a copy that has all snapshots, and not all records, lags. A segment stands for its pieces.
func TestLagOfLogs(t *testing.T) {
	f, _ := logged(t)
	to := mem.New()
	since := func() time.Time {
		t.Helper()
		lag, err := copier.Lag(t.Context(), f.Repo, to, nil)
		if err != nil || len(lag) != 1 {
			t.Fatalf("%v, %+v", err, lag)
		}
		return lag[0].Log
	}
	arrived := func(part string) time.Time {
		t.Helper()
		o, err := f.Store.Stat(t.Context(), repotest.Keys(f.Store, part)[0])
		if err != nil {
			t.Fatal(err)
		}
		return o.Modified
	}
	if got := since(); !got.Equal(arrived("/0000000001-")) {
		t.Errorf("nothing is copied: since %v", got)
	}
	if _, err := copier.Run(t.Context(), f.Repo, to, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := since(); !got.IsZero() {
		t.Errorf("all is copied, a segment instead of its pieces: since %v", got)
	}
	to.Tamper(repotest.Keys(to, "0000000023-")[0], nil)
	if got := since(); !got.Equal(arrived("0000000023-")) {
		t.Errorf("record 23 is not there: since %v", got)
	}
	// What is there of an epoch whose head is not can't be read.
	for _, key := range repotest.Keys(to, "/head") {
		to.Tamper(key, nil)
	}
	if got := since(); got.After(arrived("0000000023-")) || got.IsZero() {
		t.Errorf("the heads are gone: since %v", got)
	}
}
