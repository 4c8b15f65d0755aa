package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Network is a store behind a network that meets with trouble when a test wants it.
type Network struct {
	Store  objstore.Store // through the network, without retries
	Direct objstore.Store // the same one, beside the network
	// Before are the kinds of trouble after which nothing has arrived: a refusal, a throttle, a connection that is cut.
	Before []func()
	// Lost lets requests arrive and loses their answers; Cut cuts bodies that are read.
	Lost, Cut func()
}

// RunTrouble checks that a driver tells each kind of trouble, with each operation, as one that may pass.
func RunTrouble(t *testing.T, n Network) {
	t.Helper()
	data := bytes.Repeat([]byte("data"), 1000)
	put(t, n.Direct, "old", data)
	for i, begin := range append(n.Before[:len(n.Before):len(n.Before)], n.Lost) {
		begin()
		key := fmt.Sprintf("new-%d", i)
		errs := map[string]error{
			"put":    n.Store.Put(t.Context(), key, objstore.Bytes(data)),
			"list":   n.Store.List(t.Context(), "", func(objstore.Info) error { return nil }),
			"delete": n.Store.Delete(t.Context(), "none"),
		}
		_, errs["get"] = n.Store.Get(t.Context(), "old", 0, -1)
		_, errs["stat"] = n.Store.Stat(t.Context(), "old")
		for op, err := range errs {
			if !objstore.IsTransient(err) {
				t.Errorf("trouble %d: %s: %v", i, op, err)
			}
		}
		_, err := n.Direct.Stat(t.Context(), key)
		if arrived := err == nil; arrived != (i == len(n.Before)) {
			t.Errorf("trouble %d: the object is there: %v (%v)", i, arrived, err)
		}
	}
	n.Cut()
	r, err := n.Store.Get(t.Context(), "old", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		_ = r.Close()
	}
	if !objstore.IsTransient(err) {
		t.Errorf("a body that was cut: %v", err)
	}
}

// RunWriteOnly checks a store whose credentials may add and list, and not read: what is there already is still
// recognised.
func RunWriteOnly(t *testing.T, s objstore.Store) {
	t.Helper()
	for range 2 {
		put(t, s, "k", []byte("data"))
	}
	for _, other := range []string{"DATA", "longer data"} {
		if err := s.Put(t.Context(), "k", objstore.Bytes([]byte(other))); !errors.Is(err, objstore.ErrExist) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := s.Get(t.Context(), "k", 0, -1); !errors.Is(err, objstore.ErrDenied) || objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}
