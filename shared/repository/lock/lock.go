// Package lock keeps what retention keeps locked against deletion (S3 Object Lock), in steps: an object is locked for
// [Step] more whenever less than [Slack] is left. Locks can't be taken back, so they never reach far ahead; what nothing
// keeps any more is free after a step at most.
//
// [Gather] finds the objects of a source, [New] decides which of them to lock and which to hold (it does no I/O), and
// [Plan.Apply] does it. The [State] between passes is small JSON; where it is lost, everything is locked again, which costs
// requests and harms nothing.
//
// The bucket's default retention protects an object from its arrival on. A snapshot that has never passed a verification
// gets no more than that: nobody fills a store for a month with what nobody has looked at.
package lock

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// The times of [Rules].
const (
	Default = 14 * 24 * time.Hour // the bucket's default retention
	Slack   = 15 * 24 * time.Hour // with less than that left, an object is locked for longer; more than Default, so that the first pass does
	Step    = 30 * 24 * time.Hour // by which it is
)

// Rules say for how long objects are locked. Zero times stand for the constants.
type Rules struct {
	Mode    objstore.LockMode
	Default time.Duration
	Slack   time.Duration
	Step    time.Duration
}

// Object is one object and when it arrived, by the store's clock.
type Object struct {
	Key     string
	Arrived time.Time
}

// Records is the number of the snapshot to which objects belong that must stay as long as the source: records of removals.
const Records = 0

// Snapshot is what is to be known of a snapshot.
type Snapshot struct {
	Sequence uint64
	Arrived  time.Time
	Keep     bool  // retention keeps it
	Verified bool  // it passed a verification, of whatever level
	Held     bool  // legal hold
	Objects  []int // of the list that goes with it
}

// State is what is known from earlier passes. At and HeldAt are the newest arrivals, by the store's clock, when it became
// so: nothing is said of objects that arrived later.
type State struct {
	At        time.Time            `json:"at,omitzero"`         // of Snapshots
	Snapshots map[uint64]time.Time `json:"snapshots,omitempty"` // every object of the snapshot is locked at least until then
	HeldAt    time.Time            `json:"held_at,omitzero"`    // of Held; zero: At
	Held      []uint64             `json:"held,omitempty"`      // every object of the snapshot bears a legal hold
	Partial   *Partial             `json:"partial,omitempty"`
}

// Partial is a pass that was not done when its time was over. What the State beside it says is from before that pass, for
// it tells which objects the pass left alone: those that were locked at least until Enough.
type Partial struct {
	At        time.Time `json:"at"`
	Enough    time.Time `json:"enough,omitzero"`
	Until     time.Time `json:"until"`
	Through   string    `json:"through"`   // other objects of the snapshots up to this key are locked until Until
	Snapshots []uint64  `json:"snapshots"` // ascending
}

// Plan is what is to be done.
type Plan struct {
	Until   time.Time // for Extend
	Extend  []int     // objects to lock until then, in the order of their keys
	Hold    []int     // objects that get a legal hold
	Release []int     // objects whose legal hold ends

	objects []Object
	snaps   []Snapshot
	known   []time.Time // until when each object is sure to be locked
	state   State
	rules   Rules
	now     time.Time
	newest  time.Time
}

// New decides. objects are all that the snapshots name; newest is the newest arrival in the listing in which they were
// found, and now the present.
func New(objects []Object, snaps []Snapshot, state State, rules Rules, newest, now time.Time) *Plan {
	rules.Default = cmp.Or(rules.Default, Default)
	rules.Slack = cmp.Or(rules.Slack, Slack)
	rules.Step = cmp.Or(rules.Step, Step)
	p := &Plan{objects: objects, snaps: snaps, state: state, rules: rules, now: now, newest: newest, Until: now.Add(rules.Slack + rules.Step)}
	p.known = p.knownNow()
	chosen := make([]bool, len(objects))
	for i := range snaps {
		if !p.extends(&snaps[i]) {
			continue
		}
		for _, o := range snaps[i].Objects {
			if p.known[o].Before(now.Add(rules.Slack)) {
				chosen[o] = true
			}
		}
	}
	p.Extend = p.sorted(chosen)
	p.holds()
	return p
}

// extends reports whether the snapshot's objects are locked for longer. One that was once is as long as it is kept, also
// if a check fails later: what is left of it is worth no less.
func (p *Plan) extends(s *Snapshot) bool {
	_, before := p.state.Snapshots[s.Sequence]
	if part := p.state.Partial; part != nil {
		before = before || slices.Contains(part.Snapshots, s.Sequence)
	}
	return s.Keep && (s.Verified || s.Sequence == Records || before)
}

// knownNow says until when each object is sure to be locked, by the bucket's default and by earlier passes.
func (p *Plan) knownNow() []time.Time {
	known := make([]time.Time, len(p.objects))
	for i := range p.objects {
		known[i] = p.objects[i].Arrived.Add(p.rules.Default)
	}
	there := map[uint64]bool{}
	for i := range p.snaps {
		s := &p.snaps[i]
		there[s.Sequence] = true
		until, ok := p.state.Snapshots[s.Sequence]
		for _, o := range s.Objects {
			if ok && !p.objects[o].Arrived.After(p.state.At) && known[o].Before(until) {
				known[o] = until
			}
		}
	}
	for n := range p.state.Snapshots {
		if !there[n] {
			p.state.Partial = nil // what the pass left alone because of that snapshot can't be told any more
		}
	}
	p.goOn(known)
	return known
}

// goOn raises known for what a pass locked that did not come to its end.
func (p *Plan) goOn(known []time.Time) {
	part := p.state.Partial
	if part == nil {
		return
	}
	// Each object is judged by what was known before that pass, also where several snapshots have it.
	for i := range p.snaps {
		if !slices.Contains(part.Snapshots, p.snaps[i].Sequence) {
			continue
		}
		for _, o := range p.snaps[i].Objects {
			obj := &p.objects[o]
			if !obj.Arrived.After(part.At) && obj.Key <= part.Through && known[o].Before(part.Enough) {
				known[o] = part.Until
			}
		}
	}
}

// holds decides about legal holds: on what held snapshots have, off what only others had.
func (p *Plan) holds() {
	held, wanted := make([]bool, len(p.objects)), make([]bool, len(p.objects))
	at := p.state.heldAt()
	for i := range p.snaps {
		s := &p.snaps[i]
		before := slices.Contains(p.state.Held, s.Sequence)
		for _, o := range s.Objects {
			held[o] = held[o] || before && !p.objects[o].Arrived.After(at)
			wanted[o] = wanted[o] || s.Held
		}
	}
	on, off := make([]bool, len(p.objects)), make([]bool, len(p.objects))
	for o := range p.objects {
		on[o], off[o] = wanted[o] && !held[o], held[o] && !wanted[o]
	}
	p.Hold, p.Release = p.sorted(on), p.sorted(off)
}

func (s *State) heldAt() time.Time {
	if s.HeldAt.IsZero() {
		return s.At
	}
	return s.HeldAt
}

// sorted returns the chosen objects in the order of their keys.
func (p *Plan) sorted(chosen []bool) []int {
	var out []int
	for o, yes := range chosen {
		if yes {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Compare(p.objects[a].Key, p.objects[b].Key) })
	return out
}

// Done is what was done of a plan.
type Done struct {
	Extended int  // how many of Plan.Extend, from the first on, were tried
	Holds    bool // all of Hold and Release were done
	Failed   map[int]error
}

// Next is the state after what was done, for the next pass.
func (p *Plan) Next(d Done) State {
	complete := d.Extended == len(p.Extend)
	for _, o := range p.Extend[:d.Extended] {
		if d.Failed[o] == nil {
			p.known[o] = p.Until
		}
	}
	next := State{At: p.newest, Snapshots: map[uint64]time.Time{}, HeldAt: p.state.heldAt(), Held: slices.Clone(p.state.Held)}
	for i := range p.snaps {
		s := &p.snaps[i]
		if least, ok := p.least(s); ok && (p.extends(s) || !p.state.Snapshots[s.Sequence].IsZero()) {
			next.Snapshots[s.Sequence] = least
		}
	}
	if d.Holds {
		next.HeldAt, next.Held = p.newest, nil
		for i := range p.snaps {
			if p.snaps[i].Held {
				next.Held = append(next.Held, p.snaps[i].Sequence)
			}
		}
		slices.Sort(next.Held)
	}
	if !complete {
		next.At, next.Snapshots, next.Partial = p.state.At, maps.Clone(p.state.Snapshots), p.state.Partial
		if n := p.reached(d); n > 0 {
			next.Partial = p.partial(p.objects[p.Extend[n-1]].Key)
		}
	}
	return next
}

// reached is how many objects of Extend, from the first on, are locked without an exception.
func (p *Plan) reached(d Done) int {
	for i, o := range p.Extend[:d.Extended] {
		if d.Failed[o] != nil {
			return i
		}
	}
	return d.Extended
}

// partial remembers how far an unfinished pass came, and one before it that this pass has gone on with.
func (p *Plan) partial(through string) *Partial {
	part := &Partial{At: p.newest, Enough: p.now.Add(p.rules.Slack), Until: p.Until, Through: through}
	for i := range p.snaps {
		if p.extends(&p.snaps[i]) {
			part.Snapshots = append(part.Snapshots, p.snaps[i].Sequence)
		}
	}
	slices.Sort(part.Snapshots)
	if old := p.state.Partial; old != nil {
		part.At, part.Enough, part.Until = earlier(part.At, old.At), earlier(part.Enough, old.Enough), earlier(part.Until, old.Until)
		part.Snapshots = slices.DeleteFunc(part.Snapshots, func(n uint64) bool { return !slices.Contains(old.Snapshots, n) })
	}
	return part
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// least is until when all objects of a snapshot are sure to be locked.
func (p *Plan) least(s *Snapshot) (time.Time, bool) {
	var least time.Time
	for i, o := range s.Objects {
		if i == 0 || p.known[o].Before(least) {
			least = p.known[o]
		}
	}
	return least, len(s.Objects) > 0
}

// Protected is how long the least protected of the snapshots that retention keeps is locked, after [Plan.Next] was
// called, and how long it should be. A snapshot that arrived within the last day and was not checked yet does not count.
func (p *Plan) Protected() (sequence uint64, until, wanted time.Time, ok bool) {
	for i := range p.snaps {
		s := &p.snaps[i]
		if !s.Keep || s.Sequence == Records || !s.Verified && p.now.Sub(s.Arrived) < 24*time.Hour {
			continue
		}
		least, some := p.least(s)
		if some && (!ok || least.Before(until)) {
			sequence, until, ok = s.Sequence, least, true
		}
	}
	return sequence, until, p.now.Add(p.rules.Slack), ok
}

// UntilOf says until when each snapshot is locked, after [Plan.Next] was called.
func (p *Plan) UntilOf() map[uint64]time.Time {
	out := map[uint64]time.Time{}
	for i := range p.snaps {
		if least, ok := p.least(&p.snaps[i]); ok && p.snaps[i].Sequence != Records {
			out[p.snaps[i].Sequence] = least
		}
	}
	return out
}

// Keys returns the keys of the objects that the numbers stand for.
func (p *Plan) Keys(numbers []int) []string {
	out := make([]string, 0, len(numbers))
	for _, o := range numbers {
		out = append(out, p.objects[o].Key)
	}
	return out
}

// errs returns the failures in the order of keys.
func (d *Done) errs() []int { return slices.Sorted(maps.Keys(d.Failed)) }
