package network

import (
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// silence has a server that takes a connection and then says and takes nothing any more, at once, in the middle of a request
// or in the middle of an answer: it is given up, and the error is one that a retry may cure.
func silence(t *testing.T, d Driver) {
	name := d.bucket(t, "silence")
	put(t, d.direct(t, name), "old", make([]byte, 12<<20))
	const bound = 400 * time.Millisecond
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
			// A put looks afterwards whether the object has arrived.
			if took := time.Since(began); took > 3*bound+20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// slow is not silent: what moves, however slowly, arrives.
func slow(t *testing.T, d Driver) {
	name := d.bucket(t, "slow")
	put(t, d.direct(t, name), "k", make([]byte, 1500<<10))
	const bound = 2 * time.Second
	proxy := bucket.StartLines(t, d.Endpoint, func() bucket.Line { return bucket.Line{Delay: 40 * time.Millisecond} })
	began := time.Now()
	if err := drain(t, d.Open(t, proxy.Endpoint, name, bound), "k"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < bound {
		t.Errorf("it took only %s", took)
	}
}
