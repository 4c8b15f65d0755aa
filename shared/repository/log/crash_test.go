package log_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestFaults lets each call to the store fail once, before and after it took effect: nothing that was acknowledged is lost,
// nothing is stored twice.
func TestFaults(t *testing.T) {
	for call := 1; ; call++ {
		for _, persisted := range []bool{false, true} {
			f := repotest.New(t)
			base, reached := f.Store.Calls(), false
			f.Store.SetHook(func(c mem.Call) mem.Fault {
				if c.Number-base != call || c.Op == mem.List {
					return mem.Fault{}
				}
				reached = true
				return mem.Fault{Err: objstore.Transient(errors.New("cut")), Persisted: persisted}
			})
			told := 0
			o := options(f)
			o.Trouble = func(error) { told++ }
			w := create(t, f, o)
			end := write(t, f, w, 1, 4)
			if _, err := w.Join(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			f.Store.SetHook(nil)
			check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 4))
			if reached && told != 1 || !reached && told != 0 {
				t.Errorf("call %d: told of trouble %d times", call, told)
			}
			if n := len(repotest.Keys(f.Store, "/log/")); n != 6 {
				t.Errorf("call %d: %d objects", call, n)
			}
			if !reached && call > 8 {
				return
			}
		}
	}
}

// TestCrashes ends the process at each call, before and after it took effect, and goes on with what the state says:
// everything that was acknowledged is there, and what was pending is found.
func TestCrashes(t *testing.T) {
	for call := 1; call <= 9; call++ {
		for _, persisted := range []bool{false, true} {
			f := repotest.New(t)
			ctx, kill := context.WithCancel(t.Context())
			base := f.Store.Calls()
			f.Store.SetHook(func(c mem.Call) mem.Fault {
				if c.Number-base != call {
					return mem.Fault{}
				}
				kill()
				return mem.Fault{Err: objstore.Transient(errors.New("killed")), Persisted: persisted}
			})
			// What the state directory knows.
			state := struct {
				stream string
				tried  uint64
				last   log.Place
				ahead  []log.Place
			}{stream: "00112233445566778899aabbccddeeff"}
			state.last = start(state.stream)
			acknowledged := 0
			var w *log.Writer
			var err error
			o := options(f)
			o.Stream = state.stream
			state.tried = 1
			if w, err = log.Create(ctx, f.Repo, f.Source, o); err == nil {
				for n := uint32(1); n <= 6 && err == nil; n++ {
					f.Now = f.Now.Add(time.Second)
					var p *log.Prepared
					if p, err = w.Prepare(commit(f.Now, n, n)); err != nil {
						break
					}
					state.ahead = []log.Place{p.Place()}
					if state.last, err = w.Put(ctx, p); err != nil {
						state.last = w.Place()
						break
					}
					acknowledged, state.ahead = acknowledged+1, nil
				}
			}
			kill()
			f.Store.SetHook(nil)
			resumed, err := log.Resume(t.Context(), f.Repo, f.Source, state.last, state.ahead)
			if err != nil {
				t.Fatal(err)
			}
			if want := uint64(acknowledged); resumed.Sequence != want && !(persisted && resumed.Sequence == want+1) {
				t.Errorf("call %d, persisted %v: %d acknowledged, goes on after %d", call, persisted, acknowledged, resumed.Sequence)
			}
			o = options(f)
			o.Stream, o.After = state.stream, state.tried
			if resumed.Sequence > 0 {
				o.Continues = &resumed
			}
			w = create(t, f, o)
			next := uint32(resumed.Sequence) + 1
			end := write(t, f, w, next, next+2)
			check(t, f, log.Range{From: start(state.stream), Through: end}, numbers(1, next+2))
		}
	}
}

// TestClones lets a cloned machine write the same stream: in the same epoch, and in one of its own.
func TestClones(t *testing.T) {
	f := repotest.New(t)
	one := create(t, f, options(f))
	end := write(t, f, one, 1, 3)
	piece := layout.LogKey(f.Source, layout.LogObject{Stream: one.Stream(), Epoch: 1, First: 4, Last: 4})
	// The clone has the same epoch open and is faster.
	if err := f.Store.Put(t.Context(), piece, objstore.Bytes([]byte("of the clone"))); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Append(t.Context(), commit(f.Now, 4, 4)); !errors.Is(err, log.ErrSuperseded) {
		t.Fatalf("%v", err)
	}
	if _, err := one.Append(t.Context(), commit(f.Now, 5, 4)); !errors.Is(err, log.ErrClosed) {
		t.Errorf("a writer that was superseded goes on: %v", err)
	}
	f.Store.Tamper(piece, nil)

	o := options(f)
	o.Stream, o.After, o.Continues = one.Stream(), 1, &end
	two := create(t, f, o)
	// A third process has the same state: it must not get the number, nor the next one.
	if _, err := log.Create(t.Context(), f.Repo, f.Source, o); !errors.Is(err, log.ErrSuperseded) {
		t.Errorf("%v", err)
	}
	o.After = 0
	if _, err := log.Create(t.Context(), f.Repo, f.Source, o); !errors.Is(err, log.ErrSuperseded) {
		t.Errorf("%v", err)
	}
	if err := two.Superseded(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
	o.After = 2
	create(t, f, o)
	if err := two.Superseded(t.Context()); !errors.Is(err, log.ErrSuperseded) {
		t.Errorf("%v", err)
	}
	// Two at the same moment: one of them gets the number.
	o.After = 3
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, errs[i] = log.Create(context.Background(), f.Repo, f.Source, o)
		}()
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), log.ErrSuperseded) {
		t.Errorf("%v", errs)
	}
}
