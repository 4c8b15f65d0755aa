package alert_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func start() time.Time { return time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC) } // a Monday

func condition(source string, code compliance.Code, tier policy.Tier) alert.Condition {
	return alert.Condition{
		State: compliance.State{Source: source, Objective: "rpo", Code: code, Breach: true, Since: start().Add(-time.Hour), Cause: "newest usable snapshot is @3", Next: "holdfast backup " + source},
		Tier:  tier, Reaches: start().Add(-2 * time.Hour),
	}
}

func all(string) bool { return true }

// reopened is the book after it was written down and read again.
func reopened(t testing.TB, b *alert.Book) *alert.Book {
	t.Helper()
	body, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	out := &alert.Book{}
	if err := json.Unmarshal(body, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func kinds(messages []alert.Message) []string {
	var out []string
	for _, m := range messages {
		out = append(out, fmt.Sprintf("%s %s %s %d", m.Kind, m.Code, m.Tier, len(m.Alerts)))
	}
	return out
}

func TestLife(t *testing.T) {
	b := &alert.Book{}
	now := start()
	step := func(want []string, conditions ...alert.Condition) []alert.Message {
		t.Helper()
		got := b.Step(conditions, all, alert.Options{}, now)
		if diff := cmp.Diff(want, kinds(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", now, diff)
		}
		if again := b.Step(conditions, all, alert.Options{}, now); len(again) != 0 {
			t.Errorf("%s: told again: %v", now, kinds(again))
		}
		b = reopened(t, b)
		return got
	}
	late := condition("h/db", compliance.Late, policy.Critical)
	step(nil)
	got := step([]string{"opened late critical 1"}, late)
	for _, want := range []string{"h/db", "newest usable snapshot is @3", "since 2026-11-23T08:00:00Z", "data at risk: 120 minutes", "next: holdfast backup h/db", "docs/runbook.md#late"} {
		if !strings.Contains(got[0].Text, want) {
			t.Errorf("%q is not in:\n%s", want, got[0].Text)
		}
	}
	now = now.Add(3 * time.Hour)
	step(nil, late)
	now = now.Add(time.Hour)
	step([]string{"repeated late critical 1"}, late)
	now = now.Add(time.Minute)
	step(nil)
	now = now.Add(5 * time.Minute)
	step(nil, late) // it came back: nothing to tell
	now = now.Add(time.Minute)
	step(nil)
	now = now.Add(19 * time.Minute)
	step(nil) // away for longer than the first time would have asked for
	now = now.Add(time.Minute)
	step([]string{"closed late critical 1"})
	now = now.Add(time.Minute)
	step([]string{"opened late critical 1"}, late) // a new alert: it is told whatever was before
	if open := b.List(); len(open) != 1 || open[0].Times != 3 {
		t.Errorf("%+v", open)
	}
}

func TestManyAreOneMessage(t *testing.T) {
	b := &alert.Book{}
	var conditions []alert.Condition
	for i := range 25 {
		conditions = append(conditions, condition(fmt.Sprintf("h%02d/db", i), compliance.Late, policy.High))
	}
	conditions = append(conditions, condition("x/db", compliance.Late, policy.Critical), condition("x/db", compliance.Failing, policy.Critical))
	got := b.Step(conditions, all, alert.Options{Runbook: "https://example.org/runbook"}, start())
	if diff := cmp.Diff([]string{"opened failing critical 1", "opened late critical 1", "opened late high 25"}, kinds(got)); diff != "" {
		t.Fatal(diff)
	}
	text := got[2].Text
	for _, want := range []string{"25 sources", "h00/db", "h09/db", "and 15 more", "https://example.org/runbook#late"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "h10/db") {
		t.Error("more than ten are told")
	}
	// What nobody looked at stays open.
	if got := b.Step(nil, func(source string) bool { return source == "x/db" }, alert.Options{}, start().Add(time.Hour)); len(got) != 0 {
		t.Errorf("%v", kinds(got))
	}
	if got := b.Step(nil, func(source string) bool { return source == "x/db" }, alert.Options{}, start().Add(2*time.Hour)); len(got) != 2 || len(b.Open) != 25 {
		t.Errorf("%v, %d open", kinds(got), len(b.Open))
	}
	if len(b.Outbox) != 5 {
		t.Errorf("%d messages in the outbox", len(b.Outbox))
	}
	b.Sent(b.Outbox[0].ID, b.Outbox[1].ID)
	if len(b.Outbox) != 3 {
		t.Errorf("%d messages in the outbox", len(b.Outbox))
	}
}

func TestQuiet(t *testing.T) {
	b := &alert.Book{}
	now := start()
	late := condition("h/db", compliance.Late, policy.Critical)
	if err := b.Maintain(alert.Window{Pattern: alert.Pattern{Source: "h"}, By: "ops", Until: now.Add(time.Hour)}, now); err != nil {
		t.Fatal(err)
	}
	if got := b.Step([]alert.Condition{late, condition("g/db", compliance.Late, policy.Critical)}, all, alert.Options{}, now); len(got) != 1 || len(got[0].Alerts) != 1 {
		t.Errorf("in a window: %v", kinds(got))
	}
	now = now.Add(time.Hour)
	if got := b.Step([]alert.Condition{late}, all, alert.Options{}, now); len(got) != 1 || got[0].Kind != alert.Opened {
		t.Errorf("after the window: %v", kinds(got))
	}
	if err := b.Acknowledge(alert.Ack{Pattern: alert.Pattern{Source: "h/*", Code: compliance.Late}, By: "ops", Until: now.Add(24 * time.Hour)}, now); err != nil {
		t.Fatal(err)
	}
	now = now.Add(23 * time.Hour)
	for _, m := range b.Step([]alert.Condition{late}, all, alert.Options{}, now) {
		if m.Kind != alert.Closed {
			t.Errorf("acknowledged: %v", m)
		}
	}
	now = now.Add(time.Hour)
	if got := b.Step([]alert.Condition{late}, all, alert.Options{}, now); len(got) != 1 || got[0].Kind != alert.Repeated {
		t.Errorf("after the acknowledgement: %v", kinds(got))
	}
	// What was never told is not told to be over.
	if err := b.Maintain(alert.Window{By: "ops", Until: now.Add(time.Hour)}, now); err != nil {
		t.Fatal(err)
	}
	b.Step([]alert.Condition{late, condition("h/new", compliance.Never, policy.Low)}, all, alert.Options{}, now)
	b.Step([]alert.Condition{late}, all, alert.Options{}, now.Add(30*time.Minute))
	if got := b.Step([]alert.Condition{late}, all, alert.Options{}, now.Add(45*time.Minute)); len(got) != 0 || len(b.Open) != 1 {
		t.Errorf("%v", kinds(got))
	}
	for _, w := range []alert.Window{
		{By: "", Until: now.Add(time.Hour)},
		{By: "x", Until: now.Add(-time.Hour)},
		{By: "x", Until: now.Add(9 * 24 * time.Hour)},
		{By: "x", Until: now.Add(time.Hour), Pattern: alert.Pattern{Source: "["}},
	} {
		if err := b.Maintain(w, now); err == nil {
			t.Errorf("accepted %+v", w)
		}
	}
	for _, a := range []alert.Ack{{Until: now.Add(time.Hour)}, {By: "x", Until: now}, {By: "x", Until: now.Add(31 * 24 * time.Hour)}} {
		if err := b.Acknowledge(a, now); err == nil {
			t.Errorf("accepted %+v", a)
		}
	}
}

var first = flag.Uint64("seed", 1, "seed of the dice; 0: another one each time")

// TestPromises throws dice and holds the book to what the package says: an opening is told in the step in which it is
// seen, never twice, repeated no sooner than the interval, closed once, and closed at last when all is well.
func TestPromises(t *testing.T) {
	seed := *first
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	tiers := []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}
	codes := []compliance.Code{compliance.Late, compliance.Failing, compliance.Never}
	for range 50 {
		b := &alert.Book{}
		now := start()
		truth := map[string]alert.Condition{} // what is wrong
		told := map[string]time.Time{}        // what people know, and when they heard of it last
		var pool []alert.Condition
		for i := range 12 {
			pool = append(pool, condition(fmt.Sprintf("h%d/s", i), codes[dice.IntN(3)], tiers[dice.IntN(4)]))
		}
		check := func(messages []alert.Message) {
			t.Helper()
			for _, m := range messages {
				for _, a := range m.Alerts {
					last, known := told[a.Source]
					switch {
					case m.Kind == alert.Opened && known:
						t.Fatalf("seed %d: %s told twice", seed, a.Source)
					case m.Kind == alert.Repeated && (!known || now.Sub(last) < alert.Repeat(a.Tier)):
						t.Fatalf("seed %d: %s repeated after %s", seed, a.Source, now.Sub(last))
					case m.Kind == alert.Closed && !known:
						t.Fatalf("seed %d: %s is over and was never told", seed, a.Source)
					case m.Kind == alert.Closed:
						delete(told, a.Source)
						continue
					}
					told[a.Source] = now
				}
			}
			for source := range truth {
				if _, known := told[source]; !known {
					t.Fatalf("seed %d: nobody was told of %s", seed, source)
				}
			}
		}
		for range 200 {
			now = now.Add(time.Duration(dice.IntN(120)) * time.Minute)
			c := pool[dice.IntN(len(pool))]
			if _, ok := truth[c.Source]; ok {
				delete(truth, c.Source)
			} else {
				truth[c.Source] = c
			}
			messages := b.Step(slices.Collect(maps.Values(truth)), all, alert.Options{}, now)
			check(messages)
			for _, m := range messages {
				b.Sent(m.ID)
			}
			if len(b.Outbox) != 0 {
				t.Fatalf("seed %d: %d messages are left in the outbox", seed, len(b.Outbox))
			}
			b = reopened(t, b)
		}
		clear(truth)
		for range 20 {
			now = now.Add(30 * time.Minute)
			check(b.Step(nil, all, alert.Options{}, now))
		}
		if len(told) != 0 || len(b.Open) != 0 {
			t.Fatalf("seed %d: never closed: %v", seed, told)
		}
		b.Step(nil, all, alert.Options{}, now.Add(48*time.Hour))
		if len(b.Past) != 0 {
			t.Fatalf("seed %d: %d closed alerts are remembered for ever", seed, len(b.Past))
		}
	}
}

// TestEverythingFails: a book in which everything is wrong at once can be written, and one message tells it.
func TestEverythingFails(t *testing.T) {
	b := &alert.Book{}
	var conditions []alert.Condition
	for i := range 10_000 {
		c := condition(fmt.Sprintf("host-%05d/governance-db", i), compliance.Failing, policy.Critical)
		c.Cause = strings.Repeat("x", 5000)
		conditions = append(conditions, c, condition(c.Source, compliance.Late, policy.Critical))
	}
	got := b.Step(conditions, all, alert.Options{}, start())
	if len(got) != 2 || got[0].Count != 10_000 || len(got[0].Alerts) != alert.MostAlerts || !strings.Contains(got[0].Text, "and 9990 more") {
		t.Errorf("%v", kinds(got))
	}
	if body, err := json.Marshal(b); err != nil || len(body) > 16<<20 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestHostileText(t *testing.T) {
	b := &alert.Book{}
	c := condition("h/db", compliance.Failing, policy.Critical)
	c.Cause = "read /x\nnext: rm -rf /\x1b[2J " + strings.Repeat("é", 5000)
	m := b.Step([]alert.Condition{c}, all, alert.Options{}, start())[0]
	if len(m.Text) > 3000 || strings.Contains(m.Text, "\x1b") || strings.Contains(m.Text, "\nnext: rm") {
		t.Errorf("%q", m.Text)
	}
	for _, r := range m.Subject {
		if r > '~' || r < ' ' || len(m.Subject) > 100 {
			t.Errorf("%q", m.Subject)
		}
	}
}

func TestDigest(t *testing.T) {
	b := &alert.Book{}
	late := condition("h/db", compliance.Late, policy.Critical)
	b.Step([]alert.Condition{late}, all, alert.Options{}, start())
	if _, due := b.DigestDue(10, start()); due {
		t.Error("due before its hour")
	}
	now := start().Add(time.Hour)
	period, due := b.DigestDue(10, now)
	if !due || period != alert.Weekly {
		t.Errorf("on a Monday: %v %v", period, due)
	}
	sums := []alert.Summary{
		{Source: "h/db", Tier: policy.Critical, Stored: 3 << 30, Growth: 1 << 20, States: []compliance.State{late.State, {Source: "h/db", Code: compliance.Unusual, Cause: "@3 holds 40 %"}}},
		{Source: "h/etc", Tier: policy.Low, Stored: 1 << 20, States: []compliance.State{{Source: "h/etc", Code: compliance.OK}}},
	}
	m := b.AddDigest(period, sums, alert.Options{}, now)
	for _, want := range []string{"2 sources, 1 not met; 3 GiB stored; 1 alerts open", "critical: 1 sources, 1 not met", "h/db late since", "unusual: h/db", "h/db: 1 MiB a day"} {
		if !strings.Contains(m.Text, want) {
			t.Errorf("%q is not in:\n%s", want, m.Text)
		}
	}
	if _, due := b.DigestDue(10, now.Add(time.Hour)); due {
		t.Error("due twice")
	}
	if period, due := b.DigestDue(10, now.Add(24*time.Hour)); !due || period != alert.Daily {
		t.Errorf("on Tuesday: %v %v", period, due)
	}
	if got := alert.TestMessage("ops", alert.Options{}, now); got.Kind != alert.Test || !strings.Contains(got.Text, "ops") {
		t.Errorf("%+v", got)
	}
}
