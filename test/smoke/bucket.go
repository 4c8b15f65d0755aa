package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// trial is one run and the bucket that it makes.
type trial struct {
	options
	name   string
	client *s3.Client
}

func newBucket(ctx context.Context, o options) (*trial, error) {
	var load []func(*config.LoadOptions) error
	if o.region != "" {
		load = append(load, config.WithRegion(o.region))
	}
	c, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("load the configuration of AWS: %w", err)
	}
	if o.region = c.Region; o.region == "" {
		return nil, errors.New("no region: pass -region, or set AWS_REGION")
	}
	if _, err := c.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("find credentials: %w", err)
	}
	b := &trial{options: o, name: "holdfast-smoke-" + strings.ToLower(rand.Text()[:12])}
	b.client = s3.NewFromConfig(c, func(so *s3.Options) {
		if o.endpoint != "" {
			so.BaseEndpoint, so.UsePathStyle = &o.endpoint, true
		}
	})
	return b, nil
}

func (b *trial) where() string {
	if b.endpoint != "" {
		return b.endpoint
	}
	return "AWS, region " + b.region
}

// address is that of a repository in the bucket.
func (b *trial) address() string {
	q := url.Values{"region": {b.region}}
	if b.endpoint != "" {
		q.Set("endpoint", b.endpoint)
		q.Set("path_style", "true")
	}
	return (&url.URL{Scheme: "s3", Host: b.name, Path: "/repository", RawQuery: q.Encode()}).String()
}

func (b *trial) make(ctx context.Context) error {
	in := &s3.CreateBucketInput{Bucket: &b.name, ObjectLockEnabledForBucket: aws.Bool(true)}
	if b.region != "us-east-1" { // the one region that must not be named
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(b.region)}
	}
	if _, err := b.client.CreateBucket(ctx, in); err != nil {
		return fmt.Errorf("make bucket %s: %w", b.name, err)
	}
	_, err := b.client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket: &b.name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err == nil {
		_, err = b.client.PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{
			Bucket: &b.name,
			ObjectLockConfiguration: &types.ObjectLockConfiguration{
				ObjectLockEnabled: types.ObjectLockEnabledEnabled,
				Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{
					Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(1),
				}},
			},
		})
	}
	if err != nil {
		_, derr := b.client.DeleteBucket(context.WithoutCancel(ctx), &s3.DeleteBucketInput{Bucket: &b.name})
		return errors.Join(fmt.Errorf("set up bucket %s: %w", b.name, err), derr)
	}
	return nil
}

// remove deletes every version and the bucket; it returns how many versions are left.
func (b *trial) remove(ctx context.Context) (left int, err error) {
	pages := s3.NewListObjectVersionsPaginator(b.client, &s3.ListObjectVersionsInput{Bucket: &b.name})
	var errs []error
	drop := func(key, id *string) {
		_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: key, VersionId: id, BypassGovernanceRetention: aws.Bool(true)})
		if err != nil {
			left++
			errs = append(errs, err)
		}
	}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return left, err
		}
		for _, v := range page.Versions {
			drop(v.Key, v.VersionId)
		}
		for _, m := range page.DeleteMarkers {
			drop(m.Key, m.VersionId)
		}
	}
	if left > 0 {
		return left, errs[0]
	}
	_, err = b.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &b.name})
	return 0, err
}
