package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/btcdecoded/holdfast/hostagent/source/paged/pagedtest"
	"github.com/btcdecoded/holdfast/hostagent/source/stream"
	"github.com/btcdecoded/holdfast/shared/chunker"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// entry is an entry with the content, which checks it.
func entry(t *testing.T, s *stream.Stored) {
	t.Helper()
	e := &snapshot.Entry{Path: "/x", Type: snapshot.File, Size: s.Size, Extents: s.Extents, Maps: s.Maps}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	s := pagedtest.New()
	for i, n := range []int{0, 1, 64, 300 << 10, snapshot.MapSpan, snapshot.MapSpan + 1} {
		want := noise(byte(i), n)
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(want), "in parts": iotest.HalfReader(bytes.NewReader(want)), "with the end": iotest.DataErrReader(bytes.NewReader(want))} {
			if n >= snapshot.MapSpan && (name == "whole") != (n == snapshot.MapSpan) {
				continue // with the race detector each takes its time
			}
			told := 0
			got, err := stream.Store(t.Context(), s, r, chunker.Default(), 0, func(n int) { told += n })
			if err != nil {
				t.Fatal(err)
			}
			entry(t, got)
			content, err := s.Content(got.Extents, got.Maps)
			if err != nil || !bytes.Equal(content, want) || got.Size != uint64(n) || told != n {
				t.Errorf("%d bytes %s: %d stored, %d told, %v", n, name, len(content), told, err)
			}
		}
	}
}

// TestSpan: what is expected decides how much a map covers.
func TestSpan(t *testing.T) {
	s := pagedtest.New()
	want := noise(9, 17<<20)
	got, err := stream.Store(t.Context(), s, bytes.NewReader(want), chunker.Default(), 1<<40, nil)
	if err != nil {
		t.Fatal(err)
	}
	entry(t, got)
	if content, err := s.Content(got.Extents, got.Maps); err != nil || !bytes.Equal(content, want) || len(got.Maps) != 2 {
		t.Errorf("%d maps, %v", len(got.Maps), err)
	}
}

// TestRepeats: what was put before the content costs little.
func TestRepeats(t *testing.T) {
	first := pagedtest.New()
	content := noise(3, 10<<20)
	if _, err := stream.Store(t.Context(), first, bytes.NewReader(content), chunker.Default(), 0, nil); err != nil {
		t.Fatal(err)
	}
	second := first.Child(first.Captured())
	if _, err := stream.Store(t.Context(), second, io.MultiReader(bytes.NewReader(noise(4, 1000)), bytes.NewReader(content)), chunker.Default(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if added := second.Added(); added > 3<<20 {
		t.Errorf("%d bytes were stored again", added)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	inner := pagedtest.New()
	s := inner
	_, err := stream.Store(t.Context(), s, io.MultiReader(bytes.NewReader(noise(1, 5<<20)), iotest.ErrReader(broken)), chunker.Default(), 0, nil)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	var calls atomic.Int32
	inner.Stored = func(snapshot.Kind, []byte) error {
		if calls.Add(1) > 3 {
			return broken
		}
		return nil
	}
	if _, err = stream.Store(t.Context(), s, bytes.NewReader(noise(2, 12<<20)), chunker.Default(), 0, nil); !errors.Is(err, broken) {
		t.Error(err)
	}
	inner.Stored = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = stream.Store(ctx, s, bytes.NewReader(noise(3, 1<<20)), chunker.Default(), 0, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
