package memstate_test

import (
	"context"
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/shared/statestore/statetest"
)

func TestStore(t *testing.T) { statetest.Run(t, memstate.New()) }

func TestFaults(t *testing.T) {
	ctx, boom := context.Background(), errors.New("boom")
	s := memstate.New()
	s.Before = func(op memstate.Op, _ string) error {
		if op == memstate.Put {
			return boom
		}
		return nil
	}
	if _, err := s.Put(ctx, "x", nil, ""); !errors.Is(err, boom) {
		t.Errorf("put: %v", err)
	}
	if _, _, err := s.Get(ctx, "x"); !errors.Is(err, statestore.ErrNotExist) {
		t.Errorf("what failed before was stored: %v", err)
	}
	s.Before, s.After = nil, s.Before
	if _, err := s.Put(ctx, "x", []byte("1"), ""); !errors.Is(err, boom) {
		t.Errorf("put: %v", err)
	}
	if body, _, err := s.Get(ctx, "x"); err != nil || string(body) != "1" {
		t.Errorf("what failed after was not stored: %q, %v", body, err)
	}
	if s.Count(memstate.Put) != 2 || s.Count(memstate.Get) != 2 || s.Count(memstate.List) != 0 {
		t.Errorf("counted %d puts, %d gets", s.Count(memstate.Put), s.Count(memstate.Get))
	}
}
