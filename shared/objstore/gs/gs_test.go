package gs_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
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

// served is a store whose server is asked beside it.
type served struct {
	*gs.Store
	server       *bucket.GS
	name, prefix string // of the bucket, and of the keys in it
}

func (s served) Fill(t *testing.T, keys []string) {
	t.Helper()
	var group sync.WaitGroup
	for part := range slices.Chunk(keys, len(keys)/8+1) {
		group.Go(func() {
			for _, key := range part {
				at := s.server.Endpoint + "/upload/storage/v1/b/" + s.name + "/o?uploadType=media&name=" + url.QueryEscape(s.prefix+key)
				r, err := http.Post(at, "application/octet-stream", strings.NewReader(key))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, r.Body)
				if err = errors.Join(err, r.Body.Close()); err != nil || r.StatusCode != http.StatusOK {
					t.Errorf("put %s: %s, %v", key, r.Status, err)
				}
			}
		})
	}
	group.Wait()
}

func TestConformance(t *testing.T) {
	server, n := bucket.StartGS(t), 0
	storetest.Run(t, func(t *testing.T) objstore.Store {
		n++
		b := fmt.Sprintf("bucket-%d", n)
		server.Make(t, b)
		const prefix = "below/a prefix/"
		return served{open(t, gs.Options{Bucket: b, Prefix: prefix, Endpoint: server.Endpoint}), server, b, prefix}
	})
}
