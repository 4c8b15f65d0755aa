package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Freeze stops removals of one source while it is restored: `freeze/<host>/<source>.json`. The function restore writes
// it, lifecycle obeys it. It expires by itself, so that a restore that nobody ends does not keep everything for ever.
type Freeze struct {
	Version int       `json:"version"`
	Until   time.Time `json:"until"`
	Reason  string    `json:"reason"` // such as the id of the restore
}

// MaxFreeze is the longest freeze.
const MaxFreeze = 30 * 24 * time.Hour

// SourceFrozen says why nothing of a source may be removed at now; empty: nothing stops it. What can't be read stops
// removals: somebody may be restoring.
func SourceFrozen(ctx context.Context, s statestore.Store, src snapshot.Source, now time.Time) (string, error) {
	f, _, err := statestore.Read[Freeze](ctx, s, FreezeKey(src))
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look whether removals of %s are frozen: %w", src, err)
	case !now.Before(f.Until):
		return "", nil
	}
	return fmt.Sprintf("frozen until %s: %s", f.Until.UTC().Format(time.RFC3339), f.Reason), nil
}

// FreezeSource stops removals of a source until a time, which is at most [MaxFreeze] ahead. A freeze that reaches
// further stays.
func FreezeSource(ctx context.Context, s statestore.Store, src snapshot.Source, now, until time.Time, reason string) error {
	if until.After(now.Add(MaxFreeze)) {
		return fmt.Errorf("freeze %s until %s: at most %s at a time", src, until.UTC().Format(time.RFC3339), MaxFreeze)
	}
	return statestore.Update(ctx, s, FreezeKey(src), func(f *Freeze) error {
		if !until.After(f.Until) {
			return statestore.ErrUnchanged
		}
		*f = Freeze{Version: 1, Until: until.UTC(), Reason: reason}
		return nil
	})
}
