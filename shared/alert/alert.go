// Package alert turns states into messages. It does no I/O: a [Book] says what is open, [Book.Step] compares it with what
// is wrong now and returns the messages to send.
//
// What it promises, whatever the order of events:
//
//   - what is not met is told at once, once, and told to be over afterwards;
//   - many that are alike are one message, by cause and tier, with their number and the first ten;
//   - what stays open is repeated at an interval, unless somebody acknowledged it;
//   - what comes and goes is closed only after it stayed away for a while, for longer each time;
//   - acknowledgements and maintenance windows end by themselves.
//
// The book is a document: read it, step, write it with the messages in its outbox, send them, take them out. A crash
// between the last two sends a message again (its id is the same), it never loses one.
package alert

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Condition is what people are to be told, most often an objective that is not met, with what a message needs besides.
type Condition struct {
	compliance.State
	Tier    policy.Tier
	Reaches time.Time // newest state that can be restored; zero: none, or it does not matter here
}

// Open is an alert.
type Open struct {
	ID        string          `json:"id"`
	Source    string          `json:"source"`
	Objective string          `json:"objective"`
	Code      compliance.Code `json:"code"`
	Tier      policy.Tier     `json:"tier"`
	Since     time.Time       `json:"since"` // of the state, where it names a time; else when it was first seen
	Opened    time.Time       `json:"opened"`
	Told      time.Time       `json:"told,omitzero"` // newest message; zero: nobody was told, because of a maintenance window
	Gone      time.Time       `json:"gone,omitzero"` // since when it is not seen any more; zero: it is there
	Times     int             `json:"times"`         // how often it came within a day
	Cause     string          `json:"cause"`
	Next      string          `json:"next,omitempty"`
	Reaches   time.Time       `json:"reaches,omitzero"`
}

// past is what is remembered of a closed alert, to notice one that comes and goes.
type past struct {
	Closed time.Time `json:"closed"`
	Times  int       `json:"times"`
}

// Book is what is open and what was told. The zero value is an empty book.
type Book struct {
	Version int              `json:"version"`
	Open    map[string]*Open `json:"open,omitempty"` // by key
	Past    map[string]past  `json:"past,omitempty"` // by key
	Acks    []Ack            `json:"acks,omitempty"`
	Windows []Window         `json:"windows,omitempty"`
	Outbox  []Message        `json:"outbox,omitempty"` // made, and not yet known to be sent
	Digest  time.Time        `json:"digest,omitzero"`  // when the newest digest was made
	Weekly  time.Time        `json:"weekly,omitzero"`
}

// Version is the version of the document that this package writes.
const Version = 1

// Options are the intervals. Zero members have defaults.
type Options struct {
	Repeat  func(policy.Tier) time.Duration // between messages about what stays open; 0: never
	Settle  time.Duration                   // how long something must be away before it is over
	Runbook string                          // where the runbook is: an address or a path
}

// The defaults.
const (
	DefaultSettle  = 10 * time.Minute
	DefaultRunbook = "docs/runbook.md"
	// MostSettle bounds how long something that came and went again and again must stay away.
	MostSettle = 6 * time.Hour
	// remember is how long a closed alert is remembered.
	remember = 24 * time.Hour
)

// Repeat is the default of [Options.Repeat].
func Repeat(t policy.Tier) time.Duration {
	switch t {
	case policy.Critical:
		return 4 * time.Hour
	case policy.High:
		return 12 * time.Hour
	case policy.Standard:
		return 24 * time.Hour
	}
	return 3 * 24 * time.Hour
}

func (o Options) defaults() Options {
	if o.Repeat == nil {
		o.Repeat = Repeat
	}
	if o.Settle <= 0 {
		o.Settle = DefaultSettle
	}
	if o.Runbook == "" {
		o.Runbook = DefaultRunbook
	}
	return o
}

// key tells alerts apart. The cause's text is no part of it: that may change while the alert is the same.
func key(c *Condition) string {
	return c.Source + "|" + c.Objective + "|" + string(c.Code)
}

// Step brings the book up to date and returns the messages that it put into the outbox. seen says about which sources (or
// hosts) the conditions are complete: what is open about others stays as it is. A step that is repeated with the same
// conditions at the same time makes no message.
func (b *Book) Step(conditions []Condition, seen func(source string) bool, o Options, now time.Time) []Message {
	o = o.defaults()
	now = now.UTC()
	b.Version = Version
	b.expire(now)
	present := map[string]bool{}
	var made changes
	for i := range conditions {
		c := &conditions[i]
		k := key(c)
		if present[k] {
			continue
		}
		present[k] = true
		b.note(k, c, o, now, &made)
	}
	for _, k := range slices.Sorted(maps.Keys(b.Open)) {
		if open := b.Open[k]; !present[k] && seen(open.Source) {
			b.miss(k, open, o, now, &made)
		}
	}
	messages := made.messages(o, now)
	for i := range messages {
		b.put(messages[i])
	}
	return messages
}

// put puts a message into the outbox. Where messages can't be sent for long, repetitions and digests replace those before
// them: what opened and what is over is never dropped.
func (b *Book) put(m Message) {
	if m.Kind == Repeated || m.Kind == Digest {
		b.Outbox = slices.DeleteFunc(b.Outbox, func(old Message) bool {
			return old.Kind == m.Kind && old.Code == m.Code && old.Tier == m.Tier
		})
	}
	b.Outbox = append(b.Outbox, m)
}

// note enters a condition that is there.
func (b *Book) note(k string, c *Condition, o Options, now time.Time, made *changes) {
	open := b.Open[k]
	if open == nil {
		open = &Open{Source: c.Source, Objective: c.Objective, Code: c.Code, Opened: now, Times: b.Past[k].Times + 1, Since: now}
		open.ID = id(k, now)
		if b.Open == nil {
			b.Open = map[string]*Open{}
		}
		b.Open[k] = open
		delete(b.Past, k)
	}
	if !open.Gone.IsZero() {
		open.Gone = time.Time{} // it came back before it was told to be over: the same alert
		open.Times++
	}
	open.Tier, open.Cause, open.Next, open.Reaches = c.Tier, clean(c.Cause), c.Next, c.Reaches
	if !c.Since.IsZero() {
		open.Since = c.Since
	}
	every := o.Repeat(open.Tier)
	switch {
	case b.muted(open, now):
	case open.Told.IsZero():
		open.Told = now
		made.opened = append(made.opened, *open)
	case every > 0 && now.Sub(open.Told) >= every && !b.acknowledged(open, now):
		open.Told = now
		made.repeated = append(made.repeated, *open)
	}
}

// miss enters that an open alert is not seen any more, and closes it when it stayed away for long enough.
func (b *Book) miss(k string, open *Open, o Options, now time.Time, made *changes) {
	if open.Gone.IsZero() {
		open.Gone = now
	}
	if now.Sub(open.Gone) < settle(o.Settle, open.Times) {
		return
	}
	if !open.Told.IsZero() {
		made.closed = append(made.closed, *open)
	}
	delete(b.Open, k)
	if b.Past == nil {
		b.Past = map[string]past{}
	}
	b.Past[k] = past{Closed: now, Times: open.Times}
}

// settle is how long an alert that came so many times must be away: twice as long each time.
func settle(base time.Duration, times int) time.Duration {
	longest := max(base, MostSettle)
	for ; times > 1 && base < MostSettle; times-- {
		base *= 2
	}
	return min(base, longest)
}

// expire forgets what ended by itself.
func (b *Book) expire(now time.Time) {
	b.Acks = slices.DeleteFunc(b.Acks, func(a Ack) bool { return !now.Before(a.Until) })
	b.Windows = slices.DeleteFunc(b.Windows, func(w Window) bool { return !now.Before(w.Until) })
	maps.DeleteFunc(b.Past, func(_ string, p past) bool { return now.Sub(p.Closed) >= remember })
}

// Sent takes messages out of the outbox.
func (b *Book) Sent(ids ...string) {
	b.Outbox = slices.DeleteFunc(b.Outbox, func(m Message) bool { return slices.Contains(ids, m.ID) })
}

// List returns what is open: highest tier first, then by source.
func (b *Book) List() []Open {
	out := make([]Open, 0, len(b.Open))
	for _, open := range b.Open {
		out = append(out, *open)
	}
	slices.SortFunc(out, compareOpen)
	return out
}

func compareOpen(x, y Open) int {
	if d := rank(x.Tier) - rank(y.Tier); d != 0 {
		return d
	}
	if d := strings.Compare(x.Source, y.Source); d != 0 {
		return d
	}
	if d := strings.Compare(string(x.Code), string(y.Code)); d != 0 {
		return d
	}
	return strings.Compare(x.Objective, y.Objective)
}

// rank orders tiers, the highest first; what is unknown comes last.
func rank(t policy.Tier) int {
	tiers := []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}
	if i := slices.Index(tiers, t); i >= 0 {
		return i
	}
	return len(tiers)
}

func id(parts string, at time.Time) string {
	sum := sha256.Sum256([]byte(parts + "|" + at.Format(time.RFC3339Nano)))
	return hex.EncodeToString(sum[:8])
}
