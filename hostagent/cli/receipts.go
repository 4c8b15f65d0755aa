package cli

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// receiptReaders is how many receipts are read at the same time.
const receiptReaders = 16

// receiptOf groups receipts: of each group the newest that are valid count.
type receiptOf struct {
	sequence uint64
	level    string
	where    string
}

// verdicts finds, for each snapshot, the verification to show, see [judgeReceipts], and whether it is proven, see
// [provenBy]. Only receipts that can matter are read.
func verdicts(ctx context.Context, repo *repository.Repository, src snapshot.Source, of []*repository.Stored) (shown map[uint64]*verifiedLine, proven map[uint64]bool, err error) {
	manifests := map[uint64]string{}
	for _, m := range of {
		manifests[m.Sequence] = m.Hash.String()
	}
	groups := map[receiptOf][]string{} // ascending by time
	for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
		err := repo.Store().List(ctx, layout.ReceiptPrefix(src, where), func(o objstore.Info) error {
			_, level, n, err := layout.ParseReceipt(src, where, o.Key)
			if err == nil && manifests[n] != "" {
				groups[receiptOf{n, level, where}] = append(groups[receiptOf{n, level, where}], o.Key)
			}
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("list receipts of %s: %w", src, err)
		}
	}
	var mu sync.Mutex
	found := map[uint64][]verifiedLine{} // guarded by mu
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(receiptReaders)
	for of, keys := range groups {
		g.Go(func() error {
			lines, err := newestReceipts(gctx, repo, keys, manifests[of.sequence])
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[of.sequence] = append(found[of.sequence], lines...)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	shown, proven = map[uint64]*verifiedLine{}, map[uint64]bool{}
	for n, receipts := range found {
		shown[n] = judgeReceipts(receipts)
		proven[n] = provenBy(receipts)
	}
	return shown, proven, nil
}

// provenBy reports whether the bytes of the snapshot were all read and found good: a listing proves none of them, a
// sample not all. No failure stands against it.
func provenBy(receipts []verifiedLine) bool {
	shown := judgeReceipts(receipts)
	return shown != nil && shown.Result == record.Pass && slices.ContainsFunc(receipts, func(r verifiedLine) bool {
		return r.Result == record.Pass && r.Sample == "" && depth(r.Level) >= depth("bytes")
	})
}

// newestReceipts reads the newest receipts that are signed and about the manifest, down to one that is about all packs:
// a sample hides nothing older. One that is not signed, or gone, proves nothing, and must not hide an older one either.
func newestReceipts(ctx context.Context, repo *repository.Repository, keys []string, manifest string) ([]verifiedLine, error) {
	var out []verifiedLine
	for _, key := range slices.Backward(keys) {
		var r record.Receipt
		_, err := repo.Document(ctx, key, &r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && r.Manifest == manifest {
			out = append(out, verifiedLine{r.Level, r.Result, r.Finished, r.Sample})
			if r.Sample == "" {
				break
			}
		}
	}
	return out, nil
}

// judgeReceipts says what the receipts of one snapshot mean together, whatever their order: the newest failure that no
// later pass of all packs, of an equal or deeper level, has cleared; without one, the deepest pass, and of equal ones the newest.
func judgeReceipts(receipts []verifiedLine) *verifiedLine {
	var failed, passed *verifiedLine
	for i := range receipts {
		r := &receipts[i]
		switch {
		case r.Result != record.Fail:
			if passed == nil || deeper(r, passed) {
				passed = r
			}
		case cleared(r, receipts):
		case failed == nil || r.Time.After(failed.Time) || r.Time.Equal(failed.Time) && depth(r.Level) > depth(failed.Level):
			failed = r
		}
	}
	if failed != nil {
		return failed
	}
	return passed
}

// cleared reports whether a level at least as deep passed after the failure. A sample may have read other packs.
func cleared(failure *verifiedLine, receipts []verifiedLine) bool {
	return slices.ContainsFunc(receipts, func(r verifiedLine) bool {
		return r.Result == record.Pass && r.Sample == "" && depth(r.Level) >= depth(failure.Level) && r.Time.After(failure.Time)
	})
}

func deeper(x, y *verifiedLine) bool {
	if d := depth(x.Level) - depth(y.Level); d != 0 {
		return d > 0
	}
	if !x.Time.Equal(y.Time) {
		return x.Time.After(y.Time)
	}
	return x.Sample < y.Sample // so that the order does not matter; the whole goes before a sample
}

// depth orders the levels of verification.
func depth(level string) int {
	return slices.Index([]string{"structure", "bytes", "content", "restore"}, level)
}
