package cli

import (
	"context"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
)

// store opens the object store at an address, with the limits of the global flags and with retries.
func (a *app) store(ctx context.Context, address string) (objstore.Store, error) {
	return open.Open(ctx, address, open.Options{
		Limit: limit.Options{Upload: int64(a.flags.limitUp), Download: int64(a.flags.limitDown), Parallel: a.flags.connections},
		Retry: retry.Options{Notify: a.retrying},
	})
}

// Failures that are nobody's concern: so many in a row, if each came soon.
const (
	quietTries = 3
	quietTime  = 20 * time.Second
)

// retrying tells about a store that keeps failing: without it, a long wait looks like a hang.
func (a *app) retrying(e retry.Event) {
	if e.Try > quietTries || e.Took > quietTime {
		a.warn("%s %s failed %s, next try in %s: %v", e.Op, e.Key, count(uint64(e.Try), "time", "times"), duration(e.Pause), e.Err)
	}
}

// samePlace reports whether two addresses lead to the same repository, as far as they tell.
func samePlace(a, b string) bool {
	dir, local := localPath(absolute(a))
	other, alsoLocal := localPath(absolute(b))
	if local || alsoLocal {
		if local != alsoLocal {
			return false
		}
		return realPath(dir) == realPath(other)
	}
	x, xerr := open.Parse(a)
	y, yerr := open.Parse(b)
	return xerr == nil && yerr == nil && x.Scheme == y.Scheme && x.S3.Bucket == y.S3.Bucket && x.GS.Bucket == y.GS.Bucket &&
		strings.Trim(x.S3.Prefix+x.GS.Prefix, "/") == strings.Trim(y.S3.Prefix+y.GS.Prefix, "/") &&
		x.S3.Endpoint+x.GS.Endpoint == y.S3.Endpoint+y.GS.Endpoint
}

// localPath is the directory of a repository that is one on this host.
func localPath(address string) (string, bool) {
	l, err := open.Parse(address)
	return l.Path, err == nil && l.Scheme == "file"
}
