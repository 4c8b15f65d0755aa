package observe_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// verified leaves a receipt of the host about a snapshot.
func (w *watched) verified(t *testing.T, n uint64, level, result, sample string) {
	t.Helper()
	m, err := w.Repo.Manifest(t.Context(), w.ID(n))
	if err != nil {
		t.Fatal(err)
	}
	r := record.Receipt{Sequence: n, Manifest: m.Hash.String(), Level: level, Result: result, Sample: sample, Started: w.Now, Finished: w.Now}
	if err := w.Repo.PutDocument(t.Context(), layout.ReceiptKey(w.ID(n), layout.ReceiptHost, w.Now, level), r); err != nil {
		t.Fatal(err)
	}
}

// TestProofs: what the receipts of a host say of its verifications, to who asks for them and to who judges.
func TestProofs(t *testing.T) {
	for _, large := range []bool{false, true} {
		w := &watched{Fixture: repotest.New(t), large: large}
		for n := range uint64(3) {
			w.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(n, 1000)})
			w.Now = w.Now.Add(time.Hour)
		}
		proofs := func(want schedule.Proofs) {
			t.Helper()
			got, err := observe.Proofs(t.Context(), w.Repo, w.Source)
			if err != nil || got != want {
				t.Errorf("large %v: %+v, %v, want %+v", large, got, err, want)
			}
		}
		judged := func(content, restore time.Time) {
			t.Helper()
			w.look(t, true)
			h, err := observe.Read(t.Context(), w.Repo, w.Source)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range h.Deep(policy.Verification{Content: policy.Duration(time.Hour), Restore: policy.Duration(time.Hour)}) {
				want := map[string]time.Time{schedule.Content: content, schedule.Restore: restore}[d.Level]
				if !d.Proven.Equal(want) {
					t.Errorf("large %v: %s proven at %s, want %s", large, d.Level, d.Proven, want)
				}
			}
			if !w.m.Deep.Content.At.Equal(content) || !w.m.Deep.Restore.At.Equal(restore) {
				t.Errorf("large %v: remembered %+v", large, w.m.Deep)
			}
		}
		w.look(t, true)
		proofs(schedule.Proofs{})
		judged(time.Time{}, time.Time{})
		// A sample, another level, and what is not signed prove nothing.
		w.verified(t, 3, "content", record.Pass, "1/30")
		w.verified(t, 3, "bytes", record.Pass, "")
		w.Store.Tamper(layout.ReceiptKey(w.ID(3), layout.ReceiptHost, w.Now.Add(time.Minute), "content"), []byte("forged"))
		proofs(schedule.Proofs{})
		judged(time.Time{}, time.Time{})
		w.Now = w.Now.Add(time.Hour)
		first := w.Now.UTC()
		for n := range uint64(3) {
			w.verified(t, n+1, "content", record.Pass, "")
		}
		w.verified(t, 3, "restore", record.Pass, "")
		want := schedule.Proofs{Content: schedule.Proof{At: first}, Restore: schedule.Proof{At: first}}
		proofs(want)
		judged(first, first)
		// One that finds damage is a verification, and proves nothing.
		w.Now = w.Now.Add(time.Hour)
		w.verified(t, 3, "content", record.Fail, "")
		want.Content = schedule.Proof{At: w.Now.UTC(), Failed: true}
		proofs(want)
		judged(first, first)
		// An older snapshot alone is not the source.
		w.Now = w.Now.Add(time.Hour)
		w.verified(t, 1, "content", record.Pass, "")
		proofs(want)
		judged(first, first)
	}
}
