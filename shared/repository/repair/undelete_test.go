package repair_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/objstore/versions"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// attack hides each object of the store in one of several ways. Garbage is put by overwrite, markers by the store.
func attack(t *testing.T, past objstore.Versioned, objects *mem.Store, overwrite func(key string, data []byte)) {
	t.Helper()
	hide := func(key string) {
		if err := past.Hide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	keys := objects.Keys()
	for i, key := range keys {
		good, _ := objects.Object(key)
		other, _ := objects.Object(keys[(i+1)%len(keys)])
		switch i % 5 {
		case 0:
			hide(key)
		case 1:
			overwrite(key, flip(good))
		case 2:
			overwrite(key, nil)
			hide(key)
		case 3:
			hide(key)
			overwrite(key, other) // authentic elsewhere
		case 4:
			overwrite(key, good[:len(good)-1])
			hide(key)
			overwrite(key, append(flip(good), good...))
		}
	}
}

func wantHealed(t *testing.T, res *repair.Undeleted, keys []string) {
	t.Helper()
	var got []string
	for _, h := range res.Healed {
		got = append(got, h.Key)
	}
	if diff := cmp.Diff(keys, got); diff != "" || len(res.Left) > 0 {
		t.Errorf("%s, left %+v", diff, res.Left)
	}
}

// versioned makes history in a store that keeps versions.
func versioned(t *testing.T) (*repotest.Fixture, *mem.Store) {
	f := history(t)
	f.Store.KeepVersions()
	plain := f.Store.Clone()
	f.Now = f.Now.Add(time.Hour)
	return f, plain
}

func TestUndelete(t *testing.T) {
	f, plain := versioned(t)
	store := f.Store
	attack(t, store, plain, store.Overwrite)
	attacked := store.Clone()
	if _, err := repository.Open(t.Context(), store, f.Identity); err == nil {
		t.Fatal("the attack had no effect")
	}
	// What was there before the attack can be read.
	past, err := versions.AsOf(store, f.Now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	wantVerified(t, f, past)
	if got := f.CheckAll(t, past); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("%v", got)
	}
	dry, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	wantHealed(t, dry, plain.Keys())
	repotest.WantSame(t, store, attacked)
	res, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dry.Healed, res.Healed); diff != "" {
		t.Error(diff)
	}
	repotest.WantSame(t, store, plain)
	wantVerified(t, f, store)
	f.CheckAll(t, store)
	// Again: nothing to do.
	res, err = repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{})
	if err != nil || len(res.Healed)+len(res.Left) > 0 {
		t.Errorf("%v, %+v", err, res)
	}
}

// TestUndeleteLocked can not remove the garbage.
func TestUndeleteLocked(t *testing.T) {
	f, plain := versioned(t)
	attack(t, f.Store, plain, func(key string, data []byte) {
		f.Store.Overwrite(key, data)
		f.Store.Lock(key)
	})
	res, err := repair.Undelete(t.Context(), f.Store, f.Identity, repair.UndeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantHealed(t, res, plain.Keys())
	rewritten := 0
	for _, h := range res.Healed {
		if h.Rewritten {
			rewritten++
		}
	}
	if rewritten < len(res.Healed)/2 {
		t.Errorf("%d of %d", rewritten, len(res.Healed))
	}
	repotest.WantSame(t, f.Store, plain)
	wantVerified(t, f, f.Store)
}

// TestUndeleteHopeless names objects that have no version that authenticates.
func TestUndeleteHopeless(t *testing.T) {
	f, plain := versioned(t)
	keys := repotest.Keys(plain, f.Source.Name)
	for _, key := range keys {
		good, _ := plain.Object(key)
		f.Store.Tamper(key, flip(good))
		f.Store.Overwrite(key, []byte("garbage"))
	}
	res, err := repair.Undelete(t.Context(), f.Store, f.Identity, repair.UndeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, i := range res.Left {
		left = append(left, i.Key)
	}
	if diff := cmp.Diff(keys, left); diff != "" || len(res.Healed) > 0 {
		t.Errorf("%s %+v", diff, res.Healed)
	}
	if _, err := repair.Undelete(t.Context(), struct{ objstore.Store }{f.Store}, f.Identity, repair.UndeleteOptions{}); !errors.Is(err, objstore.ErrNoVersions) {
		t.Errorf("%v", err)
	}
	if _, err := repair.Undelete(t.Context(), mem.New(), f.Identity, repair.UndeleteOptions{}); !errors.Is(err, objstore.ErrNoVersions) {
		t.Errorf("%v", err)
	}
}

func TestUndeleteCrashAnywhere(t *testing.T) {
	f, plain := versioned(t)
	attack(t, f.Store, plain, f.Store.Overwrite)
	errCrash := errors.New("crash")
	// One before a call leaves what one after the call before it leaves: calls come one after the other.
	crashes := 0
	for n := 1; ; n++ {
		store := f.Store.Clone()
		store.SetHook(func(c mem.Call) mem.Fault {
			switch {
			case c.Number < n:
				return mem.Fault{}
			case c.Number == n:
				return mem.Fault{Err: errCrash, Persisted: true}
			}
			return mem.Fault{Err: errCrash}
		})
		_, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{Workers: 1})
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
		crashes++
		store = store.Clone()
		if res, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{}); err != nil || len(res.Left) > 0 {
			t.Fatalf("call %d: %v, %+v", n, err, res)
		}
		if repotest.WantSame(t, store, plain); t.Failed() {
			t.Fatalf("call %d", n)
		}
	}
	if crashes < 60 {
		t.Errorf("only %d crashes", crashes)
	}
}

// TestBucket does it with a real server: delete markers and garbage over every object of a repository.
func TestBucket(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "repository", bucket.Options{Versioned: true})
	f := history(t)
	store, err := open.Open(t.Context(), server.URL("repository", "below"), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copier.Run(t.Context(), f.Repo, store, copier.Options{}); err != nil {
		t.Fatal(err)
	}
	overwrite := func(key string, data []byte) {
		name, key := "repository", "below/"+key
		_, err := server.Client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &name, Key: &key, Body: bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
	}
	past := store.(objstore.Versioned)
	before := newest(t, past)
	// Nothing of the attack may bear the same time.
	for n := 0; !newest(t, past).After(before); n++ {
		overwrite(fmt.Sprintf("v1/probe/%d", n), nil)
	}
	if err := store.List(t.Context(), "v1/probe/", func(i objstore.Info) error { return store.Delete(t.Context(), i.Key) }); err != nil {
		t.Fatal(err)
	}
	attack(t, past, f.Store, overwrite)
	if _, err := repository.Open(t.Context(), store, f.Identity); err == nil {
		t.Fatal("the attack had no effect")
	}
	asOf, err := versions.AsOf(store, before)
	if err != nil {
		t.Fatal(err)
	}
	wantVerified(t, f, asOf)
	if got := f.CheckAll(t, asOf); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("%v", got)
	}
	for _, dry := range []bool{true, false} {
		res, err := repair.Undelete(t.Context(), store, f.Identity, repair.UndeleteOptions{DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		wantHealed(t, res, f.Store.Keys())
	}
	wantVerified(t, f, store)
	f.CheckAll(t, store)

	// And repair from a copy, with damage that no version heals.
	pack := repotest.Keys(f.Store, "/packs/")[0]
	if err := store.Delete(t.Context(), pack); err != nil {
		t.Fatal(err)
	}
	overwrite(pack, []byte("garbage"))
	if err := store.Delete(t.Context(), layout.ManifestKey(f.ID(3))); err != nil {
		t.Fatal(err)
	}
	res, err := repair.Run(t.Context(), store, f.Identity, repair.Options{From: f.Store, Check: true})
	if err != nil || !res.OK() || res.Count(repair.PutBack) != 2 {
		t.Errorf("%v, %+v", err, res)
	}
	// And with objects that are hidden: one with itself beneath, the other with garbage.
	overwrite(pack, []byte("garbage"))
	for _, key := range []string{pack, layout.ManifestKey(f.ID(3))} {
		if err := past.Hide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	res, err = repair.Run(t.Context(), store, f.Identity, repair.Options{From: f.Store, Check: true})
	if err != nil || !res.OK() || res.Count(repair.PutBack) != 2 {
		t.Errorf("%v, %+v", err, res)
	}
	wantVerified(t, f, store)
	if got := f.CheckAll(t, store); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("%v", got)
	}
}

// newest is when the newest version arrived.
func newest(t *testing.T, past objstore.Versioned) time.Time {
	t.Helper()
	var out time.Time
	err := past.ListVersions(t.Context(), "", func(v objstore.Version) error {
		if v.Modified.After(out) {
			out = v.Modified
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
