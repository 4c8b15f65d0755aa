package prune

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// KeepReceipts is how long every receipt is kept, by the store's clock. Of older ones the newest of each sort stay.
const KeepReceipts = 90 * 24 * time.Hour

const (
	receiptReaders = 16   // old receipts that are read at the same time
	mostReceipts   = 2000 // old receipts that one run looks at: the others wait for the next
	fewReceipts    = 16   // old receipts that may be too many without a run of their own
)

// receiptGroup is the receipts among which the newest of each sort are kept: those about one snapshot, of one level, in one
// place. Proofs of a key are about the source: theirs have no number.
type receiptGroup struct {
	sequence uint64
	level    string
	where    string
}

// oldReceipts are the receipts older than KeepReceipts, by the time now, each group ascending by time. Snapshots that are
// gone are not among them: what was said of those goes as a whole.
func (p *pruner) oldReceipts(old func(time.Time) bool) map[receiptGroup][]string {
	out := map[receiptGroup][]string{}
	for key, o := range p.inv.Receipts {
		for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
			_, level, n, err := layout.ParseReceipt(p.src, where, key)
			if err != nil || !old(o.Modified) {
				continue
			}
			if level == record.LevelKey {
				n = 0
			} else if _, there := p.inv.Manifests[n]; !there {
				continue
			}
			g := receiptGroup{n, level, where}
			out[g] = append(out[g], key)
		}
	}
	for g, keys := range out {
		if len(keys) < 2 {
			delete(out, g) // the only one stays, whatever it says
			continue
		}
		slices.Sort(keys)
	}
	return out
}

// manyReceipts reports whether there are so many old receipts that they are worth a run. The newest arrival is the least
// that the store's clock shows.
func (p *pruner) manyReceipts() bool {
	n := 0
	for _, keys := range p.oldReceipts(func(at time.Time) bool { return !p.inv.Newest.Before(at.Add(KeepReceipts)) }) {
		n += len(keys) - 1
	}
	return p.opts.Receipts && n >= fewReceipts
}

// receiptSort is what a receipt says as far as judging needs to tell them apart: a sample clears no failure and hides nothing.
type receiptSort struct {
	manifest string
	result   string
	sample   bool
}

// sweepOldReceipts removes, of the receipts older than KeepReceipts, all but the newest pass and the newest failure of each
// group, and of samples likewise: nothing that anybody judges by these receipts changes. What can't be read or is not signed
// stays, for verify to tell of. Locked ones wait. A crash leaves some: they are no less superfluous.
func (p *pruner) sweepOldReceipts(ctx context.Context) error {
	groups := p.oldReceipts(func(at time.Time) bool { return p.passed(at, KeepReceipts) })
	order := make([]receiptGroup, 0, len(groups))
	for g := range groups {
		order = append(order, g)
	}
	// Those whose oldest arrived first go first: their locks end first.
	first := func(g receiptGroup) time.Time { return p.inv.Receipts[groups[g][0]].Modified }
	slices.SortFunc(order, func(a, b receiptGroup) int {
		return cmp.Or(first(a).Compare(first(b)), cmp.Compare(groups[a][0], groups[b][0]))
	})
	var keys []string
	n := 0
	for _, g := range order {
		if n > 0 && n+len(groups[g]) > mostReceipts {
			break
		}
		n += len(groups[g])
		keys = append(keys, groups[g]...)
	}
	read, err := p.readReceipts(ctx, keys)
	if err != nil {
		return err
	}
	var all []doomed
	for _, g := range order {
		seen := map[receiptSort]bool{}
		for _, key := range slices.Backward(groups[g]) {
			r := read[key]
			if r == nil || r.Level != g.level || g.sequence != 0 && r.Sequence != g.sequence {
				continue
			}
			s := receiptSort{r.Manifest, r.Result, r.Sample != ""}
			if g.sequence == 0 {
				s.manifest = ""
			}
			if seen[s] {
				all = append(all, doomed{key, p.inv.Receipts[key].Size})
			}
			seen[s] = true
		}
	}
	gone, err := p.sweepAll(ctx, all)
	p.report.Receipts += count(gone)
	return err
}

// readReceipts reads receipts; those that can't be read, or that nobody who is trusted signed, are left out.
func (p *pruner) readReceipts(ctx context.Context, keys []string) (map[string]*record.Receipt, error) {
	var mu sync.Mutex
	out := map[string]*record.Receipt{} // guarded by mu
	return out, parallel.Each(ctx, receiptReaders, keys, func(ctx context.Context, key string) error {
		var r record.Receipt
		_, err := p.repo.Document(ctx, key, &r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case objstore.IsTransient(err):
			return fmt.Errorf("read %s: %w", key, err)
		case err != nil:
			return nil //nolint:nilerr // it stays
		}
		mu.Lock()
		defer mu.Unlock()
		out[key] = &r
		return nil
	})
}
