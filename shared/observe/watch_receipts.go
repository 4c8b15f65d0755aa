package observe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// receiptSlack is how much later a receipt may show up in a listing than its time of arrival says.
const receiptSlack = 15 * time.Minute

// receipts judges anew the snapshots about which there are new receipts. A receipt of a snapshot that is not remembered
// counts only if it says that the snapshot is bad.
func (l *look) receipts(ctx context.Context) error {
	var keys []string
	newest := l.m.Receipts
	touched := map[uint64]bool{}
	for n := range l.fresh {
		touched[n] = true
	}
	for key, o := range l.inv.Receipts {
		keys = append(keys, key)
		n, ok := l.sequenceOf(key)
		if ok && o.Modified.After(l.m.Receipts.Add(-receiptSlack)) && !slices.Contains(l.m.Recent, short(key)) {
			touched[n] = true
		}
		if o.Modified.After(newest) {
			newest = o.Modified
		}
	}
	slices.Sort(keys)
	of := groups(l.src, keys)
	for g := range of {
		if _, there := l.inv.Manifests[g.sequence]; !there || !touched[g.sequence] {
			delete(of, g)
		}
	}
	for _, keys := range of {
		l.w.requests.Add(int64(min(1, len(keys)))) // more are read only behind a sample
	}
	all, err := readGroups(ctx, l.w.Repo, of, l.about)
	if err != nil {
		return err
	}
	if err := l.bad(ctx, all); err != nil {
		return err
	}
	if err := l.proofs(ctx); err != nil {
		return err
	}
	for _, f := range all {
		l.m.Deep.merge(f.deep)
	}
	l.settle(all, touched)
	l.m.Receipts, l.m.Recent = newest, nil
	for _, key := range keys {
		if len(l.m.Recent) < keepRecent && l.inv.Receipts[key].Modified.After(newest.Add(-receiptSlack)) {
			l.m.Recent = append(l.m.Recent, short(key))
		}
	}
	return nil
}

// settle judges anew the remembered snapshots that were touched.
func (l *look) settle(all map[uint64]*found, touched map[uint64]bool) {
	for i := range l.m.Kept {
		if k := &l.m.Kept[i]; touched[k.Sequence] {
			k.Verified, k.failed, k.Checked = false, false, false
			if f := all[k.Sequence]; f != nil {
				k.hear(f)
				l.m.Restored = newerRestore(l.m.Restored, f.restored)
			}
			k.settle()
		}
	}
}

// keepRecent is how many receipts that arrived last are remembered one by one; more are read again the next time.
const keepRecent = 64

// short stands for a key.
func short(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

// bad reads the manifests of snapshots that are not remembered and whose receipts tell of damage, or that they are the
// newest that is proven, and drops what is about other manifests.
func (l *look) bad(ctx context.Context, all map[uint64]*found) error {
	var numbers []uint64
	newest := l.m.best(false).proven
	for n, f := range all {
		if l.index(n) >= 0 {
			if Proven(f.all) {
				newest = max(newest, n)
			}
			continue
		}
		if shown := Judge(f.all); shown != nil && shown.Result == record.Fail {
			numbers = append(numbers, n)
		}
	}
	for n, f := range all {
		if n > newest && l.index(n) < 0 && Proven(f.all) {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	if err := l.remember(ctx, numbers); err != nil {
		return err
	}
	for _, n := range numbers {
		if i := l.index(n); i < 0 || !slices.ContainsFunc(all[n].manifests, func(m string) bool { return strings.HasPrefix(m, l.m.Kept[i].Manifest) }) {
			delete(all, n)
		}
	}
	return nil
}

// about reports whether a receipt is about the manifest that is there. Of a snapshot that is not remembered this is not
// known yet.
func (l *look) about(n uint64, manifest string) bool {
	i := l.index(n)
	return i < 0 || strings.HasPrefix(manifest, l.m.Kept[i].Manifest)
}

func (l *look) sequenceOf(key string) (uint64, bool) {
	for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
		if _, _, n, err := layout.ParseReceipt(l.src, where, key); err == nil {
			return n, true
		}
	}
	return 0, false
}

// forgottenMost is how many snapshots that are not remembered one look goes back for.
const forgottenMost = 200

// forgotten goes back for what memory had let go and what matters again: where the newest snapshot that was verified, or
// usable, is gone or has turned out to be bad, an older one takes its place.
func (l *look) forgotten(ctx context.Context) error {
	older := inventory.Sequences(l.inv.Manifests)
	slices.Reverse(older)
	back := 0
	for _, n := range older {
		now := l.m.best(false)
		wanted := now.usable < l.best.usable && n > now.usable && n < l.best.usable ||
			now.proven < l.best.proven && n > now.proven && n < l.best.proven
		if _, condemned := l.inv.Condemned[n]; !wanted || condemned || l.index(n) >= 0 {
			continue
		}
		if back++; back > forgottenMost {
			break
		}
		if err := l.recall(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// recall reads one snapshot that is not remembered, with its receipts.
func (l *look) recall(ctx context.Context, n uint64) error {
	if err := l.remember(ctx, []uint64{n}); err != nil {
		return err
	}
	i := l.index(n)
	if i < 0 {
		return nil
	}
	var keys []string
	for key := range l.inv.Receipts {
		if of, ok := l.sequenceOf(key); ok && of == n {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	l.w.requests.Add(int64(len(keys)))
	all, err := readGroups(ctx, l.w.Repo, groups(l.src, keys), l.about)
	if err != nil {
		return err
	}
	k := &l.m.Kept[i]
	if f := all[n]; f != nil {
		k.hear(f)
	}
	k.settle()
	return nil
}

// hear enters what receipts say.
func (k *Kept) hear(f *found) {
	shown := Judge(f.all)
	k.Verified, k.failed, k.Checked = Proven(f.all), shown != nil && shown.Result == record.Fail, f.cloud
}
