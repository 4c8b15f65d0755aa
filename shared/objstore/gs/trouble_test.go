package gs_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/bucket/network"
)

func TestNetwork(t *testing.T) {
	server := bucket.StartGS(t)
	network.Run(t, network.Driver{
		Endpoint: server.Endpoint,
		Make:     func(t *testing.T, name string) { server.Make(t, name) },
		Open: func(t *testing.T, endpoint, name string, silence time.Duration) network.Store {
			return served{open(t, gs.Options{Bucket: name, Endpoint: endpoint, Silence: silence}), server, name, ""}
		},
		Puts:  func(r *http.Request) bool { return r.Method == http.MethodPost },
		Reads: func(r *http.Request) bool { return r.Method != http.MethodPost && !strings.HasSuffix(r.URL.Path, "/o") },
	})
}

func TestEmulatorFromEnvironment(t *testing.T) {
	server := bucket.StartGS(t)
	server.Make(t, "bucket")
	t.Setenv("STORAGE_EMULATOR_HOST", server.Endpoint)
	s := open(t, gs.Options{Bucket: "bucket"})
	if err := s.Put(t.Context(), "k", objstore.Bytes([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
}
