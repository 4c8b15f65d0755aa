// Package retention decides which snapshots of a source are kept, with the reasons. It does no I/O and removes nothing:
// callers act on the [Decision]s.
//
// [Plan] applies the rules of a policy; [Record] makes shortened rules wait; [Guard] stops a run that would drop too
// much. A caller does, in this order: [Record.Update] with the policy's rules, [Record.Plan], [Guard], and only then
// announces (condemns) what is not kept.
//
// # Rules
//
// The rules are those of restic. Snapshots are looked at from the highest sequence number down: order is by sequence,
// never by clock. An hour, day, ISO week, month or year (in the rules' time zone) in which a snapshot arrived is a
// slot; "daily: 30" keeps one snapshot in each of the 30 newest days that have one. An hour that occurs twice when
// clocks are put back is two slots. As long as the store's clock does not jump back, carrying a plan out never changes
// what the next plan keeps.
//
//   - hourly and daily slots keep their newest snapshot;
//   - weekly, monthly and yearly slots keep their newest full snapshot, and the newest of any type if there is no full:
//     a full shares no pack with an earlier chain, so that keeping it keeps no other chain's packs alive, and the choice
//     does not move as the slot fills. It is one snapshot per slot, not both: shorter tiers keep the newest anyway.
//   - keep_within counts back from the newest snapshot's arrival, or from now if that is earlier: a source that is no
//     longer backed up does not lose its history to the calendar;
//   - keep_tags keeps snapshots with one of the tags; pins and legal holds always keep;
//   - no rules keep everything.
//
// # What never displaces what
//
// A snapshot that is not verified, or partial, or unfinished, must never be the reason that a verified, or complete, or
// finished, one goes. The rules are therefore applied to each of these sorts: to all snapshots, to the complete ones (not
// partial), to the finished ones, to the verified ones, and to those that are verified and complete, or finished. What any
// of them keeps is kept. So the verified snapshots that stay are at least those that would stay if the unverified ones did
// not exist. Where everything is verified and complete, the sorts are the same and nothing is kept twice.
//
// The newest snapshot of each of the sorts is kept whatever the rules say, and so is the full snapshot on which the
// newest one builds, because the next differential compares with it.
//
// Condemned snapshots (announced for deletion) are counted like any other: while one is there, rules that were made longer
// again, a pin or a hold still keep it; the caller must then withdraw the announcement. So a mistake can be undone until
// the removal.
package retention

import (
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Snapshot is what retention must know about a snapshot.
type Snapshot struct {
	Sequence   uint64
	Time       time.Time // arrival in the store; clocks of hosts are not trusted with deletions
	Type       snapshot.SnapshotType
	ChainStart uint64 // sequence of the full snapshot that the chain begins with
	Verified   bool   // passed a verification, and none that was newer failed
	Partial    bool   // lacks something that should be in it
	Unfinished bool   // stored by a run that was still at work; Partial as well
	Condemned  bool   // announced for deletion
	Pinned     bool
	Held       bool // legal hold
	Log        bool // holds a place in the source's log
	Tags       []string
}

// FromManifest gives what a manifest tells retention. Verified, Condemned, Pinned and Held are not in a manifest, and
// tags may be added by marks.
func FromManifest(m *snapshot.Manifest, arrived time.Time) Snapshot {
	return Snapshot{
		Sequence: m.Sequence, Time: arrived, Type: m.Type, ChainStart: m.ChainStart, Partial: m.Partial, Unfinished: m.Unfinished, Log: m.Log != nil, Tags: slices.Clone(m.Tags),
	}
}

// Decision says whether a snapshot is kept, and why.
type Decision struct {
	Sequence uint64   `json:"sequence"`
	Keep     bool     `json:"keep"`
	Reasons  []string `json:"reasons"` // never empty; "no rule keeps it" or "condemned" where Keep is false
	// Condemned repeats that the snapshot was announced for deletion.
	Condemned bool `json:"condemned,omitempty"`
}

// Plan decides about all snapshots of one source. The result is ordered by sequence. Sequence numbers must be distinct.
// An error means that the rules name an unknown time zone.
func Plan(snapshots []Snapshot, rules policy.Retention, now time.Time) ([]Decision, error) {
	zone, err := location(rules.TimeZone)
	if err != nil {
		return nil, err
	}
	p := &plan{rules: rules, zone: zone, now: now, given: map[uint64][]string{}, reasons: map[uint64][]string{}}
	p.snapshots = slices.Clone(snapshots)
	slices.SortFunc(p.snapshots, func(a, b Snapshot) int {
		switch {
		case a.Sequence > b.Sequence:
			return -1
		case a.Sequence < b.Sequence:
			return 1
		}
		return 0
	})
	p.marks()
	for _, c := range classes() {
		p.class(c)
	}
	p.base()
	p.logBase()
	return p.decisions(), nil
}

func location(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("plan retention: time zone %q: %w", name, err)
	}
	return zone, nil
}

// class is a sort of snapshots to which all rules are applied.
type class struct {
	name string // after a reason that only this class gives
	has  func(*Snapshot) bool
}

func classes() []class {
	return []class{
		{"", func(*Snapshot) bool { return true }},
		{"complete", func(s *Snapshot) bool { return !s.Partial }},
		{"verified", func(s *Snapshot) bool { return s.Verified }},
		{"verified, complete", func(s *Snapshot) bool { return s.Verified && !s.Partial }},
		// Where each snapshot is partial, as one file can never be read, these keep the last that a run has finished.
		{"finished", func(s *Snapshot) bool { return !s.Unfinished }},
		{"verified, finished", func(s *Snapshot) bool { return s.Verified && !s.Unfinished }},
	}
}

type plan struct {
	rules     policy.Retention
	zone      *time.Location
	now       time.Time
	snapshots []Snapshot          // newest first
	given     map[uint64][]string // reasons without the class that gave them
	reasons   map[uint64][]string
}

// keep adds a reason, once per snapshot whatever the class.
func (p *plan) keep(s *Snapshot, c class, reason string) {
	if slices.Contains(p.given[s.Sequence], reason) {
		return
	}
	p.given[s.Sequence] = append(p.given[s.Sequence], reason)
	if c.name != "" {
		reason += " (" + c.name + ")"
	}
	p.reasons[s.Sequence] = append(p.reasons[s.Sequence], reason)
}

func (p *plan) marks() {
	all := classes()[0]
	for i := range p.snapshots {
		s := &p.snapshots[i]
		if s.Pinned {
			p.keep(s, all, "pinned")
		}
		if s.Held {
			p.keep(s, all, "legal hold")
		}
	}
}

// class applies every rule to the live snapshots of one class.
func (p *plan) class(c class) {
	var in []*Snapshot
	for i := range p.snapshots {
		if c.has(&p.snapshots[i]) {
			in = append(in, &p.snapshots[i])
		}
	}
	if len(in) == 0 {
		return
	}
	p.keep(in[0], c, "newest")
	if p.rules.Empty() {
		for _, s := range in {
			p.keep(s, c, "no rules: everything is kept")
		}
		return
	}
	for i := 0; i < len(in) && i < p.rules.KeepLast; i++ {
		p.keep(in[i], c, fmt.Sprintf("last %d", p.rules.KeepLast))
	}
	p.within(in, c)
	for _, t := range p.tiers() {
		p.tier(in, c, t)
	}
	for _, s := range in {
		for _, tag := range p.rules.KeepTags {
			if slices.Contains(s.Tags, tag) {
				p.keep(s, c, "tag "+tag)
			}
		}
	}
}

func (p *plan) within(in []*Snapshot, c class) {
	if p.rules.KeepWithin <= 0 {
		return
	}
	from := in[0].Time
	if p.now.Before(from) {
		from = p.now
	}
	from = from.Add(-p.rules.KeepWithin.Std())
	for _, s := range in {
		if !s.Time.Before(from) {
			p.keep(s, c, "within "+p.rules.KeepWithin.String())
		}
	}
}

// tier is one of the rules that keep a snapshot per slot.
type tier struct {
	name  string
	count int
	slot  func(time.Time) string
	fulls bool // a full snapshot fills the slot before others
}

func (p *plan) tiers() []tier {
	layout := func(l string) func(time.Time) string {
		return func(t time.Time) string { return t.In(p.zone).Format(l) }
	}
	week := func(t time.Time) string {
		year, w := t.In(p.zone).ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, w)
	}
	return []tier{
		{"hourly", p.rules.Hourly, layout("2006-01-02 15h -07:00"), false},
		{"daily", p.rules.Daily, layout("2006-01-02"), false},
		{"weekly", p.rules.Weekly, week, true},
		{"monthly", p.rules.Monthly, layout("2006-01"), true},
		{"yearly", p.rules.Yearly, layout("2006"), true},
	}
}

func (p *plan) tier(in []*Snapshot, c class, t tier) {
	if t.count == 0 {
		return
	}
	fill := map[string]*Snapshot{}
	for _, s := range in {
		slot := t.slot(s.Time)
		held, met := fill[slot]
		if !met || (t.fulls && s.Type == snapshot.Full && held.Type != snapshot.Full) {
			fill[slot] = s
		}
	}
	// The newest slots are those that the highest numbers fill: a clock that jumped ahead must not push the present out.
	kept := 0
	for _, s := range in {
		if slot := t.slot(s.Time); fill[slot] == s && kept < t.count {
			p.keep(s, c, t.name+" "+slot)
			kept++
		}
	}
}

// base keeps the full snapshot of the running chain.
func (p *plan) base() {
	if len(p.snapshots) == 0 {
		return
	}
	start := p.snapshots[0].ChainStart
	for i := range p.snapshots {
		if s := &p.snapshots[i]; s.Sequence == start && i > 0 {
			p.keep(s, classes()[0], "full of the running chain")
		}
	}
}

func (p *plan) decisions() []Decision {
	out := make([]Decision, 0, len(p.snapshots))
	for i := len(p.snapshots) - 1; i >= 0; i-- {
		s := p.snapshots[i]
		d := Decision{Sequence: s.Sequence, Reasons: p.reasons[s.Sequence], Condemned: s.Condemned}
		switch d.Keep = len(d.Reasons) > 0; {
		case d.Keep:
		case s.Condemned:
			d.Reasons = []string{"condemned"}
		default:
			d.Reasons = []string{"no rule keeps it"}
		}
		out = append(out, d)
	}
	return out
}
