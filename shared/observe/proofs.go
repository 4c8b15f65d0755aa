package observe

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mostTries is how many receipts of one level are read until one is found that counts.
const mostTries = 12

// Proofs tells when the host of a source last verified it at the levels that need a key, for [schedule.DueVerification].
// Of each level the receipt about the newest snapshot counts, and of these the newest that is signed and is about all
// packs. Times are those of arrival, by the store's clock. It lists the host's receipts and reads one or two.
func Proofs(ctx context.Context, repo *repository.Repository, src snapshot.Source) (schedule.Proofs, error) {
	type receipt struct {
		key string
		n   uint64
		objstore.Info
	}
	all := map[string][]receipt{}
	err := repo.Store().List(ctx, layout.ReceiptPrefix(src, layout.ReceiptHost), func(i objstore.Info) error {
		if _, level, n, err := layout.ParseReceipt(src, layout.ReceiptHost, i.Key); err == nil {
			all[level] = append(all[level], receipt{i.Key, n, i})
		}
		return nil
	})
	if err != nil {
		return schedule.Proofs{}, fmt.Errorf("list receipts of %s: %w", src, err)
	}
	var out schedule.Proofs
	for _, level := range []string{schedule.Content, schedule.Restore} {
		list := all[level]
		// Keys have the time behind the prefix: later ones are greater.
		slices.SortFunc(list, func(a, b receipt) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(b.key, a.key)) })
		for _, r := range list[:min(len(list), mostTries)] {
			var doc record.Receipt
			_, err := repo.Document(ctx, r.key, &doc)
			switch {
			case ctx.Err() != nil:
				return schedule.Proofs{}, ctx.Err()
			case objstore.IsTransient(err):
				return schedule.Proofs{}, fmt.Errorf("read %s: %w", r.key, err)
			case err != nil || doc.Level != level || doc.Sequence != r.n || doc.Sample != "":
				continue // not signed, gone, or about a part: it proves nothing, and hides nothing
			}
			*out.Of(level) = schedule.Proof{At: r.Modified.UTC(), Failed: doc.Result != record.Pass}
			break
		}
	}
	return out, nil
}
