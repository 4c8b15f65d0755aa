package observe_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// prove leaves a receipt of a proof, dated at.
func (w *watched) prove(t *testing.T, level, result string, at time.Time) {
	t.Helper()
	r := record.Receipt{Sequence: 1, Level: level, Result: result, Started: at, Finished: at}
	if err := w.Repo.PutDocument(t.Context(), layout.ReceiptKey(w.ID(1), layout.ReceiptHost, at, record.LevelKey), r); err != nil {
		t.Fatal(err)
	}
}

// TestKeyProof: the receipt of `key check` is seen by both ways of looking, says nothing of the snapshot's bytes, and does
// not count for longer than since it arrived.
func TestKeyProof(t *testing.T) {
	for _, large := range []bool{false, true} {
		w := &watched{Fixture: repotest.New(t), large: large}
		w.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, 1000)})
		w.look(t, false)
		want := func(at time.Time) {
			t.Helper()
			w.look(t, true)
			w.same(t)
			h, err := observe.Read(t.Context(), w.Repo, w.Source)
			if err != nil {
				t.Fatal(err)
			}
			if !h.KeyProven.Equal(at) || !w.m.Facts(w.Source).KeyProven.Equal(at) {
				t.Errorf("large %v: %s and %s, want %s", large, h.KeyProven, w.m.Facts(w.Source).KeyProven, at)
			}
			if len(h.Verified) != 0 && h.Verified[1] != nil || h.Checked[1] {
				t.Errorf("the proof passes for a verification: %+v", h.Verified[1])
			}
		}
		want(time.Time{})
		w.Now = w.Now.Add(time.Hour)
		first := w.Now
		w.prove(t, record.LevelKey, record.Pass, first)
		want(first)
		if _, gets := w.look(t, true); gets != 0 {
			t.Errorf("what was read is read again: %d", gets)
		}
		// None of these proves anything, and none hides what is proven.
		w.Now = w.Now.Add(time.Hour)
		w.prove(t, record.LevelKey, record.Fail, w.Now)
		w.prove(t, "bytes", record.Pass, w.Now.Add(time.Minute))
		w.Store.Tamper(layout.ReceiptKey(w.ID(1), layout.ReceiptHost, w.Now.Add(2*time.Minute), record.LevelKey), []byte("forged"))
		want(first)
		// By a clock that is ten years ahead.
		w.Now = w.Now.Add(time.Hour)
		w.prove(t, record.LevelKey, record.Pass, w.Now.Add(10*365*24*time.Hour))
		want(w.Now)
	}
}

// TestKeyProofJudged: monitor takes the receipt or what a person said, whichever is newer.
func TestKeyProofJudged(t *testing.T) {
	g := generate(t, 2, 0)
	g.Now = g.Now.Add(200 * 24 * time.Hour)
	unchecked := func(r observe.Rules) bool {
		t.Helper()
		p, f, _, _ := g.pass(t)
		judged, _ := f.Judge(p, r)
		for _, s := range judged[0].States {
			if s.Code == compliance.KeyUnchecked {
				return true
			}
		}
		return false
	}
	if !unchecked(observe.Rules{}) || unchecked(observe.Rules{KeyProven: g.Now.Add(-time.Hour)}) {
		t.Error("without a receipt it is what a person said")
	}
	id := snapshot.ID{Source: snapshot.Source{Host: "host-00000", Name: "db"}, Sequence: 1}
	r := record.Receipt{Sequence: 1, Level: record.LevelKey, Result: record.Pass, Started: g.Now, Finished: g.Now}
	if err := g.Repo.PutDocument(t.Context(), layout.ReceiptKey(id, layout.ReceiptHost, g.Now, record.LevelKey), r); err != nil {
		t.Fatal(err)
	}
	g.Now = g.Now.Add(25 * time.Hour)
	if unchecked(observe.Rules{KeyProven: g.Now.Add(-1000 * 24 * time.Hour)}) {
		t.Error("the receipt does not count")
	}
}
