// Package statetest is the suite that every driver of package statestore passes. Use [Run].
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Run runs the suite on an empty store.
func Run(t *testing.T, s statestore.Store) {
	t.Helper()
	ctx := context.Background()
	for name, test := range map[string]func(context.Context, *testing.T, statestore.Store, string){
		"absent": absent, "versions": versions, "bodies": bodies, "races": races, "updates": updates, "ends": ends,
	} {
		t.Run(name, func(t *testing.T) { test(ctx, t, s, name+"/") })
	}
	t.Run("list", func(t *testing.T) { list(ctx, t, s) })
}

func absent(ctx context.Context, t *testing.T, s statestore.Store, at string) {
	if body, tag, err := s.Get(ctx, at+"x.json"); !errors.Is(err, statestore.ErrNotExist) || body != nil || tag != "" {
		t.Errorf("get: %q, %q, %v", body, tag, err)
	}
	if tag, err := s.Put(ctx, at+"x.json", []byte("1"), `"0cc175b9c0f1b6a831c399e269772661"`); !errors.Is(err, statestore.ErrConflict) {
		t.Errorf("put over what is not there: %q, %v", tag, err)
	}
	if err := s.Delete(ctx, at+"x.json", `"0cc175b9c0f1b6a831c399e269772661"`); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
}

func versions(ctx context.Context, t *testing.T, s statestore.Store, at string) {
	key := at + "x.json"
	first, err := s.Put(ctx, key, []byte("one"), "")
	if err != nil || first == "" {
		t.Fatalf("first put: %q, %v", first, err)
	}
	if _, err := s.Put(ctx, key, []byte("other"), ""); !errors.Is(err, statestore.ErrConflict) {
		t.Errorf("put where something is: %v", err)
	}
	second, err := s.Put(ctx, key, []byte("two"), first)
	if err != nil || second == first {
		t.Fatalf("second put: %q, %v", second, err)
	}
	if _, err := s.Put(ctx, key, []byte("three"), first); !errors.Is(err, statestore.ErrConflict) {
		t.Errorf("put over an old version: %v", err)
	}
	if err := s.Delete(ctx, key, first); !errors.Is(err, statestore.ErrConflict) {
		t.Errorf("delete an old version: %v", err)
	}
	body, tag, err := s.Get(ctx, key)
	if err != nil || string(body) != "two" || tag != second {
		t.Errorf("get: %q, %q, %v; want tag %q", body, tag, err, second)
	}
	unless(ctx, t, s, key, first, second)
	if err := s.Delete(ctx, key, second); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, _, err := s.Get(ctx, key); !errors.Is(err, statestore.ErrNotExist) {
		t.Errorf("get what was deleted: %v", err)
	}
	if _, err := s.Put(ctx, key, []byte("four"), second); !errors.Is(err, statestore.ErrConflict) {
		t.Errorf("put over what was deleted: %v", err)
	}
	if _, err := s.Put(ctx, key, []byte("four"), ""); err != nil {
		t.Errorf("put anew: %v", err)
	}
}

// unless reads the document, whose version second has the text two, by one who has this or another version.
func unless(ctx context.Context, t *testing.T, s statestore.Store, key, first, second string) {
	t.Helper()
	if body, tag, err := statestore.GetUnless(ctx, s, key, second); !errors.Is(err, statestore.ErrUnmodified) || body != nil || tag != second {
		t.Errorf("get unless it is the same: %q, %q, %v", body, tag, err)
	}
	for _, old := range []string{first, ""} {
		if body, tag, err := statestore.GetUnless(ctx, s, key, old); err != nil || string(body) != "two" || tag != second {
			t.Errorf("get unless it is %q: %q, %q, %v", old, body, tag, err)
		}
	}
}

func bodies(ctx context.Context, t *testing.T, s statestore.Store, at string) {
	for i, body := range [][]byte{{}, []byte("{}"), {0, 255, '\r', '\n'}, bytes.Repeat([]byte("x"), 3<<20)} {
		key := fmt.Sprintf("%sbody-%d.json", at, i)
		tag, err := s.Put(ctx, key, body, "")
		if err != nil {
			t.Fatal(err)
		}
		got, again, err := s.Get(ctx, key)
		if err != nil || !bytes.Equal(got, body) || again != tag {
			t.Errorf("%d bytes: got %d, tag %q after %q, %v", len(body), len(got), again, tag, err)
		}
	}
}

// races lets several write over the same version: one succeeds.
func races(ctx context.Context, t *testing.T, s statestore.Store, at string) {
	key, tag := at+"x.json", ""
	for round := range 5 {
		var mu sync.Mutex
		var won []string
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				made, err := s.Put(ctx, key, fmt.Appendf(nil, "round %d writer %d", round, i), tag)
				switch {
				case err == nil:
					mu.Lock()
					won = append(won, made)
					mu.Unlock()
				case !errors.Is(err, statestore.ErrConflict):
					t.Errorf("put: %v", err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d: %d writers won", round, len(won))
		}
		tag = won[0]
		if _, got, err := s.Get(ctx, key); err != nil || got != tag {
			t.Fatalf("round %d: tag %q, want %q, %v", round, got, tag, err)
		}
	}
}

// updates counts with several at once: no step is lost.
func updates(ctx context.Context, t *testing.T, s statestore.Store, at string) {
	type counter struct {
		N int `json:"n"`
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 4 {
		group.Go(func() {
			for range 10 {
				err := statestore.Update(ctx, s, at+"n.json", func(c *counter) error { c.N++; return nil })
				switch {
				case err == nil:
					mu.Lock()
					done++
					mu.Unlock()
				case !errors.Is(err, statestore.ErrConflict):
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	group.Wait()
	got, _, err := statestore.Read[counter](ctx, s, at+"n.json")
	if err != nil || got.N != done || done < 20 {
		t.Errorf("%+v, %v after %d updates", got, err, done)
	}
}

func ends(_ context.Context, t *testing.T, s statestore.Store, at string) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Get(ctx, at+"x"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Put(ctx, at+"x", nil, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if err := s.Delete(ctx, at+"x", "y"); !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	if err := s.List(ctx, at, func(string) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
}

func list(ctx context.Context, t *testing.T, s statestore.Store) {
	want := []string{"list/a.json", "list/b/c.json", "list/b/d.json", "list/ü.json"}
	for _, key := range append([]string{"lisu.json"}, want...) {
		if _, err := s.Put(ctx, key, []byte("{}"), ""); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := s.List(ctx, "list/", func(key string) error { got = append(got, key); return nil })
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %q, %v; want %q", got, err, want)
	}
	stop := errors.New("enough")
	if err := s.List(ctx, "list/", func(string) error { return stop }); err != stop { //nolint:errorlint // as it is
		t.Errorf("list stopped with %v", err)
	}
}
