package statestore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

type document struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func TestUpdate(t *testing.T) {
	ctx := context.Background()
	s := memstate.New()
	if err := statestore.Update(ctx, s, "x", func(*document) error { return statestore.ErrUnchanged }); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if n := s.Count(memstate.Put); n != 0 {
		t.Errorf("%d writes of what is unchanged", n)
	}
	boom := errors.New("boom")
	if err := statestore.Update(ctx, s, "x", func(*document) error { return boom }); err != boom { //nolint:errorlint // as it is
		t.Errorf("error of the change: %v", err)
	}
	for want := 1; want < 4; want++ {
		if err := statestore.Update(ctx, s, "x", func(d *document) error { d.N++; return nil }); err != nil {
			t.Fatal(err)
		}
		if d, _, err := statestore.Read[document](ctx, s, "x"); err != nil || d.N != want {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

// TestUpdateConflicts lets another write each time, for a while and for ever.
func TestUpdateConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := memstate.New()
		others := 3
		calls := 0
		change := func(d *document) error {
			calls++
			if others > 0 {
				others--
				_, tag, _ := s.Get(ctx, "x")
				if _, err := s.Put(ctx, "x", []byte(`{"n": 100}`), tag); err != nil {
					t.Error(err)
				}
			}
			d.N++
			return nil
		}
		if err := statestore.Update(ctx, s, "x", change); err != nil || calls != 4 {
			t.Errorf("%v after %d calls", err, calls)
		}
		if d, _, err := statestore.Read[document](ctx, s, "x"); err != nil || d.N != 101 {
			t.Errorf("%+v, %v", d, err)
		}
		others = 1000
		if err := statestore.Update(ctx, s, "x", change); !errors.Is(err, statestore.ErrConflict) || others == 0 {
			t.Errorf("conflicts without end: %v", err)
		}
	})
}

// TestUpdateLostAnswer lets the answer of a write be lost: the caller is told, and the document is written.
func TestUpdateLostAnswer(t *testing.T) {
	ctx := context.Background()
	s := memstate.New()
	lost := errors.New("connection reset")
	s.After = func(op memstate.Op, _ string) error {
		if op == memstate.Put {
			return lost
		}
		return nil
	}
	err := statestore.Update(ctx, s, "x", func(d *document) error { d.N++; return nil })
	if !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	if d, _, err := statestore.Read[document](ctx, s, "x"); err != nil || d.N != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestLimits(t *testing.T) {
	ctx := context.Background()
	s := memstate.New()
	big := document{Text: strings.Repeat("x", statestore.MaxDocument)}
	if _, err := statestore.Write(ctx, s, "x", big, ""); err == nil || s.Count(memstate.Put) != 0 {
		t.Errorf("too large: %v", err)
	}
	if _, err := s.Put(ctx, "x", []byte("{"), ""); err != nil {
		t.Fatal(err)
	}
	// A damaged document is not taken for an absent one, and its tag lets the caller replace it.
	_, tag, err := statestore.Read[document](ctx, s, "x")
	if err == nil || errors.Is(err, statestore.ErrNotExist) || tag == "" {
		t.Errorf("damaged: %q, %v", tag, err)
	}
	if err := statestore.Update(ctx, s, "x", func(*document) error { return nil }); err == nil {
		t.Error("a damaged document was updated")
	}
}
