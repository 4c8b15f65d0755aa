package copier

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// SourceLag says what a copy lacks of one source.
type SourceLag struct {
	Source  snapshot.Source
	Missing []snapshot.ID // snapshots that the original has and the copy has not, ascending
	Since   time.Time     // when the oldest of them arrived in the original; zero if none is missing
	Newest  uint64        // number of the newest snapshot in the copy; 0: none
	Ahead   []snapshot.ID // snapshots newer than all in the original: it was rolled back
}

// Lag compares what is listed in the original and in the copy; nothing is read. No sources means all.
// Snapshots that the copy's own retention removed are not missing.
func Lag(ctx context.Context, original *repository.Repository, target objstore.Store, sources []snapshot.Source) ([]SourceLag, error) {
	if len(sources) == 0 {
		var err error
		if sources, err = original.Sources(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]SourceLag, 0, len(sources))
	for _, src := range sources {
		lag, err := sourceLag(ctx, original, target, src)
		if err != nil {
			return nil, fmt.Errorf("compare %s with its copy: %w", src, err)
		}
		out = append(out, lag)
	}
	return out, nil
}

func sourceLag(ctx context.Context, original *repository.Repository, target objstore.Store, src snapshot.Source) (SourceLag, error) {
	lag := SourceLag{Source: src}
	// The copy first: what arrives in both meanwhile may be taken for not copied yet, never for ahead.
	there, err := numbers(ctx, target, layout.ManifestPrefix(src))
	if err != nil {
		return lag, err
	}
	expired, err := numbers(ctx, target, layout.ExpiredPrefix(src))
	if err != nil {
		return lag, err
	}
	ours, err := original.Sequences(ctx, src)
	if err != nil {
		return lag, err
	}
	highest := uint64(0)
	for _, l := range ours {
		highest = max(highest, l.Sequence)
		if there[l.Sequence] || expired[l.Sequence] {
			continue
		}
		if len(lag.Missing) == 0 || l.Info.Modified.Before(lag.Since) {
			lag.Since = l.Info.Modified
		}
		lag.Missing = append(lag.Missing, snapshot.ID{Source: src, Sequence: l.Sequence})
	}
	for n := range there {
		lag.Newest = max(lag.Newest, n)
	}
	for n := highest + 1; n <= lag.Newest; n++ {
		if there[n] {
			lag.Ahead = append(lag.Ahead, snapshot.ID{Source: src, Sequence: n})
		}
	}
	return lag, nil
}

func numbers(ctx context.Context, store objstore.Store, prefix string) (map[uint64]bool, error) {
	out := map[uint64]bool{}
	err := store.List(ctx, prefix, func(o objstore.Info) error {
		if n, err := layout.ParseNumbered(prefix, o.Key); err == nil {
			out[n] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return out, nil
}
