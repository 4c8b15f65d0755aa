package cli

import (
	"context"
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

// localPath is the directory of a repository that is one on this host.
func localPath(address string) (string, bool) {
	l, err := open.Parse(address)
	return l.Path, err == nil && l.Scheme == "file"
}
