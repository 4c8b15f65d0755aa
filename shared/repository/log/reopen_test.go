package log_test

import (
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestReopen goes on with an epoch as another process does, and not where somebody else has gone on, or others may read.
func TestReopen(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	end := write(t, f, w, 1, 5)
	opened := w.Opened()
	reopen := func(after *log.Place) (*log.Writer, error) {
		o := options(f)
		o.Continues = after
		next, err := log.Reopen(t.Context(), f.Repo, f.Source, o, opened)
		if err == nil {
			t.Cleanup(func() { _ = next.Close() })
		}
		return next, err
	}
	for range 2 {
		next, err := reopen(&end)
		if err != nil {
			t.Fatal(err)
		}
		if next.Epoch() != w.Epoch() || next.Place() != end {
			t.Fatalf("epoch %d, %v", next.Epoch(), next.Place())
		}
		n := uint32(end.Sequence)
		end = write(t, f, next, n+1, n+5)
	}
	check(t, f, log.Range{From: start(w.Stream()), Through: end}, numbers(1, 15))
	if all := streams(t, f.Repo, f.Source); len(all) != 1 || len(all[0].Epochs) != 1 {
		t.Errorf("%d streams, of which the first has %d epochs", len(all), len(all[0].Epochs))
	}
	for _, place := range []*log.Place{nil, {Stream: w.Stream()}, {Stream: w.Stream(), Epoch: 2, Sequence: 15, Record: end.Record}} {
		if _, err := reopen(place); err == nil {
			t.Errorf("it goes on after %v", place)
		}
	}
	opened.For = append(opened.For, "age1another")
	if _, err := reopen(&end); !errors.Is(err, log.ErrRecipients) {
		t.Errorf("for others: %v", err)
	}
	opened = w.Opened()
	o := options(f)
	o.Stream, o.After, o.Continues = w.Stream(), 1, &end
	create(t, f, o)
	if _, err := reopen(&end); !errors.Is(err, log.ErrSuperseded) {
		t.Errorf("after somebody else has gone on: %v", err)
	}
}
