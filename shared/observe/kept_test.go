package observe_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/recovery"
)

// TestKeptIsWritten: what is remembered of a snapshot outlasts the document.
func TestKeptIsWritten(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, p := range map[string]recovery.Point{
		"complete": {}, "partial": {Partial: true}, "unfinished": {Partial: true, Unfinished: true}, "verified": {Verified: true},
		"condemned": {Condemned: true}, "not consistent": {NotConsistent: true},
	} {
		p.Sequence, p.Arrived, p.Started, p.Finished = 7, at, at.Add(-time.Hour), at.Add(-time.Minute)
		want := observe.Kept{Snapshot: compliance.Snapshot{Point: p, Bytes: 5}, Manifest: "ab", Added: 3}
		body, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got observe.Kept
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(observe.Kept{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
