package observe_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestCopies: a copy lags, catches up, can't be looked at, is ahead; and one that nobody can delete counts although the
// addresses say that it would not.
func TestCopies(t *testing.T) {
	f := repotest.New(t)
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, 100)})
	replica := f.Store.Clone()
	f.Now = f.Now.Add(time.Hour)
	f.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(2, 100)})
	w := &observe.Watch{Repo: f.Repo, Places: []observe.Place{
		{Address: "s3://replica", Dependent: true, Store: replica}, {Address: "file:///mnt", Unseen: true}, {Address: "s3://gone", Err: errors.New("no such bucket")},
	}}
	var m *observe.Memory
	look := func() compliance.Copy {
		t.Helper()
		var err error
		if m, err = w.Look(t.Context(), f.Source, m, false, f.Now); err != nil {
			t.Fatal(err)
		}
		copies := m.Facts(f.Source).Copies
		want := []compliance.Copy{{Place: "file:///mnt", Unseen: true}, {Place: "s3://gone", Error: "no such bucket"}}
		if diff := cmp.Diff(want, copies[:2]); diff != "" {
			t.Error(diff)
		}
		return copies[2]
	}
	got := look()
	if diff := cmp.Diff(compliance.Copy{Place: "s3://replica", Missing: 1, Waiting: f.Now, Dependent: true}, got); diff != "" {
		t.Error(diff)
	}
	// It catches up, and is locked for good.
	replica.KeepLocks(24 * time.Hour)
	for _, key := range f.Store.Keys() {
		body, _ := f.Store.Object(key)
		if err := replica.Put(t.Context(), key, objstore.Bytes(body)); err != nil {
			t.Fatal(err)
		}
	}
	if got = look(); got.Missing != 0 || !got.Dependent {
		t.Errorf("a lock that a right undoes: %+v", got)
	}
	if err := replica.ExtendLock(t.Context(), layout.ManifestKey(f.ID(2)), objstore.Compliance, f.Now.Add(30*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	f.Now = f.Now.Add(24 * time.Hour)
	var err error
	if m, err = w.Look(t.Context(), f.Source, m, true, f.Now); err != nil {
		t.Fatal(err)
	}
	if got = look(); got.Dependent || got.Error != "" {
		t.Errorf("nobody can delete it: %+v", got)
	}
	// The primary was rolled back.
	f.Store.Tamper(layout.ManifestKey(f.ID(2)), nil)
	m = nil
	if got = look(); got.Error == "" {
		t.Errorf("the copy is ahead, and nothing is said: %+v", got)
	}
}

// TestCopiedLogs: a log of which a copy lacks records is told once an hour, and by each look until the copy has them.
func TestCopiedLogs(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	f.Log = &log.Place{Stream: w.Stream()}
	f.Backup(t, "", repotest.Tree{"/srv/db": []byte("base")})
	f.WriteLog(t, w, 1, 3, time.Second)
	replica := mem.New()
	copied := func() {
		t.Helper()
		if res, err := copier.Run(t.Context(), f.Repo, replica, copier.Options{}); err != nil || !res.OK() {
			t.Fatal(err, res)
		}
	}
	copied()
	watch := &observe.Watch{Repo: f.Repo, Places: []observe.Place{{Address: "s3://replica", Store: replica}}}
	var m *observe.Memory
	look := func(after time.Duration) (lacks time.Time, requests int64) {
		t.Helper()
		f.Now = f.Now.Add(after)
		before := watch.Requests()
		var err error
		if m, err = watch.Look(t.Context(), f.Source, m, false, f.Now); err != nil {
			t.Fatal(err)
		}
		c := m.Facts(f.Source).Copies[0]
		if c.Error != "" || c.Missing > 0 {
			t.Errorf("%+v", c)
		}
		return c.Log, watch.Requests() - before
	}
	if lacks, _ := look(0); !lacks.IsZero() {
		t.Errorf("the copy has all, and lacks what came at %s", lacks)
	}
	f.WriteLog(t, w, 4, 2, time.Second)
	arrived := f.Now
	lacks, few := look(time.Minute)
	if !lacks.IsZero() {
		t.Errorf("the log was compared again: %s", lacks)
	}
	lacks, many := look(time.Hour)
	if lacks.IsZero() || lacks.After(arrived) {
		t.Errorf("lacks what came at %s, not %s", lacks, arrived)
	}
	if many <= few {
		t.Errorf("%d requests with logs, %d without", many, few)
	}
	watch.Places[0].Store, watch.Places[0].Err = nil, errors.New("no such bucket")
	var err error
	if m, err = watch.Look(t.Context(), f.Source, m, false, f.Now); err != nil {
		t.Fatal(err)
	}
	if c := m.Facts(f.Source).Copies[0]; c.Error == "" || !c.Log.Equal(lacks) {
		t.Errorf("it can't be looked at now: %+v", c)
	}
	watch.Places[0].Store = replica
	copied()
	if lacks, _ := look(time.Minute); !lacks.IsZero() {
		t.Errorf("it has caught up, and lacks what came at %s", lacks)
	}
}
