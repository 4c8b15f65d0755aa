package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/test/bucket"
)

// TestSmoke runs it against a server on this machine: everything passes there, and nothing is left.
func TestSmoke(t *testing.T) {
	server := bucket.StartS3(t)
	program := filepath.Join(t.TempDir(), "holdfast")
	build := exec.Command("go", "build", "-o", program, "../../hostagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var out bytes.Buffer
	if err := run(t.Context(), options{endpoint: server.Endpoint, holdfast: program}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"GOVERNANCE, one day", "US dollars", "if-none-match", "what was restored is what was backed up", "removed the bucket"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
	wantNone(t, server)
	// Also after a failure nothing is left.
	out.Reset()
	if err := run(t.Context(), options{endpoint: server.Endpoint, holdfast: "/bin/false"}, &out); err == nil || !strings.Contains(out.String(), "removed the bucket") {
		t.Errorf("%v\n%s", err, &out)
	}
	wantNone(t, server)
}

func wantNone(t *testing.T, server *bucket.S3) {
	t.Helper()
	list, err := server.Client.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Buckets) != 0 {
		t.Errorf("%d buckets are left", len(list.Buckets))
	}
}
