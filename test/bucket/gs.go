package bucket

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
)

// GS is a Google Cloud Storage server.
type GS struct {
	Endpoint string // http://127.0.0.1:port
}

// StartGS starts fake-gcs-server, which keeps its objects in memory.
func StartGS(t testing.TB) *GS {
	t.Helper()
	program := tool(t, "fake-gcs-server", "github.com/fsouza/fake-gcs-server")
	address := start(t, "fake-gcs-server", func(address string) *exec.Cmd {
		host, port, _ := strings.Cut(address, ":")
		return exec.Command(program, "-backend", "memory", "-scheme", "http", "-host", host, "-port", port,
			"-external-url", "http://"+address, "-public-host", address, "-log-level", "warn")
	})
	return &GS{Endpoint: "http://" + address}
}

// Make makes a bucket.
func (s *GS) Make(t testing.TB, bucket string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"name": bucket})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(s.Endpoint+"/storage/v1/b?project=test", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatalf("make bucket %s: %v", bucket, err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("make bucket %s: %s", bucket, r.Status)
	}
}

// URL returns the address of a repository in the bucket.
func (s *GS) URL(bucket, prefix string) string { return GSURL(s.Endpoint, bucket, prefix) }

// GSURL is URL for another endpoint, such as that of a [Proxy].
func GSURL(endpoint, bucket, prefix string) string {
	u := url.URL{Scheme: "gs", Host: bucket, Path: prefix, RawQuery: url.Values{"endpoint": {endpoint}}.Encode()}
	return u.String()
}
