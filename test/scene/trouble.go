package scene

import (
	"net/http"
	"testing"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// Between puts a proxy before the buckets for the functions that are started from now on. decide is asked for each of
// their requests, by several goroutines.
func (s *Scene) Between(t testing.TB, decide func(*http.Request) bucket.Trouble) {
	t.Helper()
	proxy := bucket.StartProxy(t, s.Server.Endpoint, decide)
	s.env["AWS_ENDPOINT_URL_S3"] = proxy.Endpoint
	s.env["HOLDFAST_REPOSITORY"] = bucket.S3URL(proxy.Endpoint, s.Bucket, "")
}

// Policy puts another policy into the state.
func (s *Scene) Policy(t testing.TB, text string) {
	t.Helper()
	_, tag, err := s.State.Get(t.Context(), control.PolicyKey)
	if err == nil {
		_, err = s.State.Put(t.Context(), control.PolicyKey, []byte(text), tag)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Queue makes a queue of SQS and returns its URL.
func (s *Scene) Queue(name string) string { return s.aws.Queue(name) }

// Sent returns the messages of a queue and empties it.
func (s *Scene) Sent(name string) []string { return s.aws.Take(name) }

// Document reads a document of the state; the test ends where it is not there.
func Document[T any](t testing.TB, s *Scene, key string) *T {
	t.Helper()
	doc, _, err := statestore.Read[T](t.Context(), s.State, key)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
