package observe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// readers is how many small documents are read at the same time for one source.
const readers = 16

// Verification is what one receipt says.
type Verification struct {
	Level  string    `json:"level"`
	Result string    `json:"result"`
	Time   time.Time `json:"time"`
	Sample string    `json:"sample,omitempty"`
}

// String is short enough for a table.
func (v *Verification) String() string {
	switch {
	case v == nil:
		return "never"
	case v.Result == record.Fail:
		return "FAILED " + v.Level + " " + v.Time.Format("2006-01-02")
	case v.Sample != "":
		return v.Level + " " + v.Sample + " " + v.Time.Format("2006-01-02")
	}
	return v.Level + " " + v.Time.Format("2006-01-02")
}

// group is receipts of which the newest that are valid count.
type group struct {
	sequence uint64
	level    string
	where    string
}

// groups sorts the keys of receipts, ascending by time within each group.
func groups(src snapshot.Source, keys []string) map[group][]string {
	out := map[group][]string{}
	for _, key := range keys {
		for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
			if _, level, n, err := layout.ParseReceipt(src, where, key); err == nil && level != record.LevelKey {
				g := group{n, level, where}
				out[g] = append(out[g], key)
			}
		}
	}
	return out
}

// found is what the receipts of one snapshot say.
type found struct {
	all       []Verification
	manifests []string            // that they are about
	cloud     bool                // any of them is the control plane's
	restored  *compliance.Restore // newest receipt of level restore
	deep      deep
}

// deep is when everything was last found in order at the levels that need a key, by the host's receipts.
type deep struct {
	Content deepest `json:"content,omitzero"`
	Restore deepest `json:"restore,omitzero"`
}

// deepest is the newest proof of the newest snapshot that has one: that an older one was verified alone says nothing of
// what came after it.
type deepest struct {
	At time.Time `json:"at,omitzero"`
	Of uint64    `json:"of,omitempty"`
}

func (d *deepest) hear(o deepest) {
	if o.Of > d.Of || o.Of == d.Of && o.At.After(d.At) {
		*d = o
	}
}

// hear takes in what a receipt says.
func (d *deep) hear(r *record.Receipt) {
	at := deepest{At: r.Finished.UTC(), Of: r.Sequence}
	switch {
	case r.Result != record.Pass || r.Sample != "":
	case r.Level == schedule.Restore:
		d.Restore.hear(at)
	case r.Level == schedule.Content:
		d.Content.hear(at)
	}
}

func (d *deep) merge(o deep) {
	d.Content.hear(o.Content)
	d.Restore.hear(o.Restore)
}

// wanted is what the policy wants of them.
func (d deep) wanted(v policy.Verification) []compliance.Deep {
	var out []compliance.Deep
	if v.Content > 0 {
		out = append(out, compliance.Deep{Level: schedule.Content, Within: v.Content.Std(), Proven: d.Content.At})
	}
	if v.Restore > 0 {
		out = append(out, compliance.Deep{Level: schedule.Restore, Within: v.Restore.Std(), Proven: d.Restore.At})
	}
	return out
}

// readVerdicts reads, for each snapshot, the verification to show, see [Judge], and whether it is proven, see [Proven].
// Only receipts that can matter are read.
func (h *History) readVerdicts(ctx context.Context, repo *repository.Repository) error {
	manifests := map[uint64]string{}
	for _, m := range h.Manifests {
		manifests[m.Sequence] = m.Hash.String()
	}
	var keys []string
	var proofs []arrival
	for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
		err := repo.Store().List(ctx, layout.ReceiptPrefix(h.Source, where), func(o objstore.Info) error {
			keys, proofs = append(keys, o.Key), append(proofs, arrival{o.Key, o.Modified})
			return nil
		})
		if err != nil {
			return fmt.Errorf("list receipts of %s: %w", h.Source, err)
		}
	}
	var err error
	if h.KeyProven, err = provenAt(ctx, repo, proofKeys(h.Source, proofs)); err != nil {
		return err
	}
	of := groups(h.Source, keys)
	for g := range of {
		if manifests[g.sequence] == "" {
			delete(of, g)
		}
	}
	all, err := readGroups(ctx, repo, of, func(n uint64, manifest string) bool { return manifests[n] == manifest })
	if err != nil {
		return err
	}
	h.Verified, h.Proven, h.Checked = map[uint64]*Verification{}, map[uint64]bool{}, map[uint64]bool{}
	for n, f := range all {
		h.Verified[n], h.Proven[n], h.Checked[n] = Judge(f.all), Proven(f.all), f.cloud
		h.Restored = newerRestore(h.Restored, f.restored)
		h.deep.merge(f.deep)
	}
	return nil
}

// readGroups reads the newest receipts of each group that are about the manifest which stands in the repository.
func readGroups(ctx context.Context, repo *repository.Repository, of map[group][]string, about func(n uint64, manifest string) bool) (map[uint64]*found, error) {
	var mu sync.Mutex
	out := map[uint64]*found{} // guarded by mu
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for at, keys := range of {
		g.Go(func() error {
			receipts, err := newestReceipts(gctx, repo, keys, func(r *record.Receipt) bool { return r.Sequence == at.sequence && about(at.sequence, r.Manifest) })
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if out[at.sequence] == nil {
				out[at.sequence] = &found{}
			}
			out[at.sequence].add(at, receipts)
			return nil
		})
	}
	return out, g.Wait()
}

func (f *found) add(at group, receipts []record.Receipt) {
	for _, r := range receipts {
		f.all = append(f.all, Verification{r.Level, r.Result, r.Finished, r.Sample})
		f.manifests = append(f.manifests, r.Manifest)
		f.cloud = f.cloud || at.where == layout.ReceiptCloud
		if at.where == layout.ReceiptHost {
			f.deep.hear(&r)
		}
		if r.Level == "restore" {
			f.restored = newerRestore(f.restored, restoreOf(r))
		}
	}
}

// Proven reports whether the bytes of the snapshot were all read and found good: a listing proves none of them, a
// sample not all. No failure stands against it.
func Proven(receipts []Verification) bool {
	shown := Judge(receipts)
	return shown != nil && shown.Result == record.Pass && slices.ContainsFunc(receipts, func(r Verification) bool {
		return r.Result == record.Pass && r.Sample == "" && depth(r.Level) >= depth("bytes")
	})
}

// newestReceipts reads the newest receipts that are signed and about the manifest, down to one that is about all packs:
// a sample hides nothing older. One that is not signed, or gone, proves nothing, and must not hide an older one either.
func newestReceipts(ctx context.Context, repo *repository.Repository, keys []string, about func(*record.Receipt) bool) ([]record.Receipt, error) {
	var out []record.Receipt
	for _, key := range slices.Backward(keys) {
		var r record.Receipt
		_, err := repo.Document(ctx, key, &r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if objstore.IsTransient(err) {
			return nil, fmt.Errorf("read %s: %w", key, err) // not an answer: it must not pass for "no receipt"
		}
		if err == nil && about(&r) {
			out = append(out, r)
			if r.Sample == "" {
				break
			}
		}
	}
	return out, nil
}

// Judge says what the receipts of one snapshot mean together, whatever their order: the newest failure that no later
// pass of all packs, of an equal or deeper level, has cleared; without one, the deepest pass, and of equal ones the
// newest. It returns nil for none.
func Judge(receipts []Verification) *Verification {
	var failed, passed *Verification
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
func cleared(failure *Verification, receipts []Verification) bool {
	return slices.ContainsFunc(receipts, func(r Verification) bool {
		return r.Result == record.Pass && r.Sample == "" && depth(r.Level) >= depth(failure.Level) && r.Time.After(failure.Time)
	})
}

func deeper(x, y *Verification) bool {
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
