package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
)

var (
	errPassing = objstore.Transient(errors.New("503"))
	errLasting = errors.New("malformed")
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) objstore.Store { return retry.New(mem.New(), retry.Options{}) })
}

// Every second call fails, half of those after they took effect.
func TestConformanceWithTrouble(t *testing.T) {
	storetest.Run(t, func(*testing.T) objstore.Store {
		s := mem.New()
		s.SetHook(func(c mem.Call) mem.Fault {
			if c.Number%2 == 0 {
				return mem.Fault{}
			}
			return mem.Fault{Err: errPassing, Persisted: c.Number%4 == 1}
		})
		return retry.New(s, retry.Options{First: time.Nanosecond, Longest: time.Nanosecond})
	})
}

func TestPausesAndGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		s.SetHook(func(mem.Call) mem.Fault { return mem.Fault{Err: errPassing} })
		var events []retry.Event
		r := retry.New(s, retry.Options{
			First: time.Second, Longest: 8 * time.Second, GiveUp: time.Minute,
			Notify: func(e retry.Event) { events = append(events, e) },
		})
		began := time.Now()
		err := r.Put(t.Context(), "k", objstore.Bytes(nil))
		if !errors.Is(err, errPassing) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > time.Minute || took < 40*time.Second {
			t.Errorf("took %v", took)
		}
		var sum time.Duration
		for i, e := range events {
			most := min(8*time.Second, time.Second<<min(i, 10))
			if e.Try != i+1 || e.Op != "put" || e.Key != "k" || e.Pause < 0 || e.Pause >= most {
				t.Errorf("event %d: %+v", i, e)
			}
			sum += e.Pause
		}
		if sum != time.Since(began) {
			t.Errorf("paused %v of %v", sum, time.Since(began))
		}
		if s.Count(mem.Put) != len(events)+1 {
			t.Errorf("%d puts, %d events", s.Count(mem.Put), len(events))
		}
	})
}

// Whoever waits for a silent server is told how long, by each try.
func TestTriesThatTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		s.SetHook(func(mem.Call) mem.Fault {
			time.Sleep(90 * time.Second)
			return mem.Fault{Err: errPassing}
		})
		tries := 0
		r := retry.New(s, retry.Options{Notify: func(e retry.Event) {
			tries++
			if e.Took != 90*time.Second {
				t.Errorf("try %d took %v", e.Try, e.Took)
			}
		}})
		began := time.Now()
		_, err := r.Stat(t.Context(), "k")
		if took := time.Since(began); !errors.Is(err, errPassing) || tries < 5 || took > 20*time.Minute {
			t.Errorf("after %v and %d tries: %v", took, tries, err)
		}
	})
}

func TestLastingErrorsAreNotRetried(t *testing.T) {
	s := mem.New()
	s.SetHook(func(mem.Call) mem.Fault { return mem.Fault{Err: errLasting} })
	r := retry.New(s, retry.Options{})
	for _, err := range []error{
		r.Put(t.Context(), "k", objstore.Bytes(nil)), r.Delete(t.Context(), "k"),
		r.List(t.Context(), "", nil), r.Prefixes(t.Context(), "", nil),
	} {
		if !errors.Is(err, errLasting) {
			t.Errorf("got %v", err)
		}
	}
	if s.Calls() != 4 {
		t.Errorf("%d calls", s.Calls())
	}
}

func TestPauseEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		s.SetHook(func(mem.Call) mem.Fault { return mem.Fault{Err: errPassing} })
		r := retry.New(s, retry.Options{First: time.Hour, Longest: time.Hour, GiveUp: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := r.Stat(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// flaky gives out bodies and listings that break after a few steps.
type flaky struct {
	*mem.Store
	step   int
	cause  error
	opened []int64 // offsets
}

func (f *flaky) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f.opened = append(f.opened, offset)
	if len(f.opened)%3 == 2 {
		return nil, f.cause
	}
	r, err := f.Store.Get(ctx, key, offset, length)
	return &breaking{ReadCloser: r, left: f.step, cause: f.cause}, err
}

type breaking struct {
	io.ReadCloser
	left  int
	cause error
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.cause
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	if b.left -= n; b.left == 0 && err == nil && n%2 == 0 {
		err = b.cause
	}
	return n, err
}

func TestBodyGoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 100)
		for _, step := range []int{1, 7, 64, 1600} {
			for _, part := range [][2]int64{{0, -1}, {0, 1600}, {5, 64}, {100, 700}, {1500, 500}} {
				f := &flaky{Store: mem.New(), step: step, cause: errPassing}
				if err := f.Put(t.Context(), "k", objstore.Bytes(data)); err != nil {
					t.Fatal(err)
				}
				r := retry.New(f, retry.Options{})
				body, err := r.Get(t.Context(), "k", part[0], part[1])
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				if err != nil {
					t.Fatal(err)
				}
				want := data[part[0]:]
				if part[1] >= 0 {
					want = want[:min(part[1], int64(len(want)))]
				}
				if d := cmp.Diff(string(want), string(got)); d != "" {
					t.Errorf("step %d: %s", step, d)
				}
				if err := body.Close(); err != nil {
					t.Error(err)
				}
				if _, err := body.Read(make([]byte, 1)); err == nil {
					t.Error("read of a closed body passed")
				}
			}
		}
	})
}

func TestBodyLastingError(t *testing.T) {
	f := &flaky{Store: mem.New(), step: 4, cause: errLasting}
	if err := f.Put(t.Context(), "k", objstore.Bytes([]byte("0123456789"))); err != nil {
		t.Fatal(err)
	}
	body, err := retry.New(f, retry.Options{}).Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if !errors.Is(err, errLasting) || string(got) != "0123" || len(f.opened) != 1 {
		t.Errorf("got %q, %v, opened %v", got, err, f.opened)
	}
}

func (f *flaky) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	n := 0
	err := f.Store.List(ctx, prefix, func(i objstore.Info) error {
		if n++; n > f.step {
			return f.cause
		}
		return fn(i)
	})
	f.step++
	return err
}

func TestListGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{Store: mem.New(), cause: errPassing}
		want := []string{"a", "b", "c", "d", "e"}
		for _, k := range want {
			if err := f.Put(t.Context(), k, objstore.Bytes(nil)); err != nil {
				t.Fatal(err)
			}
		}
		r := retry.New(f, retry.Options{})
		var got []string
		err := r.List(t.Context(), "", func(i objstore.Info) error { got = append(got, i.Key); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		// The caller's own error is never retried, even one that could be.
		calls := 0
		err = r.List(t.Context(), "", func(objstore.Info) error { calls++; return errPassing })
		if err != errPassing || calls != 1 { //nolint:errorlint // the very error is promised
			t.Errorf("got %v after %d calls", err, calls)
		}
	})
}
