package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// spool writes objects before their key is known.
func spool(t *testing.T, s objstore.Store) {
	begin := func(t *testing.T, parts ...string) objstore.Spool {
		t.Helper()
		sp, err := objstore.NewSpool(t.Context(), s, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if n, err := sp.Write([]byte(p)); n != len(p) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		return sp
	}
	sp := begin(t, "one ", "", "two")
	if sum, size := sp.Sum(); sum != sha256.Sum256([]byte("one two")) || size != 7 {
		t.Errorf("sum %x of %d bytes", sum, size)
	}
	if _, err := s.Stat(t.Context(), "spool/a"); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("before it is committed: %v", err)
	}
	if err := sp.Commit(t.Context(), "spool/a"); err != nil {
		t.Fatal(err)
	}
	got, err := objstore.ReadAll(t.Context(), s, "spool/a", 100)
	if err != nil || !bytes.Equal(got, []byte("one two")) {
		t.Errorf("read %q, %v", got, err)
	}
	if err := sp.Discard(); err != nil {
		t.Errorf("discard after commit: %v", err)
	}
	if err := begin(t, "one two").Commit(t.Context(), "spool/a"); err != nil {
		t.Errorf("the same bytes again: %v", err)
	}
	other := begin(t, "other")
	if err := other.Commit(t.Context(), "spool/a"); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("other bytes: %v", err)
	}
	if err := other.Discard(); err != nil {
		t.Error(err)
	}
	if err := begin(t, "gone").Discard(); err != nil {
		t.Error(err)
	}
}
