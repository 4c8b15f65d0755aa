package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	aws3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/storetest"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// overwrite puts a version over an object.
func overwrite(t *testing.T, server *bucket.S3, name, key string, data []byte) {
	t.Helper()
	_, err := server.Client.PutObject(t.Context(), &aws3.PutObjectInput{Bucket: &name, Key: &key, Body: bytes.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
}

func TestVersions(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "versions", bucket.Options{Versioned: true})
	storetest.RunVersions(t, open(t, server.Endpoint, "versions", "a prefix"), func(key, data string) {
		overwrite(t, server, "versions", "a prefix/"+key, []byte(data))
	})
}

func TestNoVersions(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "plain", bucket.Options{})
	s := open(t, server.Endpoint, "plain", "")
	overwrite(t, server, "plain", "a", []byte("a"))
	err := s.ListVersions(t.Context(), "", func(objstore.Version) error { return nil })
	for _, err := range []error{err, s.Hide(t.Context(), "a"), s.PutVersion(t.Context(), "a", objstore.Bytes(nil))} {
		if !errors.Is(err, objstore.ErrNoVersions) {
			t.Errorf("%v", err)
		}
	}
	if _, err := s.Stat(t.Context(), "a"); err != nil {
		t.Errorf("hiding deleted it: %v", err)
	}
}

// TestManyVersions has more than one page, cut within the versions of a key.
func TestManyVersions(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "many", bucket.Options{Versioned: true})
	const objects, over = 7, 160
	for i := range objects {
		for n := range over {
			overwrite(t, server, "many", fmt.Sprintf("k%d", i), []byte{byte(n)})
		}
	}
	s := open(t, server.Endpoint, "many", "")
	count, last := map[string]int{}, ""
	err := s.ListVersions(t.Context(), "k", func(v objstore.Version) error {
		if v.Key < last || v.Current != (count[v.Key] == 0) {
			t.Errorf("%+v after %s", v, last)
		}
		last = v.Key
		count[v.Key]++
		return nil
	})
	if err != nil || len(count) != objects {
		t.Errorf("%v, %v", err, count)
	}
	for key, n := range count {
		if n != over {
			t.Errorf("%s: %d versions", key, n)
		}
	}
}

// TestLockedVersion can be hidden and stored over, but not deleted.
func TestLockedVersion(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "locked", bucket.Options{Lock: types.ObjectLockRetentionModeCompliance})
	s := open(t, server.Endpoint, "locked", "")
	overwrite(t, server, "locked", "a", []byte("garbage"))
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, objstore.ErrLocked) {
		t.Errorf("delete: %v", err)
	}
	head, err := server.Client.HeadObject(t.Context(), &aws3.HeadObjectInput{Bucket: aws.String("locked"), Key: aws.String("a")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVersion(t.Context(), "a", *head.VersionId); !errors.Is(err, objstore.ErrLocked) {
		t.Errorf("delete version: %v", err)
	}
	if err := s.Hide(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutVersion(t.Context(), "a", objstore.Bytes([]byte("good"))); err != nil {
		t.Fatal(err)
	}
	if b, err := objstore.ReadAll(t.Context(), s, "a", 10); string(b) != "good" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
