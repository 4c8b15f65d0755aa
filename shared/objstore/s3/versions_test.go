package s3_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// Delete leaves neither older versions nor markers behind, and touches no neighbour.
func TestDeleteRemovesVersions(t *testing.T) {
	server, ctx, name := bucket.StartS3(t), t.Context(), aws.String("versioned")
	server.Make(t, *name, bucket.Options{Versioned: true})
	s := open(t, server.Endpoint, *name, "")
	put := func(key, data string) {
		t.Helper()
		if err := s.Put(ctx, key, objstore.Bytes([]byte(data))); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		t.Helper()
		out, err := server.Client.ListObjectVersions(ctx, &awss3.ListObjectVersionsInput{Bucket: name})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.Versions) + len(out.DeleteMarkers)
	}
	for _, k := range []string{"v1/x", "v1/x-", "v1/x0", "v1/w"} {
		put(k, "first "+k)
	}
	// Others overwrite and delete in their own way.
	raw := func(data string) {
		t.Helper()
		_, err := server.Client.PutObject(ctx, &awss3.PutObjectInput{
			Bucket: name, Key: aws.String("v1/x"), Body: strings.NewReader(data),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	raw("overwritten")
	if _, err := server.Client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: name, Key: aws.String("v1/x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(ctx, "v1/x"); !errors.Is(err, objstore.ErrNotExist) {
		t.Fatalf("behind a marker: %v", err)
	}
	raw("put again")
	if n := count(); n != 7 {
		t.Fatalf("%d versions and markers", n)
	}
	if err := s.Delete(ctx, "v1/x"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3 {
		t.Errorf("%d versions and markers are left", n)
	}
	if _, err := server.Client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: name, Key: aws.String("v1/w")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "v1/w"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 2 {
		t.Errorf("%d versions and markers are left", n)
	}
}

// What others keep in the bucket under names that are none of ours is not listed.
func TestStrangersAreNotListed(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	for _, k := range []string{"repo/v1/a b", "repo/.hidden", "repo/tmp/x", "repository", "repo/odd name/x"} {
		_, err := server.Client.PutObject(t.Context(), &awss3.PutObjectInput{
			Bucket: aws.String("bucket"), Key: &k, Body: strings.NewReader("x"),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, server.Endpoint, "bucket", "repo")
	if err := s.Put(t.Context(), "v1/x", objstore.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := s.List(t.Context(), "", func(i objstore.Info) error { got = append(got, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Prefixes(t.Context(), "", func(n string) error { got = append(got, n); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != "v1/x" || got[1] != "v1" {
		t.Errorf("got %q", got)
	}
}

func TestWrongCredentialsAndBuckets(t *testing.T) {
	server := bucket.StartS3(t)
	s := open(t, server.Endpoint, "nowhere", "")
	for op, err := range map[string]error{
		"put":  s.Put(t.Context(), "k", objstore.Bytes(nil)),
		"list": s.List(t.Context(), "", func(objstore.Info) error { return nil }),
	} {
		if err == nil || errors.Is(err, objstore.ErrNotExist) || objstore.IsTransient(err) {
			t.Errorf("%s in a bucket that is not there: %v", op, err)
		}
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s = open(t, server.Endpoint, "nowhere", "")
	if err := s.Put(t.Context(), "k", objstore.Bytes(nil)); !errors.Is(err, objstore.ErrDenied) || objstore.IsTransient(err) {
		t.Errorf("wrong credentials: %v", err)
	}
	if _, err := s3.Open(t.Context(), s3.Options{}); err == nil {
		t.Error("no bucket was accepted")
	}
	t.Setenv("AWS_REGION", "")
	if _, err := s3.Open(t.Context(), s3.Options{Bucket: "b"}); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("no region: %v", err)
	}
	if _, err := s3.Open(t.Context(), s3.Options{Bucket: "b", Region: "eu-west-1", Profile: "none"}); err == nil {
		t.Error("an unknown profile was accepted")
	}
}
