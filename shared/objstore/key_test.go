package objstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
)

func TestCheckKey(t *testing.T) {
	for _, good := range []string{"a", "v1/repository.json", "v1/h/s/receipts/host/20260102T030405.000000000Z-content-1.json", "a-b/_x/Z.0", "v1/tmp/x", strings.Repeat("a", 255)} {
		if err := objstore.CheckKey(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.b", "tmp/x", "tmp", "a b", "ä", "a\x00", "a\\b", "a+b", strings.Repeat("a", 256), strings.Repeat("a/", 500) + "a"} {
		if err := objstore.CheckKey(bad); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	for _, good := range []string{"", "a", "a/", "v1/h/s/snapshots/00000"} {
		if err := objstore.CheckPrefix(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"/", "/a", "a//", "../", "a/..", "a/.", "a b", strings.Repeat("a/", 500)} {
		if err := objstore.CheckPrefix(bad); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := objstore.CheckLevel("a"); !errors.Is(err, objstore.ErrKey) {
		t.Error(err)
	}
}

func TestCheckArguments(t *testing.T) {
	if err := objstore.CheckPut("a", objstore.Content{}); err == nil {
		t.Error("content without a reader passed")
	}
	big := objstore.Bytes(nil)
	big.Size = objstore.MaxObject + 1
	if err := objstore.CheckPut("a", big); err == nil {
		t.Error("content that is too large passed")
	}
	if err := objstore.CheckPut("..", objstore.Bytes(nil)); !errors.Is(err, objstore.ErrKey) {
		t.Error(err)
	}
	if err := objstore.CheckGet("a", -1); err == nil {
		t.Error("negative offset passed")
	}
	if err := objstore.CheckGet("..", 0); !errors.Is(err, objstore.ErrKey) {
		t.Error(err)
	}
}

// plain hides the Lister.
type plain struct{ objstore.Store }

func TestPrefixesByList(t *testing.T) {
	ctx := context.Background()
	s := mem.New()
	for _, k := range []string{"v/a-b/1", "v/a/1", "v/a/2", "v/a.b", "v/c/d/e"} {
		if err := s.Put(ctx, k, objstore.Bytes([]byte(k))); err != nil {
			t.Fatal(err)
		}
	}
	for _, store := range []objstore.Store{s, plain{s}} {
		var got []string
		err := objstore.Prefixes(ctx, store, "v/", func(name string) error { got = append(got, name); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"a", "a-b", "c"}, got); d != "" {
			t.Error(d)
		}
		stop := errors.New("stop")
		if err := objstore.Prefixes(ctx, store, "v/", func(string) error { return stop }); err != stop { //nolint:errorlint // the very error is promised
			t.Error(err)
		}
		if err := objstore.Prefixes(ctx, store, "v", nil); !errors.Is(err, objstore.ErrKey) {
			t.Error(err)
		}
	}
}

func TestReadAll(t *testing.T) {
	ctx := context.Background()
	s := mem.New()
	if err := s.Put(ctx, "k", objstore.Bytes([]byte("12345"))); err != nil {
		t.Fatal(err)
	}
	if b, err := objstore.ReadAll(ctx, s, "k", 5); err != nil || string(b) != "12345" {
		t.Error(string(b), err)
	}
	if _, err := objstore.ReadAll(ctx, s, "k", 4); err == nil {
		t.Error("an object larger than the limit was read")
	}
	if _, err := objstore.ReadAll(ctx, s, "none", 4); !errors.Is(err, objstore.ErrNotExist) {
		t.Error(err)
	}
}

func TestTransient(t *testing.T) {
	err := errors.New("x")
	if objstore.IsTransient(err) || objstore.IsTransient(nil) {
		t.Error("ordinary errors are not transient")
	}
	w := fmt.Errorf("put: %w", objstore.Transient(err))
	if !objstore.IsTransient(w) || !errors.Is(w, err) {
		t.Error("a marked error lost its mark or its cause")
	}
}

func TestCheckRange(t *testing.T) {
	for _, c := range []struct {
		header string
		offset int64
		ok     bool
	}{
		{"", 0, true},
		{"bytes 0-9/10", 0, true},
		{"bytes 5-9/10", 5, true},
		{"bytes 5-9/*", 5, true},
		{"", 5, false},
		{"bytes 0-9/10", 5, false},
		{"bytes 50-99/100", 5, false},
		{"bytes 5-9/10", 0, false},
	} {
		if err := objstore.CheckRange(c.header, c.offset); (err == nil) != c.ok {
			t.Errorf("%q from %d: %v", c.header, c.offset, err)
		}
	}
}
