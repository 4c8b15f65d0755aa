package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/program"
)

// TestSmoke runs it against a server on this machine: everything passes there, and nothing is left.
func TestSmoke(t *testing.T) {
	server := bucket.StartS3(t)
	holdfast, err := program.Holdfast(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), options{endpoint: server.Endpoint, holdfast: holdfast}, &out); err != nil {
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
