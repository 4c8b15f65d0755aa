package network

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/stall"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// silence has a server that takes a connection and then says and takes nothing any more, at once, in the middle of a request
// or in the middle of an answer: it is given up, and the error is one that a retry may cure.
func silence(t *testing.T, d Driver) {
	name := d.bucket(t, "silence")
	put(t, d.direct(t, name), "old", make([]byte, 12<<20))
	const bound = 100 * time.Millisecond
	for _, after := range []int64{0, 300, 1 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			proxy := bucket.StartLines(t, d.Endpoint, func() bucket.Line { return bucket.Line{After: after, Then: bucket.Silent} })
			s := d.Open(t, proxy.Endpoint, name, bound)
			began := time.Now()
			if err := s.Put(t.Context(), "new", objstore.Bytes(make([]byte, 16<<20))); !objstore.IsTransient(err) {
				t.Errorf("put: %v", err)
			}
			if err := drain(t, s, "old"); !objstore.IsTransient(err) {
				t.Errorf("get: %v", err)
			}
			// By the bound, that is, and not by the one that holds where none is given.
			if took := time.Since(began); took > stall.Silence*2/3 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// slow is not silent: what moves, however slowly, arrives.
func slow(t *testing.T, d Driver) {
	name := d.bucket(t, "slow")
	const pieces, bound = 64, time.Second
	put(t, d.direct(t, name), "k", make([]byte, pieces<<14))
	proxy := bucket.StartLines(t, d.Endpoint, func() bucket.Line { return bucket.Line{Delay: 25 * time.Millisecond} })
	s := d.Open(t, proxy.Endpoint, name, bound)
	for try := 1; ; try++ {
		began := time.Now()
		err := drain(t, s, "k")
		// On a machine that is busy with something else nothing may really have moved for so long: that proves nothing.
		if errors.As(err, new(*stall.Error)) && try < 20 {
			t.Log(err)
			continue
		}
		if took := time.Since(began); err != nil || took < bound {
			t.Errorf("after %s: %v", took, err)
		}
		return
	}
}
