// Package schedule decides which backup of a source is due. It is pure: policy, history and time in, a run out. The
// function coordinate and the agent's built-in schedule both use it, and so agree on what is due and on its id.
//
// Use [Due] with the [History] of the source, and [History.Settle] when a run was done or given up.
//
// What Due promises: a run is due once; what was missed is made up once, not as often as it was missed; of several
// types that are due the fullest runs; asked again with the same history, the answer has the same id until the
// schedule fires again.
package schedule

import (
	"hash/fnv"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// maxJitter is the longest delay that a source has by default.
	maxJitter = 5 * time.Minute
	// leastTime is how long at least a run is worth beginning after it was asked for.
	leastTime = 15 * time.Minute
	// mostTime is how long at most. A host that comes back later makes up by itself what it missed.
	mostTime = 31 * 24 * time.Hour
	// future is by how much a history may be ahead of the clock before it is not believed.
	future = 10 * time.Minute
)

// History tells through which time runs of each type are settled: done or given up. The zero value is that of a source
// that was never backed up.
type History struct {
	Full         time.Time `json:"full,omitzero"`
	Differential time.Time `json:"differential,omitzero"`
	Incremental  time.Time `json:"incremental,omitzero"`
}

// Run is one run that is due.
type Run struct {
	ID       string                // of its job, the same whoever asks for it; see [events.JobID]
	Type     snapshot.SnapshotType // the fullest that is due
	Due      time.Time             // when the schedule fired
	Start    time.Time             // when it could begin: after the source's own delay, and outside of blackout windows
	NotAfter time.Time             // when the next run takes its place, and a month from now at the latest
}

// Settle returns the history after a run of the type, for the time due, was done or given up: a full settles what a
// differential and an incremental were due for. Settling what is settled changes nothing.
func (h History) Settle(t snapshot.SnapshotType, due time.Time) History {
	due = due.UTC()
	later := func(at *time.Time) {
		if due.After(*at) {
			*at = due
		}
	}
	switch t {
	case snapshot.Full:
		later(&h.Full)
		later(&h.Differential)
		later(&h.Incremental)
	case snapshot.Differential:
		later(&h.Differential)
		later(&h.Incremental)
	case snapshot.Incremental:
		later(&h.Incremental)
	}
	return h
}

// Done reports whether a run of the type that was due then is done: a snapshot of that type, or of a fuller one, began
// since, or was given up for it. What was at work when the run became due, and ended since, is none: it may have read
// before then what was changed before then.
func (h History) Done(t snapshot.SnapshotType, due time.Time) bool {
	at := h.Incremental
	switch t {
	case snapshot.Full:
		at = h.Full
	case snapshot.Differential:
		at = h.Differential
	case snapshot.Incremental:
	}
	return !at.IsZero() && !at.Before(due)
}

// Joined is what two parts of a history settle together.
func (h History) Joined(other History) History {
	return h.Settle(snapshot.Incremental, other.Incremental).Settle(snapshot.Differential, other.Differential).Settle(snapshot.Full, other.Full)
}

// Began is when the capture of a snapshot began, by the store's clock: its host's own may be wrong, the time between the
// begin that it states and its end is right. arrived is when the store received the manifest. It is what a snapshot
// settles runs through; see [History.Settle].
func Began(m *snapshot.Manifest, arrived time.Time) time.Time {
	return arrived.Add(-max(m.Finished.Sub(m.Started), 0))
}

// Sane returns the history without times that lie ahead of now: they stem from a clock that was wrong, and would put
// off all backups until it is right. What they settled counts as settled through now. Callers that keep a history keep
// what Sane returns.
func (h History) Sane(now time.Time) History {
	for _, at := range []*time.Time{&h.Full, &h.Differential, &h.Incremental} {
		if at.After(now.Add(future)) {
			*at = now.UTC()
		}
	}
	return h
}

// PolicyName is what ids of jobs call the policy: the address of its repository. It stays the same when the policy is
// edited, so that the same run keeps its id.
func PolicyName(p *policy.Policy) string { return p.Repository.Primary }

// Due returns the run of the source that is due at now, if one is, and otherwise the time at which to ask again; the
// zero time where nothing is scheduled. A source that is not in the policy is never due.
func Due(p *policy.Policy, source snapshot.Source, h History, now time.Time) (run Run, due bool, next time.Time) {
	s, err := p.Lookup(source.Host, source.Name)
	if err != nil {
		return Run{}, false, time.Time{}
	}
	sch := timetable{Schedule: s.Schedule, share: share(source)}
	now = now.UTC()
	h = h.Sane(now)
	t, fired, due := sch.owed(h, now)
	if !due {
		return Run{}, false, sch.nextStart(now)
	}
	start, open := sch.start(fired)
	if !open {
		return Run{}, false, time.Time{} // the policy is refused where it comes to this
	}
	if start.After(now) {
		return Run{}, false, start
	}
	if begins, open := sch.Open(now); !open || begins.After(now) {
		return Run{}, false, begins // a window began meanwhile
	}
	run = Run{Type: t, Due: fired, Start: start, NotAfter: earliest(sch.notAfter(fired, now), now.Add(mostTime))}
	run.ID = events.JobID(PolicyName(p), source.String(), fired, string(events.Backup), string(t))
	return run, true, time.Time{}
}

// timetable is the schedule of one source.
type timetable struct {
	policy.Schedule
	share float64 // of the jitter that is the source's own: 0 to 1
}

// types returns the schedules with their types, fullest first.
func (s timetable) types() [3]struct {
	snapshot.SnapshotType
	policy.Cron
} {
	return [3]struct {
		snapshot.SnapshotType
		policy.Cron
	}{{snapshot.Full, s.Full}, {snapshot.Differential, s.Differential}, {snapshot.Incremental, s.Incremental}}
}

// share derives from a source's name which part of the jitter is its own.
func share(source snapshot.Source) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(source.String()))
	x := h.Sum64()
	x ^= x >> 33 // similar names differ in few bits: mix them
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// owed returns the fullest type for which the schedule has fired since it was settled, and the latest time at which it
// fired and may have begun by now.
func (s timetable) owed(h History, now time.Time) (t snapshot.SnapshotType, fired time.Time, due bool) {
	// Where the source's delay has not passed since the schedule fired last, that time does not count yet. Delays are
	// far shorter than the time between two runs: one step back is enough.
	upto := now
	if last := s.last(time.Time{}, now); !last.IsZero() && last.Add(s.jitter(last)).After(now) {
		upto = last.Add(-time.Nanosecond)
	}
	through := [3]time.Time{h.Full, h.Differential, h.Incremental}
	for i, e := range s.types() {
		at := last(e.Cron, through[i], upto)
		if at.IsZero() {
			continue
		}
		if !due {
			t, due = e.SnapshotType, true
		}
		if at.After(fired) {
			fired = at
		}
	}
	return t, fired, due
}

// next returns when any type fires after t.
func (s timetable) next(t time.Time) time.Time {
	var first time.Time
	for _, e := range s.types() {
		if at := e.Next(t); !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first.UTC()
}

// last returns when any type fired last in (after, upto].
func (s timetable) last(after, upto time.Time) time.Time {
	var latest time.Time
	for _, e := range s.types() {
		if at := last(e.Cron, after, upto); at.After(latest) {
			latest = at
		}
	}
	return latest
}

// jitter returns the source's own delay after the schedule fired: a share of a tenth of the time to the next run, which
// the policy may bound otherwise.
func (s timetable) jitter(fired time.Time) time.Duration {
	longest := maxJitter
	if s.Jitter != nil {
		longest = s.Jitter.Std()
	}
	if next := s.next(fired); !next.IsZero() {
		longest = min(longest, next.Sub(fired)/10)
	}
	return time.Duration(s.share * float64(longest)).Truncate(time.Second)
}

// start returns when a run may begin for which the schedule fired; false: never.
func (s timetable) start(fired time.Time) (time.Time, bool) {
	jitter := s.jitter(fired)
	at := fired.Add(jitter)
	open, ok := s.Open(at)
	if !ok {
		return time.Time{}, false
	}
	if open.After(at) {
		// Those who waited for the same window to end do not all begin in the same second.
		if open, ok = s.Open(open.Add(jitter)); !ok {
			return time.Time{}, false
		}
	}
	return open.UTC(), true
}

// nextStart returns when a run can begin after now at the earliest; the zero time: never.
func (s timetable) nextStart(now time.Time) time.Time {
	from := s.last(time.Time{}, now) // whose delay may not have passed
	if from.IsZero() {
		from = s.next(now)
	}
	// The time that fired last, those within one jitter, and one more.
	for range 4 {
		if from.IsZero() {
			return from
		}
		if start, ok := s.start(from); ok && start.After(now) {
			return start
		}
		from = s.next(from)
	}
	return from
}

// notAfter returns when the next run takes the place of one that is asked for at now.
func (s timetable) notAfter(fired, now time.Time) time.Time {
	least := now.Add(leastTime)
	next := s.next(fired)
	if !next.After(now) { // made up late
		next = s.next(now)
	}
	if next.IsZero() {
		return now.Add(lookBack)
	}
	if begins, ok := s.start(next); ok && begins.After(least) {
		return begins
	}
	return least
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// lookBack is how far back a time at which a schedule fired is looked for: four years have every date.
const lookBack = 4*366*24*time.Hour + 24*time.Hour

// last returns the latest time in (after, upto] at which the schedule fired, or the zero time.
func last(c policy.Cron, after, upto time.Time) time.Time {
	if c.IsZero() || !after.Before(upto) {
		return time.Time{}
	}
	if oldest := upto.Add(-lookBack); after.Before(oldest) {
		after = oldest
	}
	// A cron schedule can only be asked forwards: look at a short time before, then at longer ones.
	var found time.Time
	for back := time.Hour; ; back *= 8 {
		from := upto.Add(-back)
		whole := !from.After(after)
		if whole {
			from = after
		}
		for at := c.Next(from); !at.IsZero() && !at.After(upto); at = c.Next(at) {
			found = at.UTC()
		}
		if !found.IsZero() || whole {
			return found
		}
	}
}
