package objstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
)

// overwriting is a store that passes over the condition of a Put.
type overwriting struct{ *mem.Store }

func (s overwriting) Put(ctx context.Context, key string, c objstore.Content) error {
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, c)
}

// left counts the objects of a store.
func left(t *testing.T, s objstore.Store) int {
	t.Helper()
	n := 0
	if err := s.List(t.Context(), "", func(objstore.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestProbe(t *testing.T) {
	s := mem.New()
	if err := objstore.Probe(t.Context(), s); err != nil || left(t, s) != 0 {
		t.Errorf("sound: %v, %d objects left", err, left(t, s))
	}
	if err := objstore.Probe(t.Context(), overwriting{s}); !errors.Is(err, objstore.ErrOverwrites) || left(t, s) != 0 {
		t.Errorf("overwriting: %v, %d objects left", err, left(t, s))
	}
	for _, denied := range []error{objstore.ErrDenied, objstore.ErrLocked} {
		s = mem.New()
		s.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == mem.Delete {
				return mem.Fault{Err: denied}
			}
			return mem.Fault{}
		})
		if err := objstore.Probe(t.Context(), s); err != nil || left(t, s) != 1 {
			t.Errorf("%v: %v, %d objects left", denied, err, left(t, s))
		}
	}
	for put := 1; put <= 2; put++ {
		s, n := mem.New(), 0
		s.SetHook(func(c mem.Call) mem.Fault {
			if c.Op == mem.Put {
				n++
				if n == put {
					return mem.Fault{Err: objstore.ErrFull}
				}
			}
			return mem.Fault{}
		})
		if err := objstore.Probe(t.Context(), s); !errors.Is(err, objstore.ErrFull) || errors.Is(err, objstore.ErrOverwrites) || left(t, s) != 0 {
			t.Errorf("put %d fails: %v, %d objects left", put, err, left(t, s))
		}
	}
}
