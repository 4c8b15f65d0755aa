package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// tree has names that sort differently with and without the slash that follows them.
func tree() []string {
	return []string{
		"v1/a-b/x", "v1/a-b/y/z", "v1/a.b", "v1/a/0", "v1/a/x", "v1/a0/x", "v1/aa", "v1/B/x", "v1/_u",
		"v1/a/sub-1/p", "v1/a/sub/p", "v1/a/sub.json", "v10/x", "v1.json", "w",
	}
}

func listOrder(t *testing.T, s objstore.Store) {
	keys := tree()
	for i, k := range keys {
		put(t, s, k, random(uint64(i), i))
	}
	var got []string
	err := s.List(t.Context(), "", func(i objstore.Info) error {
		got = append(got, i.Key)
		if want := int64(slices.Index(keys, i.Key)); i.Size != want {
			t.Errorf("%s has %d bytes, want %d", i.Key, i.Size, want)
		}
		if i.Modified.IsZero() {
			t.Errorf("%s has no time", i.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(slices.Sorted(slices.Values(keys)), got); d != "" {
		t.Error(d)
	}
}

func listPrefixes(t *testing.T, s objstore.Store) {
	keys := slices.Sorted(slices.Values(tree()))
	for _, k := range keys {
		put(t, s, k, []byte(k))
	}
	for _, prefix := range []string{
		"v", "v1", "v1/", "v1.", "v1/a", "v1/a-", "v1/a/", "v1/a/s", "v1/a/sub", "v1/a/sub/", "v1/a/sub/p", "v1/a/sub/p/",
		"v1/a/sub/pp", "v1/a.b", "v1/a.b/", "v1/none", "v1/none/", "v1/none/x", "w", "w/", "x", "v1/B", "v1/b",
	} {
		want := []string{}
		for _, k := range keys {
			if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
				want = append(want, k)
			}
		}
		if d := cmp.Diff(want, list(t, s, prefix)); d != "" {
			t.Errorf("prefix %q: %s", prefix, d)
		}
	}
}

// many is more than one page of S3 and of Google Cloud Storage.
const many = 1105

// putMany puts many small objects below dir, a few at a time.
func putMany(t *testing.T, s objstore.Store, dir string, many int) []string {
	t.Helper()
	keys := make([]string, many)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%d", dir, i)
	}
	if f, ok := s.(Filler); ok {
		f.Fill(t, keys)
		slices.Sort(keys)
		return keys
	}
	work := make(chan string)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for k := range work {
				if err := s.Put(t.Context(), k, objstore.Bytes([]byte(k))); err != nil {
					t.Errorf("put %s: %v", k, err)
				}
			}
		})
	}
	for _, k := range keys {
		work <- k
	}
	close(work)
	group.Wait()
	slices.Sort(keys)
	return keys
}

func listMany(t *testing.T, s objstore.Store, many int) {
	put(t, s, "v1/after", nil)
	put(t, s, "v1/Before", nil)
	keys := putMany(t, s, "v1/_many/", many)
	if d := cmp.Diff(keys, list(t, s, "v1/_many/")); d != "" {
		t.Error(d)
	}
	all := append(append([]string{"v1/Before"}, keys...), "v1/after")
	if d := cmp.Diff(all, list(t, s, "v1/")); d != "" {
		t.Error(d)
	}
}

func listStops(t *testing.T, s objstore.Store) {
	for i := range 5 {
		put(t, s, fmt.Sprintf("v1/s/%d", i), nil)
	}
	stop, n := errors.New("stop"), 0
	err := s.List(t.Context(), "v1/", func(objstore.Info) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if err != stop { //nolint:errorlint // the very error is promised
		t.Errorf("list returned %v", err)
	}
	if n != 3 {
		t.Errorf("fn was called %d times", n)
	}
}

func listWhileDeleting(t *testing.T, s objstore.Store) {
	for i := range 20 {
		put(t, s, fmt.Sprintf("v1/d%d/x", i), nil)
	}
	n := 0
	err := s.List(t.Context(), "v1/", func(i objstore.Info) error {
		n++
		return s.Delete(t.Context(), i.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != 20 {
		t.Errorf("fn was called %d times", n)
	}
	if left := list(t, s, ""); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func prefixes(t *testing.T, s objstore.Store) {
	for _, k := range tree() {
		put(t, s, k, nil)
	}
	for prefix, want := range map[string][]string{
		"":         {"v1", "v10"},
		"v1/":      {"B", "a", "a-b", "a0"},
		"v1/a/":    {"sub", "sub-1"},
		"v1/none/": nil,
		"w/":       nil,
	} {
		var got []string
		err := objstore.Prefixes(t.Context(), s, prefix, func(n string) error { got = append(got, n); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("prefix %q: %s", prefix, d)
		}
	}
	if err := s.Delete(t.Context(), "v1/a0/x"); err != nil {
		t.Fatal(err)
	}
	err := objstore.Prefixes(t.Context(), s, "v1/", func(n string) error {
		if n == "a0" {
			t.Error("a prefix without objects is named")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
