package observe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// arrival is an object and when it arrived.
type arrival struct {
	key string
	at  time.Time
}

// proofKeys picks the receipts of level [record.LevelKey], the newest first.
func proofKeys(src snapshot.Source, receipts []arrival) []arrival {
	var out []arrival
	for _, r := range receipts {
		if _, level, _, err := layout.ParseReceipt(src, layout.ReceiptHost, r.key); err == nil && level == record.LevelKey {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b arrival) int { return cmp.Compare(b.key, a.key) })
	return out
}

// provenAt is when an identity was last proven to open all chains of a source, by its receipts; zero if none tells of that.
// The snapshot that a receipt names need not be there any more: what was proven is the identity, not the snapshot. A receipt
// counts from its arrival at the latest, so that a clock which was ahead does not silence the objective for years.
func provenAt(ctx context.Context, repo *repository.Repository, newestFirst []arrival) (time.Time, error) {
	for _, r := range newestFirst {
		var doc record.Receipt
		_, err := repo.Document(ctx, r.key, &doc)
		switch {
		case ctx.Err() != nil:
			return time.Time{}, ctx.Err()
		case objstore.IsTransient(err):
			return time.Time{}, fmt.Errorf("read %s: %w", r.key, err)
		case err != nil || doc.Level != record.LevelKey || doc.Result != record.Pass:
			continue // not signed, or gone: it proves nothing, and hides no older one
		case doc.Finished.After(r.at):
			return r.at.UTC(), nil
		}
		return doc.Finished.UTC(), nil
	}
	return time.Time{}, nil
}

// proofs learns when the identity was last proven, if there is a receipt that was not read yet.
func (l *look) proofs(ctx context.Context) error {
	var all []arrival
	for key, o := range l.inv.Receipts {
		all = append(all, arrival{key, o.Modified})
	}
	keys := proofKeys(l.src, all)
	if len(keys) == 0 {
		l.m.KeyProven, l.m.KeyReceipt = time.Time{}, ""
		return nil
	}
	newest := short(keys[0].key)
	if newest == l.m.KeyReceipt {
		return nil
	}
	l.w.requests.Add(1) // more are read only behind one that is not signed
	at, err := provenAt(ctx, l.w.Repo, keys)
	if err != nil {
		return err
	}
	l.m.KeyProven, l.m.KeyReceipt = at, newest
	return nil
}
