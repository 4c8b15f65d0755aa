package copier

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// SourceLag says what a copy lacks of one source.
type SourceLag struct {
	Source  snapshot.Source
	Missing []snapshot.ID // snapshots that the original has and the copy has not, ascending
	Since   time.Time     // when the oldest of them arrived in the original; zero if none is missing
	Newest  uint64        // number of the newest snapshot in the copy; 0: none
	Log     time.Time     // when the oldest records of the log that it has not arrived in the original; zero: none are missing
	Ahead   []snapshot.ID // snapshots newer than all in the original: it was rolled back
}

// Lag compares what is listed in the original and in the copy; nothing is read. No sources means all.
// Snapshots and records that the copy's own retention removed are not missing.
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
	lag.Log, err = LogLag(ctx, original.Store(), target, src)
	return lag, err
}

// LogLag compares the records of the source's logs by two listings, and returns when the oldest that the copy has not had
// arrived in the original; zero: it has all. Segments and pieces stand for the same records: a copy need not have both. An epoch
// without a head can't be read, and is not copied. What a retention removed, of the original or the copy, is not missing.
func LogLag(ctx context.Context, original, target objstore.Store, src snapshot.Source) (since time.Time, err error) {
	theirs, err := inventory.TakeParts(ctx, target, src, layout.LogPrefix(src), layout.ExpiredLogPrefix(src))
	if err != nil {
		return since, err
	}
	ours, err := inventory.TakeParts(ctx, original, src, layout.LogPrefix(src), layout.ExpiredLogPrefix(src))
	if err != nil {
		return since, err
	}
	for _, e := range ours.Logs {
		if e.Head.Modified.IsZero() {
			continue
		}
		removed := max(ours.RemovedUpTo(e.LogName), theirs.RemovedUpTo(e.LogName))
		var have []inventory.LogRun
		if t := theirs.Logs[e.LogName]; t != nil && !t.Head.Modified.IsZero() {
			have = t.Runs()
		}
		e.All(func(_ layout.LogObject, p inventory.LogPiece) {
			first := max(p.First, removed+1)
			if first <= p.Last && !within(have, first, p.Last) && (since.IsZero() || p.Arrived().Before(since)) {
				since = p.Arrived().UTC()
			}
		})
	}
	return since, nil
}

// within reports whether one of the runs, which ascend, has all records from first to last.
func within(runs []inventory.LogRun, first, last uint64) bool {
	i := sort.Search(len(runs), func(i int) bool { return runs[i].Last >= last })
	return i < len(runs) && runs[i].First <= first
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
