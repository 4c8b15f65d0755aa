// Package storetest is the conformance suite of [objstore.Store]. A driver's test calls [Run] with a function that
// opens an empty store; whatever passes can hold a repository.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Open returns a new, empty store that lives as long as the test.
type Open func(t *testing.T) objstore.Store

// Filler is a store whose tests know a faster way to get many small objects into it than to put each.
type Filler interface {
	// Fill stores each key as the content of the object of that name.
	Fill(t *testing.T, keys []string)
}

// Run runs the whole suite, each test on a store of its own.
func Run(t *testing.T, open Open) { run(t, open, many) }

// RunSmall is Run for a store whose pages are small: its longest listing is shorter.
func RunSmall(t *testing.T, open Open) { run(t, open, many/10) }

func run(t *testing.T, open Open, many int) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, objstore.Store)
	}{
		{"put and get", putAndGet},
		{"put is if absent", putIfAbsent},
		{"probe", probe},
		{"one of many writers wins", oneWins},
		{"many writers of the same bytes", sameWriters},
		{"checksum mismatch is refused", checksumMismatch},
		{"content that cannot be read", brokenContent},
		{"keys are checked", keysChecked},
		{"ranges", ranges},
		{"absent objects", absent},
		{"stat", stat},
		{"list order", listOrder},
		{"list prefixes", listPrefixes},
		{"list many", func(t *testing.T, s objstore.Store) { listMany(t, s, many) }},
		{"list stops", listStops},
		{"list while deleting", listWhileDeleting},
		{"prefixes", prefixes},
		{"delete", deletes},
		{"put after delete", putAfterDelete},
		{"large object", large},
		{"spool", spool},
		{"cancelled", cancelled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func put(t *testing.T, s objstore.Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, objstore.Bytes(data)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func probe(t *testing.T, s objstore.Store) {
	if err := objstore.Probe(t.Context(), s); err != nil {
		t.Error(err)
	}
	if err := s.List(t.Context(), "", func(i objstore.Info) error { t.Errorf("left behind: %s", i.Key); return nil }); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, s objstore.Store, key string, offset, length int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("get %s from %d, %d bytes: %v", key, offset, length, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	return b
}

func gone(t *testing.T, s objstore.Store, key string) {
	t.Helper()
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("stat of absent %s: %v", key, err)
	}
	if r, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, objstore.ErrNotExist) {
		if err == nil {
			_ = r.Close()
		}
		t.Errorf("get of absent %s: %v", key, err)
	}
	for _, k := range list(t, s, "") {
		if k == key {
			t.Errorf("absent %s is listed", key)
		}
	}
}

func list(t *testing.T, s objstore.Store, prefix string) []string {
	t.Helper()
	keys := []string{}
	err := s.List(t.Context(), prefix, func(i objstore.Info) error { keys = append(keys, i.Key); return nil })
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return keys
}

// random returns n bytes that depend on seed only.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func putAndGet(t *testing.T, s objstore.Store) {
	for i, size := range []int{0, 1, 1000, 1 << 20} {
		key := "v1/host/source/o" + string(rune('0'+i))
		data := random(uint64(i), size)
		put(t, s, key, data)
		if got := get(t, s, key, 0, -1); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back as %d others", size, len(got))
		}
	}
	binary := []byte("\x00\xff\r\n\x1a%s\xc3(")
	put(t, s, "v1/Binary_-.x/0000000001.json", binary)
	if got := get(t, s, "v1/Binary_-.x/0000000001.json", 0, -1); !bytes.Equal(got, binary) {
		t.Errorf("got %q", got)
	}
}

func putIfAbsent(t *testing.T, s objstore.Store) {
	const key = "v1/a/b"
	put(t, s, key, []byte("first"))
	put(t, s, key, []byte("first")) // the answer to the first was lost
	for _, other := range []string{"other", "", "first and more"} {
		if err := s.Put(t.Context(), key, objstore.Bytes([]byte(other))); !errors.Is(err, objstore.ErrExist) {
			t.Errorf("put of %q over another: %v", other, err)
		}
	}
	if got := get(t, s, key, 0, -1); string(got) != "first" {
		t.Errorf("the object was overwritten: %q", got)
	}
	put(t, s, "v1/empty", nil)
	put(t, s, "v1/empty", nil)
	if err := s.Put(t.Context(), "v1/empty", objstore.Bytes([]byte("x"))); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("put over an empty object: %v", err)
	}
}

const writers = 12

// contend lets many put different contents under one key at the same time and returns their results.
func contend(t *testing.T, s objstore.Store, key string, content func(i int) []byte) []error {
	start, results := make(chan struct{}), make([]error, writers)
	done := make(chan struct{})
	for i := range writers {
		go func() {
			defer func() { done <- struct{}{} }()
			<-start
			// A store may answer that two collided and one should try again.
			for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
				results[i] = s.Put(t.Context(), key, objstore.Bytes(content(i)))
				if !objstore.IsTransient(results[i]) || time.Now().After(limit) {
					return
				}
			}
		}()
	}
	close(start)
	for range writers {
		<-done
	}
	return results
}

func oneWins(t *testing.T, s objstore.Store) {
	content := func(i int) []byte { return random(uint64(i), 70_000+i) }
	for _, key := range []string{"v1/h/s/snapshots/0000000001.json", "v1/h/s/snapshots/0000000002.json", "v1/h/s/new/x"} {
		winner, won := -1, 0
		for i, err := range contend(t, s, key, content) {
			switch {
			case err == nil:
				winner, won = i, won+1
			case !errors.Is(err, objstore.ErrExist):
				t.Errorf("writer %d: %v", i, err)
			}
		}
		if won != 1 {
			t.Fatalf("%d writers of %s were told that they won", won, key)
		}
		if !bytes.Equal(get(t, s, key, 0, -1), content(winner)) {
			t.Errorf("%s holds other bytes than its winner's", key)
		}
	}
}

func sameWriters(t *testing.T, s objstore.Store) {
	data := random(9, 50_000)
	for i, err := range contend(t, s, "v1/p/same", func(int) []byte { return data }) {
		if err != nil {
			t.Errorf("writer %d: %v", i, err)
		}
	}
	if !bytes.Equal(get(t, s, "v1/p/same", 0, -1), data) {
		t.Error("other bytes came back")
	}
}

func checksumMismatch(t *testing.T, s objstore.Store) {
	for _, size := range []int{0, 10, 300_000} {
		c := objstore.Bytes(random(3, size))
		c.SHA256[7] ^= 1
		if err := s.Put(t.Context(), "v1/x/bad", c); !errors.Is(err, objstore.ErrChecksum) {
			t.Errorf("put of %d bytes with a wrong checksum: %v", size, err)
		}
		gone(t, s, "v1/x/bad")
	}
	put(t, s, "v1/x/bad", []byte("good"))
}

// broken is content whose second half cannot be read.
type broken struct{ err error }

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= 100_000 {
		return len(p), nil
	}
	if off >= 100_000 {
		return 0, b.err
	}
	return int(100_000 - off), b.err
}

func brokenContent(t *testing.T, s objstore.Store) {
	for _, cause := range []error{errors.New("disk is broken"), io.EOF} {
		err := s.Put(t.Context(), "v1/x/broken", objstore.Content{ReaderAt: broken{cause}, Size: 200_000})
		if err == nil {
			t.Error("content that cannot be read was stored")
		}
		gone(t, s, "v1/x/broken")
	}
}

func keysChecked(t *testing.T, s objstore.Store) {
	for _, key := range []string{"", "/", "a//b", "../a", "a/../../b", "/etc/passwd", "a/", ".a", "tmp/a", "a\x00b", "a b"} {
		if err := s.Put(t.Context(), key, objstore.Bytes(nil)); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("put %q: %v", key, err)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("get %q: %v", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("stat %q: %v", key, err)
		}
		if err := s.Delete(t.Context(), key); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("delete %q: %v", key, err)
		}
	}
	if err := s.List(t.Context(), "../", func(objstore.Info) error { return nil }); !errors.Is(err, objstore.ErrKey) {
		t.Errorf("list: %v", err)
	}
	if keys := list(t, s, ""); len(keys) != 0 {
		t.Errorf("there are %q", keys)
	}
}

func ranges(t *testing.T, s objstore.Store) {
	data := random(4, 100_000)
	put(t, s, "v1/r", data)
	for _, r := range []struct{ offset, length int64 }{
		{0, -1},
		{0, 0},
		{0, 1},
		{0, 100_000},
		{0, 100_001},
		{1, -1},
		{50_000, 10},
		{99_999, 1},
		{99_999, 2},
		{99_990, -1},
		{100_000, -1},
		{100_000, 0},
		{100_000, 5},
		{200_000, -1},
		{200_000, 5},
		{5, 1 << 62},
	} {
		want := data[min(r.offset, 100_000):]
		if r.length >= 0 {
			want = want[:min(r.length, int64(len(want)))]
		}
		if got := get(t, s, "v1/r", r.offset, r.length); !bytes.Equal(got, want) {
			t.Errorf("%d bytes from %d: got %d bytes, want %d", r.length, r.offset, len(got), len(want))
		}
	}
	if _, err := s.Get(t.Context(), "v1/r", -1, 5); err == nil {
		t.Error("a negative offset was accepted")
	}
	put(t, s, "v1/zero", nil)
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {0, 7}, {3, -1}, {3, 3}} {
		if got := get(t, s, "v1/zero", r[0], r[1]); len(got) != 0 {
			t.Errorf("an empty object gave %d bytes", len(got))
		}
	}
}

func absent(t *testing.T, s objstore.Store) {
	gone(t, s, "v1/none")
	put(t, s, "v1/dir/file", []byte("x"))
	gone(t, s, "v1/dir")
	gone(t, s, "v1")
	gone(t, s, "v1/dir/fil")
	gone(t, s, "v1/dir/file/below")
	for _, length := range []int64{0, 3} {
		if _, err := s.Get(t.Context(), "v1/none", 5, length); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("get %d bytes of an absent object: %v", length, err)
		}
	}
}

func stat(t *testing.T, s objstore.Store) {
	before := time.Now().Add(-time.Hour)
	c := objstore.Bytes(random(5, 12_345))
	if err := s.Put(t.Context(), "v1/s", c); err != nil {
		t.Fatal(err)
	}
	i, err := s.Stat(t.Context(), "v1/s")
	if err != nil {
		t.Fatal(err)
	}
	if i.Key != "v1/s" || i.Size != c.Size {
		t.Errorf("got %+v", i)
	}
	// Store and test run on one machine, up to a generous difference of their clocks.
	if i.Modified.Before(before) || i.Modified.After(time.Now().Add(time.Hour)) {
		t.Errorf("modified at %v", i.Modified)
	}
	if i.SHA256 != nil && !bytes.Equal(i.SHA256, c.SHA256[:]) {
		t.Errorf("the recorded checksum is %x", i.SHA256)
	}
}

func deletes(t *testing.T, s objstore.Store) {
	put(t, s, "v1/d/1", []byte("1"))
	put(t, s, "v1/d/2", []byte("2"))
	if err := s.Delete(t.Context(), "v1/d/1"); err != nil {
		t.Fatal(err)
	}
	gone(t, s, "v1/d/1")
	for _, none := range []string{"v1/d/1", "v1/d", "v1", "v1/e/f/g", "v1/d/2/x"} {
		if err := s.Delete(t.Context(), none); err != nil {
			t.Errorf("delete of absent %s: %v", none, err)
		}
	}
	if got := get(t, s, "v1/d/2", 0, -1); string(got) != "2" {
		t.Errorf("the neighbour is %q", got)
	}
	if err := s.Delete(t.Context(), "v1/d/2"); err != nil {
		t.Fatal(err)
	}
	if keys := list(t, s, ""); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
}

func putAfterDelete(t *testing.T, s objstore.Store) {
	for i := range 3 {
		data := random(uint64(i), 100)
		put(t, s, "v1/again/x", data)
		if !bytes.Equal(get(t, s, "v1/again/x", 0, -1), data) {
			t.Error("other bytes came back")
		}
		if err := s.Delete(t.Context(), "v1/again/x"); err != nil {
			t.Fatal(err)
		}
		gone(t, s, "v1/again/x")
	}
}

func large(t *testing.T, s objstore.Store) {
	data := random(6, 20<<20)
	put(t, s, "v1/packs/large", data)
	put(t, s, "v1/packs/large", data)
	if !bytes.Equal(get(t, s, "v1/packs/large", 0, -1), data) {
		t.Error("other bytes came back")
	}
	if got := get(t, s, "v1/packs/large", 11<<20, 4<<20); !bytes.Equal(got, data[11<<20:15<<20]) {
		t.Error("other bytes came back from the middle")
	}
	c := objstore.Bytes(data)
	c.Size = objstore.MaxObject + 1
	if err := s.Put(t.Context(), "v1/packs/larger", c); err == nil {
		t.Error("an object above the limit was stored")
	}
}

func cancelled(t *testing.T, s objstore.Store) {
	put(t, s, "v1/c/1", []byte("1"))
	put(t, s, "v1/c/2", random(1, 5<<20))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Get(ctx, "v1/c/2", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a body went on after its context ended")
	}
	_ = r.Close()
	check := func(op string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s after the context ended: %v", op, err)
		}
		if objstore.IsTransient(err) {
			t.Errorf("%s: an ended context is not transient", op)
		}
	}
	check("put", s.Put(ctx, "v1/c/3", objstore.Bytes([]byte("3"))))
	_, err = s.Get(ctx, "v1/c/1", 0, -1)
	check("get", err)
	_, err = s.Stat(ctx, "v1/c/1")
	check("stat", err)
	check("list", s.List(ctx, "v1/", func(objstore.Info) error { return nil }))
	check("delete", s.Delete(ctx, "v1/c/1"))
	ctx, cancel = context.WithCancel(t.Context())
	check("list", s.List(ctx, "v1/", func(objstore.Info) error { cancel(); return nil }))
	gone(t, s, "v1/c/3")
	if got := get(t, s, "v1/c/1", 0, -1); string(got) != "1" {
		t.Errorf("got %q", got)
	}
}
