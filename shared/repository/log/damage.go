package log

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Damaged is when the newest record arrived that something of a log failed a check, of the streams for which of holds; zero:
// there is none. It is for who writes them: one listing, of what is hardly ever there. Errors: the store's.
func Damaged(ctx context.Context, store objstore.Store, src snapshot.Source, of func(stream string) bool) (newest time.Time, err error) {
	prefix := layout.DamagedLogPrefix(src)
	err = store.List(ctx, prefix, func(i objstore.Info) error {
		if o, err := layout.ParseDamagedLog(src, i.Key); err == nil && of(o.Stream) && i.Modified.After(newest) {
			newest = i.Modified
		}
		return nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("list %s: %w", prefix, err)
	}
	return newest, nil
}
