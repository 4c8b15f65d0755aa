// Package gs keeps objects in a bucket of Google Cloud Storage. Use [Open].
//
// Each object is written by one request on the condition that there is none, with a CRC32C that the server checks; the
// SHA-256 is checked before, because this store knows none. Credentials are Google's application default ones, never
// part of the repository's address. STORAGE_EMULATOR_HOST is honoured. The client is Google's for the JSON API; the larger
// one, cloud.google.com/go/storage, opens a body that broke off again by itself, without end or pause, and brings gRPC's
// control plane, which doubles the size of the binary. Nothing is retried here: package retry does that.
package gs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/api/option"
	raw "google.golang.org/api/storage/v1"
	htransport "google.golang.org/api/transport/http"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/stall"
)

// maxConns is how many connections are kept open when they are idle.
const maxConns = 64

// Options says where the bucket is.
type Options struct {
	Bucket string
	Prefix string // of all keys in the bucket, without slashes at its ends; may be empty
	// Endpoint is the URL of another server than Google's public one; empty: that one. With http: no credentials are
	// looked for, because they must not travel in the clear.
	Endpoint string
	// Silence bounds the time in which nothing moves on a connection that is waited for, and the time between a request
	// and the first byte of its answer. 0: stall.Silence.
	Silence time.Duration
}

// Store is an object store in a bucket.
type Store struct {
	raw     *raw.ObjectsService
	buckets *raw.BucketsService
	name    string
	prefix  string // ends in '/' or is empty
}

// Open returns the store. It talks to nobody yet, except where credentials are looked for.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Bucket == "" {
		return nil, errors.New("open Google Cloud Storage: no bucket")
	}
	var options []option.ClientOption
	if o.Endpoint == "" {
		o.Endpoint = emulator()
	}
	if o.Endpoint != "" {
		options = append(options, option.WithEndpoint(strings.TrimSuffix(o.Endpoint, "/")+"/storage/v1/"))
		if strings.HasPrefix(o.Endpoint, "http:") {
			options = append(options, option.WithoutAuthentication())
		}
	}
	// Tokens are renewed under this context for as long as the store lives.
	ctx = context.WithoutCancel(ctx)
	client, err := patient(ctx, cmp.Or(o.Silence, stall.Silence), options)
	if err != nil {
		return nil, fmt.Errorf("open Google Cloud Storage bucket %s: %w", o.Bucket, err)
	}
	options = append(options, option.WithHTTPClient(client))
	service, err := raw.NewService(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open Google Cloud Storage bucket %s: %w", o.Bucket, err)
	}
	s := &Store{
		raw: service.Objects, buckets: service.Buckets, name: o.Bucket, prefix: strings.Trim(o.Prefix, "/"),
	}
	if s.prefix != "" {
		s.prefix += "/"
	}
	return s, nil
}

// patient returns a client with the library's credentials, which does not wait forever for a server that is silent.
func patient(ctx context.Context, silence time.Duration, options []option.ClientOption) (*http.Client, error) {
	base := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           stall.Dialer(nil, silence),
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          maxConns,
		MaxIdleConnsPerHost:   maxConns,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ResponseHeaderTimeout: silence,
		DisableCompression:    true, // what arrives must be what was stored
	}
	scopes := option.WithScopes(raw.DevstorageFullControlScope, raw.CloudPlatformScope)
	transport, err := htransport.NewTransport(ctx, base, append([]option.ClientOption{scopes}, options...)...)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport}, nil
}

// emulator returns the URL of the server in STORAGE_EMULATOR_HOST, or nothing.
func emulator() string {
	host := os.Getenv("STORAGE_EMULATOR_HOST")
	if host == "" || strings.Contains(host, "://") {
		return host
	}
	return "http://" + host
}

// key returns the key in the store, and whether what is in the bucket can be an object of ours at all.
func (s *Store) key(at string) (string, bool) {
	key, ok := strings.CutPrefix(at, s.prefix)
	return key, ok && objstore.CheckKey(key) == nil
}

// info describes an object by what the server says about it.
func info(key string, o *raw.Object) objstore.Info {
	i := objstore.Info{Key: key, Size: int64(o.Size)} //nolint:gosec // the server's own limit is 5 TiB
	for _, t := range []string{o.TimeCreated, o.Updated} {
		if at, err := time.Parse(time.RFC3339Nano, t); err == nil {
			i.Modified = at
			break
		}
	}
	return i
}
