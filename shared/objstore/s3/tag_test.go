package s3_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	aws3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// TestTag tags an object that is locked.
func TestTag(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "tags", bucket.Options{Lock: types.ObjectLockRetentionModeCompliance})
	s := open(t, server.Endpoint, "tags", "p")
	if err := s.Put(t.Context(), "a", objstore.Bytes([]byte("a"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Tag(t.Context(), "a", "holdfast-class", "cold"); err != nil {
			t.Fatal(err)
		}
	}
	out, err := server.Client.GetObjectTagging(t.Context(), &aws3.GetObjectTaggingInput{Bucket: aws.String("tags"), Key: aws.String("p/a")})
	if err != nil || len(out.TagSet) != 1 || *out.TagSet[0].Value != "cold" {
		t.Errorf("%+v, %v", out, err)
	}
	if err := s.Tag(t.Context(), "none", "a", "b"); !errors.Is(err, objstore.ErrNotExist) {
		t.Error(err)
	}
}
