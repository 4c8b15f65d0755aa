package prune_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// receipt leaves one about snapshot n and returns its key.
func receipt(t *testing.T, f *repotest.Fixture, n uint64, where, level, result, sample string) string {
	t.Helper()
	m, err := f.Repo.Manifest(t.Context(), f.ID(n))
	if err != nil {
		t.Fatal(err)
	}
	r := record.Receipt{Sequence: n, Manifest: m.Hash.String(), Level: level, Result: result, Sample: sample, Started: f.Now, Finished: f.Now, Problems: []string{}}
	key := layout.ReceiptKey(f.ID(n), where, f.Now, level)
	if err := f.Repo.PutDocument(t.Context(), key, r); err != nil {
		t.Fatal(err)
	}
	f.Now = f.Now.Add(time.Minute)
	return key
}

// left are the receipts that are there but for those with which prune asks for the time.
func left(f *repotest.Fixture, asked map[string]bool) []string {
	keys := repotest.Keys(f.Store, "/receipts/")
	return slices.DeleteFunc(keys, func(key string) bool { return asked[key] })
}

// TestOldReceipts: of each snapshot, level and place the newest pass and the newest failure stay, and everything young.
func TestOldReceipts(t *testing.T) {
	f := history(t)
	var want []string
	add := func(stays bool, key string) {
		if stays {
			want = append(want, key)
		}
	}
	for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
		for i := range 6 {
			add(i == 5, receipt(t, f, 4, where, "bytes", record.Pass, ""))
			add(i == 5, receipt(t, f, 4, where, "bytes", record.Fail, ""))
			add(i == 5, receipt(t, f, 4, where, "bytes", record.Pass, "1/30"))
			add(i == 5, receipt(t, f, 4, where, "content", record.Pass, ""))
			add(i == 5, receipt(t, f, 5, where, "bytes", record.Pass, ""))
		}
	}
	for i := range 3 {
		add(i == 2, receipt(t, f, 1+uint64(i), layout.ReceiptHost, record.LevelKey, record.Pass, ""))
	}
	forged := layout.ReceiptKey(f.ID(4), layout.ReceiptHost, f.Now, "bytes")
	f.Store.Tamper(forged, []byte("forged"))
	add(true, forged)
	f.Now = f.Now.Add(80 * day)
	for range 2 {
		add(true, receipt(t, f, 5, layout.ReceiptHost, "bytes", record.Pass, ""))
	}
	slices.Sort(want)
	opts := prune.Options{Decisions: keep(1, 2, 3, 4, 5), Receipts: true, Place: layout.ReceiptCloud}
	before := repotest.Keys(f.Store, "/receipts/")
	if run(t, f, opts); len(repotest.Keys(f.Store, "/receipts/")) != len(before) {
		t.Error("receipts of 80 days are gone")
	}
	f.Now = f.Now.Add(11 * day)
	receipt(t, f, 5, layout.ReceiptHost, "structure", record.Pass, "") // something arrives: the store's clock shows
	asked := map[string]bool{}
	dry := run(t, f, prune.Options{Decisions: opts.Decisions, Receipts: true, DryRun: true})
	rep := run(t, f, opts)
	for _, key := range repotest.Keys(f.Store, "-structure-") {
		asked[key] = true
	}
	if diff := cmp.Diff(want, left(f, asked)); diff != "" {
		t.Error(diff)
	}
	if gone := len(before) - len(want); rep.Receipts != gone || dry.Receipts != gone {
		t.Errorf("%d removed, a dry run said %d, want %d", rep.Receipts, dry.Receipts, gone)
	}
	// It is over: nothing to do, no receipt of its own every day.
	n := len(repotest.Keys(f.Store, "/receipts/"))
	if rep = run(t, f, opts); rep.Receipts != 0 || len(repotest.Keys(f.Store, "/receipts/")) != n {
		t.Errorf("%+v", rep)
	}
}

// TestOldReceiptsLocked wait for the end of their locks, and a journal that stops stops.
func TestOldReceiptsLocked(t *testing.T) {
	f := history(t)
	f.Store.KeepLocks(100 * day)
	for range 40 {
		receipt(t, f, 5, layout.ReceiptCloud, "bytes", record.Pass, "")
	}
	f.Now = f.Now.Add(95 * day)
	receipt(t, f, 5, layout.ReceiptHost, "structure", record.Pass, "")
	opts := prune.Options{Decisions: keep(1, 2, 3, 4, 5), Receipts: true, Place: layout.ReceiptCloud}
	rep := run(t, f, opts)
	if rep.Receipts != 0 || len(rep.Kept) != 39 || rep.Kept[0].Reason != prune.Locked {
		t.Errorf("%d removed, %d kept", rep.Receipts, len(rep.Kept))
	}
	f.Now = f.Now.Add(10 * day)
	receipt(t, f, 5, layout.ReceiptHost, "structure", record.Pass, "")
	if rep = run(t, f, opts); rep.Receipts != 39 || f.Store.Count(mem.Delete) < 39 {
		t.Errorf("%d removed", rep.Receipts)
	}
}

// TestProofOutlivesItsSnapshot: the receipt of a key stays when its snapshot is removed.
func TestProofOutlivesItsSnapshot(t *testing.T) {
	f := history(t)
	key := receipt(t, f, 2, layout.ReceiptHost, record.LevelKey, record.Pass, "")
	for range 5 {
		run(t, f, prune.Options{Decisions: keep(5), Receipts: true, Place: layout.ReceiptCloud})
		f.Now = f.Now.Add(20 * day)
	}
	wantThere(t, f, 5)
	if _, there := f.Store.Object(key); !there {
		t.Error(fmt.Sprint("the proof is gone: ", strings.Join(repotest.Keys(f.Store, "/receipts/"), "\n")))
	}
}
