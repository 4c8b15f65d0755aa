package snapshot

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTreeRoundTrip(t *testing.T) {
	want := sampleEntries()
	for _, e := range want {
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
	}
	b := encodeTree(want)
	got, err := decodeTree(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if !bytes.Equal(encodeTree(got), b) {
		t.Fatal("what parses does not re-encode to the same bytes")
	}
}

// TestTreeTruncated cuts a tree chunk at every place: none of the halves may pass, except at the ends of records.
func TestTreeTruncated(t *testing.T) {
	b := encodeTree(sampleEntries())
	ends := map[int]bool{0: true}
	for r := (reader{b: b}); len(r.b) > 0; {
		r.str()
		ends[len(b)-len(r.b)] = true
	}
	for n := range b {
		_, err := decodeTree(b[:n])
		if ends[n] != (err == nil) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Fatalf("cut at %d: %v is no ErrFormat", n, err)
		}
	}
}
