package repository

import (
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestRecipientsOfToday: what a follower seals opens for a recipient who was added after it had opened the repository.
func TestRecipientsOfToday(t *testing.T) {
	id, offline := newTestIdentity(t), newTestIdentity(t)
	store := mem.New()
	if _, err := Init(t.Context(), store, id, id.Recipients(), time.Now()); err != nil {
		t.Fatal(err)
	}
	opened := func() *Repository {
		r, err := Open(t.Context(), store, id)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	follower := opened()
	later := offline.Recipients()[0]
	err := opened().ChangeAccess(t.Context(), func(next *Access) error {
		next.Recipients = append(next.Recipients, AccessRecipient{Type: later.Type, Recipient: later.Recipient})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	about := seal.Context{Repository: follower.ID(), Source: snapshot.Source{Host: "h", Name: "s"}}
	wrapped := func(want int) {
		t.Helper()
		got, warnings, err := follower.WrapKey(t.Context(), seal.NewDataKey(), about, nil)
		if err != nil || len(got) != want || len(warnings) > 0 {
			t.Errorf("%d entries instead of %d, %v, %v", len(got), want, warnings, err)
		}
	}
	follower.accessRead = time.Now()
	wrapped(1) // what was read a moment ago is not asked for again
	follower.accessRead = time.Now().Add(-2 * accessAge)
	wrapped(2)

	// What shows less than was known, or can't be read, brings nobody back and is no reason not to write.
	follower = opened()
	follower.accessRead = time.Now().Add(-2 * accessAge)
	for _, o := range []string{layout.AccessKey(2), layout.AccessKey(1)} {
		if err := store.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		got, warnings, err := follower.WrapKey(t.Context(), seal.NewDataKey(), about, nil)
		if err != nil || len(got) != 2 || len(warnings) != 1 || !errors.Is(warnings[0], ErrAccess) {
			t.Errorf("%d entries, %v, %v", len(got), warnings, err)
		}
	}
}

func newTestIdentity(t *testing.T) *keyring.Identity {
	t.Helper()
	id, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
