package limit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) objstore.Store {
		return limit.New(mem.New(), limit.Options{Upload: 1 << 32, Download: 1 << 32, Parallel: 2})
	})
}

func TestConformanceUnbounded(t *testing.T) {
	storetest.Run(t, func(*testing.T) objstore.Store { return limit.New(mem.New(), limit.Options{}) })
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 100 << 10
		s := limit.New(mem.New(), limit.Options{Upload: rate, Download: 2 * rate})
		data := bytes.Repeat([]byte("x"), 10*rate)
		began := time.Now()
		if err := s.Put(t.Context(), "k", objstore.Bytes(data)); err != nil {
			t.Fatal(err)
		}
		within(t, "put", time.Since(began), 10*time.Second)
		began = time.Now()
		got, err := objstore.ReadAll(t.Context(), s, "k", 100*rate)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatal("other bytes", err)
		}
		within(t, "get", time.Since(began), 5*time.Second)
		began = time.Now()
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if _, err := objstore.ReadAll(t.Context(), s, "k", 100*rate); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		within(t, "four gets", time.Since(began), 20*time.Second)
	})
}

func within(t *testing.T, what string, took, want time.Duration) {
	t.Helper()
	if took < want*9/10 || took > want*11/10 {
		t.Errorf("%s took %v, want %v", what, took, want)
	}
}

func TestBandwidthEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limit.New(mem.New(), limit.Options{Upload: 1000})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Put(ctx, "k", objstore.Bytes(make([]byte, 1<<20)))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestUnmetered(t *testing.T) {
	c := objstore.Bytes([]byte("data"))
	var inner io.ReaderAt
	s := limit.New(spy{mem.New(), func(c objstore.Content) { inner = objstore.Unmetered(c.ReaderAt) }}, limit.Options{Upload: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Put(ctx, "k", c)
	if inner != nil {
		t.Error("an ended context was not looked at")
	}
	_ = limit.New(spy{mem.New(), func(c objstore.Content) { inner = objstore.Unmetered(c.ReaderAt) }}, limit.Options{Upload: 1 << 20}).Put(t.Context(), "k", c)
	if inner != c.ReaderAt {
		t.Error("what is below the meter does not come out")
	}
}

type spy struct {
	objstore.Store
	put func(objstore.Content)
}

func (s spy) Put(ctx context.Context, key string, c objstore.Content) error {
	s.put(c)
	return s.Store.Put(ctx, key, c)
}

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		var mu sync.Mutex
		now, most := 0, 0
		inner.SetHook(func(mem.Call) mem.Fault {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second) // the test's own clock
			mu.Lock()
			now--
			mu.Unlock()
			return mem.Fault{}
		})
		s := limit.New(inner, limit.Options{Parallel: 3})
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				key := string(rune('a' + i))
				if err := s.Put(t.Context(), key, objstore.Bytes([]byte(key))); err != nil {
					t.Error(err)
				}
				if _, err := s.Stat(t.Context(), key); err != nil {
					t.Error(err)
				}
				if _, err := objstore.ReadAll(t.Context(), s, key, 5); err != nil {
					t.Error(err)
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if most != 3 {
			t.Errorf("%d at a time", most)
		}
		// Bodies give their slots back when they are closed early, and calls wait no longer than their context.
		if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil {
			t.Fatal(err)
		}
		var bodies []io.Closer
		for range 3 {
			r, err := s.Get(t.Context(), "k", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, r)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Stat(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, b := range bodies {
			_ = b.Close()
			_ = b.Close()
		}
		if _, err := s.Stat(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	})
}
