package versions_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/shared/objstore/versions"
)

func TestMemory(t *testing.T) {
	s := mem.New()
	s.KeepVersions()
	overwrite := func(key, data string) { s.Overwrite(key, []byte(data)) }
	storetest.RunVersions(t, s, overwrite)
}

func TestDecorated(t *testing.T) {
	s := mem.New()
	s.KeepVersions()
	calls := 0
	s.SetHook(func(mem.Call) mem.Fault {
		if calls++; calls%3 == 1 {
			return mem.Fault{Err: objstore.Transient(errors.New("try again")), Persisted: calls%2 == 0 && calls > 30}
		}
		return mem.Fault{}
	})
	overwrite := func(key, data string) { s.Overwrite(key, []byte(data)) }
	storetest.RunVersions(t, retry.New(limit.New(s, limit.Options{Parallel: 2}), retry.Options{First: 1, Longest: 1}), overwrite)
}

func TestNoVersions(t *testing.T) {
	plain := retry.New(limit.New(mem.New(), limit.Options{}), retry.Options{})
	s, err := versions.AsOf(plain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, gerr := s.Get(t.Context(), "a", 0, -1)
	_, serr := s.Stat(t.Context(), "a")
	lerr := s.List(t.Context(), "", func(objstore.Info) error { return nil })
	for _, err := range []error{gerr, serr, lerr, plain.DeleteVersion(t.Context(), "a", "1"), plain.Hide(t.Context(), "a"), plain.PutVersion(t.Context(), "a", objstore.Bytes(nil))} {
		if !errors.Is(err, objstore.ErrNoVersions) {
			t.Errorf("%v", err)
		}
	}
	if _, err := versions.AsOf(struct{ objstore.Store }{plain}, time.Now()); !errors.Is(err, objstore.ErrNoVersions) {
		t.Errorf("%v", err)
	}
}

// TestAsOf looks at the same store at several times.
func TestAsOf(t *testing.T) {
	s := mem.New()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	start := now
	s.SetClock(func() time.Time { return now })
	s.KeepVersions()
	ctx := t.Context()
	put := func(key, data string) {
		if err := s.Put(ctx, key, objstore.Bytes([]byte(data))); err != nil {
			t.Fatal(err)
		}
	}
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	put("a", "one")
	put("b/x", "bx")
	now = hour(1)
	s.Overwrite("a", []byte("garbage"))
	put("b/y", "by")
	now = hour(2)
	if err := errors.Join(s.Hide(ctx, "a"), s.Hide(ctx, "b/x"), s.Hide(ctx, "b/y")); err != nil {
		t.Fatal(err)
	}
	now = hour(3)
	put("a", "again")
	for at, want := range map[time.Time]map[string]string{
		start.Add(-time.Second):  {},
		start:                    {"a": "one", "b/x": "bx"},
		hour(1).Add(-1):          {"a": "one", "b/x": "bx"},
		hour(1):                  {"a": "garbage", "b/x": "bx", "b/y": "by"},
		hour(2):                  {},
		hour(3).Add(time.Minute): {"a": "again"},
	} {
		for _, listed := range []bool{false, true} {
			past, err := versions.AsOf(s, at)
			if err != nil {
				t.Fatal(err)
			}
			if got := list(t, past); listed && cmp.Diff(keys(want), keys(got)) != "" {
				t.Errorf("%s: %v", at, got)
			}
			for _, key := range []string{"a", "b/x", "b/y", "c"} {
				check(t, past, key, want)
			}
		}
	}
	past, _ := versions.AsOf(s, start)
	if err := past.Put(ctx, "n", objstore.Bytes(nil)); !errors.Is(err, versions.ErrReadOnly) {
		t.Error(err)
	}
	if err := past.Delete(ctx, "a"); !errors.Is(err, versions.ErrReadOnly) {
		t.Error(err)
	}
}

func list(t *testing.T, s objstore.Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := s.List(t.Context(), "", func(i objstore.Info) error { out[i.Key] = ""; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func keys(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

func check(t *testing.T, s objstore.Store, key string, all map[string]string) {
	t.Helper()
	want, there := all[key]
	info, err := s.Stat(t.Context(), key)
	if there != (err == nil) || !there && !errors.Is(err, objstore.ErrNotExist) || info.Size != int64(len(want)) {
		t.Errorf("stat %s: %+v, %v", key, info, err)
	}
	r, err := s.Get(t.Context(), key, 1, 2)
	if !there {
		if !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("get %s: %v", key, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, []byte(want[1:min(3, len(want))])) {
		t.Errorf("get %s: %q, %v", key, got, err)
	}
}
