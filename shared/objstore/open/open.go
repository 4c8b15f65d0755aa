// Package open turns the address of a repository into its store, with retries and limits around it. Use [Open].
//
//	/path, ./path, file:///path                                            a directory
//	s3://bucket/prefix?region=R&endpoint=URL&profile=NAME&path_style=true  S3 and what speaks like it
//	gs://bucket/prefix?endpoint=URL                                        Google Cloud Storage
//
// Addresses hold no credentials: those come from the environment, profiles and roles.
package open

import (
	"context"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/address"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
)

// Options says what is around the store. The zero value retries and sets no limits.
type Options struct {
	Retry retry.Options
	Limit limit.Options
	// Memory, if not nil, opens addresses of the form mem:name, for tests.
	Memory func(name string) (objstore.Store, error)
	// Silence is how long a server may be silent before the connection is given up; 0: stall.Silence.
	Silence time.Duration
}

// Location is a parsed address.
type Location = address.Location

// Parse takes an address apart. Its errors never repeat what may be a password.
func Parse(text string) (Location, error) { return address.Parse(text) }

// Open returns the store at the address. It may not exist yet.
func Open(ctx context.Context, at string, o Options) (objstore.Store, error) {
	l, err := Parse(at)
	if err != nil {
		return nil, err
	}
	var s objstore.Store
	switch l.Scheme {
	case "file":
		s, err = file.Open(l.Path)
	case "s3":
		s, err = s3.Open(ctx, s3.Options{
			Bucket: l.S3.Bucket, Prefix: l.S3.Prefix, Region: l.S3.Region, Endpoint: l.S3.Endpoint,
			Profile: l.S3.Profile, PathStyle: l.S3.PathStyle, Silence: o.Silence,
		})
	case "gs":
		s, err = gs.Open(ctx, gs.Options{Bucket: l.GS.Bucket, Prefix: l.GS.Prefix, Endpoint: l.GS.Endpoint, Silence: o.Silence})
	default:
		if o.Memory == nil {
			return nil, address.Unknown(at, l.Scheme)
		}
		s, err = o.Memory(l.Path)
	}
	if err != nil {
		return nil, err
	}
	if o.Limit != (limit.Options{}) {
		s = limit.New(s, o.Limit)
	}
	return retry.New(s, o.Retry), nil
}
