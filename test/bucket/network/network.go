// Package network is the suite for drivers of stores that are reached over a network: what the network does to them must be
// told as the store's contract says. The contract itself is checked by storetest, here through a network with trouble.
package network

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// Driver is a driver and a server for it.
type Driver struct {
	Endpoint string // of the server
	// Make makes a bucket.
	Make func(t *testing.T, name string)
	// Open opens a bucket over an endpoint. Silence bounds how long nothing may move; 0: the driver's default.
	Open func(t *testing.T, endpoint, name string, silence time.Duration) Store
	// Puts reports whether a request stores an object, Reads whether it needs the right to read one.
	Puts, Reads func(*http.Request) bool
}

// Store is a driver's store, with a way to its server that is faster than its own.
type Store interface {
	objstore.Store
	storetest.Filler
}

// Run runs the suite. The driver's tests need no more than this but for what is peculiar to its store.
func Run(t *testing.T, d Driver) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Driver)
	}{
		{"conformance", conformance},
		{"transient", transient},
		{"lost answer", lostAnswer},
		{"write only", writeOnly},
		{"nobody listens", nobodyListens},
		{"range ignored", rangeIgnored},
		{"silence", silence},
		{"slow", slow},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, d) })
	}
}

// bucket makes one and returns its name.
func (d Driver) bucket(t *testing.T, name string) string {
	t.Helper()
	d.Make(t, name)
	return name
}

// through opens a bucket over a proxy that makes trouble as decide says.
func (d Driver) through(t *testing.T, name string, decide func(*http.Request) bucket.Trouble) objstore.Store {
	t.Helper()
	return d.Open(t, bucket.StartProxy(t, d.Endpoint, decide).Endpoint, name, 0)
}

// direct opens a bucket beside the network.
func (d Driver) direct(t *testing.T, name string) Store {
	t.Helper()
	return d.Open(t, d.Endpoint, name, 0)
}

// only makes one trouble with the requests of which which is true.
func only(which func(*http.Request) bool, trouble bucket.Trouble) func(*http.Request) bucket.Trouble {
	return func(r *http.Request) bucket.Trouble {
		if which(r) {
			return trouble
		}
		return bucket.Pass
	}
}

// troubled is a store over a network with trouble, to whose server many objects are given beside it.
type troubled struct {
	*retry.Store
	storetest.Filler
}

// conformance is the whole contract through a network on which half of the requests meet with some trouble.
func conformance(t *testing.T, d Driver) {
	n := 0
	proxy := bucket.StartProxy(t, d.Endpoint, bucket.Unreliable(1, 2))
	storetest.Run(t, func(t *testing.T) objstore.Store {
		n++
		name := d.bucket(t, fmt.Sprintf("conformance-%d", n))
		s := retry.New(d.Open(t, proxy.Endpoint, name, 0), retry.Options{First: time.Millisecond, Longest: 5 * time.Millisecond})
		return troubled{s, d.direct(t, name)}
	})
}
