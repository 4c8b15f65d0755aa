package gs_test

import (
	"fmt"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

func open(t *testing.T, o gs.Options) *gs.Store {
	t.Helper()
	s, err := gs.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	server, n := bucket.StartGS(t), 0
	storetest.Run(t, func(t *testing.T) objstore.Store {
		n++
		b := fmt.Sprintf("bucket-%d", n)
		server.Make(t, b)
		return open(t, gs.Options{Bucket: b, Prefix: "below/a prefix/", Endpoint: server.Endpoint})
	})
}
