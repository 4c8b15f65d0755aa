package observe_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
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
