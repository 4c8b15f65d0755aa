package alert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Kind is what a message is about.
type Kind string

// The kinds of messages.
const (
	Opened   Kind = "opened"
	Repeated Kind = "repeated"
	Closed   Kind = "closed"
	Digest   Kind = "digest"
	Test     Kind = "test"
)

// Message is one message to people. Its text stands for itself: no link is needed to act on it.
type Message struct {
	ID      string          `json:"id"` // the same when it is sent again
	Kind    Kind            `json:"kind"`
	Code    compliance.Code `json:"code,omitempty"`
	Tier    policy.Tier     `json:"tier,omitempty"`
	Time    time.Time       `json:"time"`
	Subject string          `json:"subject"` // at most 100 characters, ASCII
	Text    string          `json:"text"`
	Count   int             `json:"count,omitempty"`  // alerts that it is about
	Alerts  []Open          `json:"alerts,omitempty"` // these, of very many the first
}

// The bounds of a message.
const (
	named      = 10 // alerts that are told one by one
	maxSubject = 100
	maxCause   = 600 // characters of one cause
	// MostAlerts is how many alerts a message carries one by one, so that a book in which everything fails at once can
	// still be written. All of them are in the book.
	MostAlerts = 1000
)

// changes is what a step found.
type changes struct {
	opened, repeated, closed []Open
}

// messages makes one message for each kind, cause and tier: highest tier first, the ends last.
func (c *changes) messages(o Options, now time.Time) []Message {
	var out []Message
	for _, part := range []struct {
		kind Kind
		all  []Open
	}{{Opened, c.opened}, {Repeated, c.repeated}, {Closed, c.closed}} {
		slices.SortFunc(part.all, func(x, y Open) int {
			if d := rank(x.Tier) - rank(y.Tier); d != 0 {
				return d
			}
			if d := strings.Compare(string(x.Code), string(y.Code)); d != 0 {
				return d
			}
			return compareOpen(x, y)
		})
		for len(part.all) > 0 {
			n := 1
			for n < len(part.all) && part.all[n].Code == part.all[0].Code && part.all[n].Tier == part.all[0].Tier {
				n++
			}
			out = append(out, message(part.kind, part.all[:n:n], o, now))
			part.all = part.all[n:]
		}
	}
	return out
}

func message(kind Kind, all []Open, o Options, now time.Time) Message {
	first := all[0]
	m := Message{Kind: kind, Code: first.Code, Tier: first.Tier, Time: now, Count: len(all), Alerts: all[:min(len(all), MostAlerts)]}
	m.ID = id(string(kind)+"|"+string(first.Code)+"|"+string(first.Tier)+"|"+first.Source, now)
	what := fmt.Sprintf("%d sources", len(all))
	if len(all) == 1 {
		what = first.Source
	}
	word := map[Kind]string{Opened: "not met", Repeated: "still not met", Closed: "over"}[kind]
	m.Subject = subject(fmt.Sprintf("[holdfast] %s %s: %s, %s", first.Tier, first.Code, what, word))
	var b strings.Builder
	fmt.Fprintf(&b, "%s, tier %s: %s, %s.\n", first.Code, first.Tier, what, word)
	for i := range all {
		if i == named {
			fmt.Fprintf(&b, "\nand %d more\n", len(all)-named)
			break
		}
		one(&b, kind, &all[i], now)
	}
	fmt.Fprintf(&b, "\nRunbook: %s#%s\n", o.Runbook, first.Code)
	m.Text = b.String()
	return m
}

// one tells one alert: what, since when, what is at risk, what to do.
func one(b *strings.Builder, kind Kind, open *Open, now time.Time) {
	fmt.Fprintf(b, "\n%s (%s)\n", open.Source, open.Objective)
	if kind == Closed {
		fmt.Fprintf(b, "  it was: %s\n  from %s to %s\n", clean(open.Cause), stamp(open.Since), stamp(open.Gone))
		return
	}
	fmt.Fprintf(b, "  %s\n  since %s\n", clean(open.Cause), stamp(open.Since))
	if !open.Reaches.IsZero() {
		fmt.Fprintf(b, "  data at risk: %d minutes (a restore gets back the state of %s)\n", int(now.Sub(open.Reaches).Minutes()), stamp(open.Reaches))
	} else if open.Code == compliance.Never {
		fmt.Fprintf(b, "  data at risk: all, nothing can be restored\n")
	}
	if open.Times > 2 {
		fmt.Fprintf(b, "  it came %d times within a day\n", open.Times)
	}
	if open.Next != "" {
		fmt.Fprintf(b, "  next: %s\n", open.Next)
	}
}

// subject makes a text that a mail's subject can be.
func subject(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxSubject {
		s = s[:maxSubject-3] + "..."
	}
	return s
}

// clean keeps a cause, which may quote what a host said, on one line and short.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > maxCause {
		s = string(runes[:maxCause]) + "…"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// TestMessage proves the way that messages go. by says who asked for it.
func TestMessage(by string, o Options, now time.Time) Message {
	o = o.defaults()
	if by == "" {
		by = "somebody"
	}
	return Message{
		ID: id("test|"+by, now), Kind: Test, Time: now.UTC(), Subject: "[holdfast] test of the alarms",
		Text: fmt.Sprintf("This is a test that %s asked for at %s. Nothing is wrong.\n\nWho reads this gets the alarms.\nRunbook: %s#test\n", clean(by), stamp(now), o.Runbook),
	}
}
