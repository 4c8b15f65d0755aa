package gs_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// A server that takes a connection and then says and takes nothing any more is given up, and the error is one that a
// retry may cure.
func TestSilenceIsTransient(t *testing.T) {
	server := bucket.StartGS(t)
	server.Make(t, "bucket")
	if err := open(t, gs.Options{Bucket: "bucket", Endpoint: server.Endpoint}).Put(t.Context(), "old", objstore.Bytes(make([]byte, 12<<20))); err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{0, 1 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			proxy := bucket.StartLines(t, server.Endpoint, func() bucket.Line { return bucket.Line{After: after, Then: bucket.Silent} })
			s := open(t, gs.Options{Bucket: "bucket", Endpoint: proxy.Endpoint, Silence: 400 * time.Millisecond})
			if err := s.Put(t.Context(), "new", objstore.Bytes(make([]byte, 16<<20))); !objstore.IsTransient(err) {
				t.Errorf("put: %v", err)
			}
			r, err := s.Get(t.Context(), "old", 0, -1)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				_ = r.Close()
			}
			if !objstore.IsTransient(err) {
				t.Errorf("get: %v", err)
			}
		})
	}
}
