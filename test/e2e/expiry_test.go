package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/infra/settings"
	bucketserver "github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/cloud"
)

// removals is what the function lifecycle answers about one source.
type removals struct {
	Removed int
	Reports []struct {
		Error string
		Prune *struct {
			Condemned []struct{ Snapshot struct{ Sequence int } }
		}
	}
}

func (w *world) removals(body []byte) removals {
	w.t.Helper()
	var out removals
	if err := json.Unmarshal(body, &out); err != nil || len(out.Reports) != 1 || out.Reports[0].Prune == nil {
		w.t.Fatalf("lifecycle: %v: %s", err, body)
	}
	return out
}

// expired lets retention end a snapshot of three, of which the first is pinned. It is announced by the deployed function
// in the emulator. The days until it goes do not pass there, so that the objects and the state, as they are, are put on a
// server whose clock can be moved, and the same binary is called again.
func expired(w *world) {
	first := w.objects(bucket, "v1/"+old+"/packs/")
	goes := w.more(2)
	newest := w.more(3)
	w.run("host", "verify", "--level", "content", old)
	w.run("admin", "pin", old+"@1", "--why", "e2e")
	order := map[string]any{"version": 1, "sources": []string{old}}
	answer, err := json.Marshal(w.invoke(settings.Lifecycle, order))
	w.must(err)
	if c := w.removals(answer).Reports[0].Prune.Condemned; len(c) != 1 || c[0].Snapshot.Sequence != 2 {
		w.t.Fatalf("announced: %s", answer)
	}
	if got := w.objects(bucket, "v1/"+old+"/packs/"); len(got) != len(first)+len(goes)+len(newest) {
		w.t.Fatalf("removed at once: %q", got)
	}

	server := bucketserver.StartS3(w.t)
	server.Make(w.t, bucket, bucketserver.Options{Versioned: true})
	server.Make(w.t, state, bucketserver.Options{})
	w.carry(server, bucket)
	w.carry(server, state)
	server.Age(w.t, bucket, "v1/", 60*24*time.Hour)
	f := w.lifecycle(server)
	f.Deadline = patience
	result := f.Invoke(order)
	if result.Err != nil || result.Failure != nil {
		w.t.Fatalf("%v %+v", result.Err, result.Failure)
	}
	if got := w.removals(result.Body); got.Removed != 1 || got.Reports[0].Error != "" {
		w.t.Errorf("removed: %s", result.Body)
	}
	var left []string
	pages := s3.NewListObjectsV2Paginator(server.Client, &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("v1/" + old + "/packs/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.t.Context())
		w.must(err)
		for _, o := range page.Contents {
			left = append(left, *o.Key)
		}
	}
	want := slices.Sorted(slices.Values(slices.Concat(first, newest)))
	if slices.Sort(left); !slices.Equal(left, want) {
		w.t.Errorf("packs that are left: %q, want %q", left, want)
	}
	for number, there := range map[int]bool{1: true, 2: false, 3: true} {
		w.restores(server, number, there)
	}
}

// carry puts the objects of one of the emulator's buckets onto a server.
func (w *world) carry(server *bucketserver.S3, name string) {
	w.t.Helper()
	for _, key := range w.objects(name, "") {
		body := w.object(name, key)
		if key == "config/policy.yaml" {
			text := strings.Replace(string(body), "s3://"+bucket+"?region="+region+"&path_style=true", server.URL(bucket, ""), 1)
			body = []byte(text)
		}
		_, err := server.Client.PutObject(w.t.Context(), &s3.PutObjectInput{Bucket: &name, Key: &key, Body: bytes.NewReader(body)})
		w.must(err)
	}
}

// lifecycle starts the binary that is deployed, for the objects on a server.
func (w *world) lifecycle(server *bucketserver.S3) *invoketest.Runtime {
	w.t.Helper()
	parameters := invoketest.StartAWS(w.t)
	parameters.Parameter(settings.TrustParameter, w.trust)
	parameters.Parameter(settings.SignerParameter+settings.Lifecycle, w.secretLine(settings.Lifecycle))
	env, err := environment.Map(environment.Lifecycle{Cloud: environment.Cloud{
		State: state, Trust: settings.TrustParameter, Signer: settings.SignerParameter + settings.Lifecycle,
	}})
	w.must(err)
	maps.Copy(env, parameters.Env())
	env["AWS_ENDPOINT_URL_S3"] = server.Endpoint
	for _, e := range server.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return invoketest.Start(w.t, filepath.Join(w.Functions, settings.Lifecycle, "bootstrap"), env)
}

// restores restores a snapshot of the source old from a server; one that is gone can't be.
func (w *world) restores(server *bucketserver.S3, number int, there bool) {
	w.t.Helper()
	to := w.path(fmt.Sprintf("old-%d", number))
	env := slices.Concat(w.as("host"), server.Env(), []string{"AWS_ENDPOINT_URL=", "HOLDFAST_STATE=" + w.path("state-elsewhere")})
	args := []string{"restore", "-r", server.URL(bucket, ""), fmt.Sprintf("%s@%d", old, number), "--to", to}
	if !there {
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		defer cancel()
		if out, err := cloud.Command(ctx, w.dir, env, w.holdfast, args...).CombinedOutput(); err == nil {
			w.t.Errorf("snapshot %d is still there: %s", number, out)
		}
		return
	}
	cloud.Run(w.t, w.dir, env, w.holdfast, args...)
	found := ""
	w.must(filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "file" {
			text, rerr := os.ReadFile(path) //nolint:gosec // the test's own
			found, err = string(text), rerr
		}
		return err
	}))
	if found != content(number) {
		w.t.Errorf("snapshot %d came back with %.40q", number, found)
	}
}
