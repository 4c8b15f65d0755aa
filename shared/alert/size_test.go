package alert_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// TestEverythingFails: that a whole fleet of 10,000 sources does not meet several objectives at once is when people must be
// told, so that the book of it must be one that can be written. One in twenty-five is made here.
func TestBookOfAllThatFails(t *testing.T) {
	const sources, share, objectives = 10_000, 25, 5
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tiers := []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}
	var all []alert.Condition
	for i := range sources / share {
		name := fmt.Sprintf("governance-%d/application-data", i)
		for n := range objectives {
			all = append(all, alert.Condition{Tier: tiers[i%len(tiers)], Reaches: now, State: compliance.State{
				Source: name, Objective: "verification", Code: compliance.Codes()[n], Breach: true, Since: now,
				Cause: "newest usable snapshot is @1234 with the state of 2026-03-01T12:00:00Z (rpo 1h); since then @1235 failed verification",
				Next:  "holdfast copy --to 's3://governance-backups-replica?region=eu-west-1' " + name,
			}})
		}
	}
	var b alert.Book
	b.Step(all, func(string) bool { return true }, alert.Options{}, now)
	size := func(v any) int {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return len(text)
	}
	messages := len(tiers) * objectives * alert.MostAlerts * size(b.List()[0]) // each as full as it can be
	if whole := share*size(b.Open) + messages; len(b.Outbox) != len(tiers)*objectives || whole > statestore.MaxDocument {
		t.Errorf("%d messages; the book has %d MiB, and a document at most %d", len(b.Outbox), whole>>20, statestore.MaxDocument>>20)
	} else {
		t.Logf("%d MiB", whole>>20)
	}
}
