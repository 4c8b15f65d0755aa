// Package scene sets up what the binary of a function needs: an S3 server with the repository and the state bucket, the
// stand-ins for parameters and queues, and a policy. Use [Start], then [Scene.Signer] and [Scene.Function].
package scene

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/s3state"
	"github.com/btcdecoded/holdfast/test/bucket"
)

const (
	stateBucket     = "state"
	trustParameter  = "/holdfast/trust"
	signerParameter = "/holdfast/signer/"
)

// Scene is the cloud around one repository.
type Scene struct {
	*repotest.Fixture // backups go into memory first: see Push
	Server            *bucket.S3
	Bucket            string
	Remote            objstore.Store // the repository as the functions see it
	State             statestore.Store

	aws    *invoketest.AWS
	env    map[string]string
	pushed map[string]bool
}

// Start makes a bucket for the repository and one for the state, with a policy that has the fixture's source with these
// retention rules.
func Start(t testing.TB, o bucket.Options, retention string) *Scene {
	t.Helper()
	s := &Scene{Fixture: repotest.New(t), Server: bucket.StartS3(t), Bucket: "backup", aws: invoketest.StartAWS(t), pushed: map[string]bool{}}
	s.Server.Make(t, stateBucket, bucket.Options{})
	s.Server.Make(t, s.Bucket, o)
	options := s.Server.Client.Options()
	s.State = s3state.New(aws.Config{Region: options.Region, Credentials: options.Credentials}, s3state.Options{Bucket: stateBucket, Endpoint: s.Server.Endpoint})
	s.env = map[string]string{
		"HOLDFAST_STATE_BUCKET": stateBucket, "HOLDFAST_TRUST_PARAMETER": trustParameter, "AWS_ENDPOINT_URL_S3": s.Server.Endpoint,
	}
	maps.Copy(s.env, s.aws.Env())
	for _, e := range s.Server.Env() {
		name, value, _ := strings.Cut(e, "=")
		s.env[name] = value
	}
	var err error
	if s.Remote, err = open.Open(context.Background(), s.URL(), open.Options{}); err != nil {
		t.Fatal(err)
	}
	signer, _ := s.Identity.Signer()
	s.aws.Parameter(trustParameter, "trust "+signer.Public().String()+" *\n")
	policy := fmt.Sprintf("version: 1\nrepository: {primary: %q}\nhosts: {%s: {sources: {%s: {files: {roots: [%s]}, retention: %s}}}}\n",
		s.URL(), s.Source.Host, s.Source.Name, repotest.Root, retention)
	if _, err := s.State.Put(context.Background(), control.PolicyKey, []byte(policy), ""); err != nil {
		t.Fatal(err)
	}
	return s
}

// URL is the address of the repository.
func (s *Scene) URL() string { return s.Server.URL(s.Bucket, "") }

// Push puts what is new in memory into the bucket.
func (s *Scene) Push(t testing.TB) {
	t.Helper()
	for _, key := range s.Store.Keys() {
		data, _ := s.Store.Object(key)
		if s.pushed[key] {
			continue
		}
		if err := s.Remote.Put(context.Background(), key, objstore.Bytes(data)); err != nil {
			t.Fatal(err)
		}
		s.pushed[key] = true
	}
}

// Signer makes the signer of a function, limited to parts of sources.
func (s *Scene) Signer(t testing.TB, verb string, only ...string) {
	t.Helper()
	s.aws.Parameter(signerParameter+verb, s.GrantText(t, "*", only...))
}

// Function builds and starts a function's binary.
func (s *Scene) Function(t testing.TB, dir, verb string, env map[string]string) *invoketest.Runtime {
	t.Helper()
	all := maps.Clone(s.env)
	all["HOLDFAST_SIGNER_PARAMETER"] = signerParameter + verb
	maps.Copy(all, env)
	r := invoketest.Start(t, invoketest.Build(t, dir), all)
	r.Deadline = 2 * time.Minute // as functions that work on all sources have it, and more
	return r
}

// Age makes everything that is in the bucket below a prefix older, as if it had arrived earlier by the server's clock.
func (s *Scene) Age(t testing.TB, prefix string, by time.Duration) {
	t.Helper()
	s.Server.Age(t, s.Bucket, prefix, by)
}

// Keys are the keys in the bucket that contain part.
func (s *Scene) Keys(t testing.TB, part string) []string {
	t.Helper()
	var out []string
	err := s.Remote.List(context.Background(), "", func(o objstore.Info) error {
		if strings.Contains(o.Key, part) {
			out = append(out, o.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
