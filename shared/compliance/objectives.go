package compliance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

func (e *evaluation) rollback() {
	var last uint64
	if n := len(e.f.Snapshots); n > 0 {
		last = e.f.Snapshots[n-1].Sequence
	}
	if n := len(e.f.Unreadable); n > 0 {
		last = max(last, e.f.Unreadable[n-1])
	}
	if e.f.LastSeen > last {
		e.add("history", Rollback, true, time.Time{},
			fmt.Sprintf("the repository ends at @%d, but @%d was seen before: snapshots were removed or an older state was put back", last, e.f.LastSeen),
			"holdfast snapshots "+e.name())
	}
}

// missing names snapshots that are gone and that nobody removed. It stays when later backups go on behind the gap.
func (e *evaluation) missing() {
	if len(e.f.Missing) == 0 {
		return
	}
	e.add("history", Rollback, true, time.Time{}, numbers(e.f.Missing)+
		" missing, and no record says that retention removed it: snapshots were removed or an older state was put back", e.repairFrom())
}

func (e *evaluation) unreadable() {
	if len(e.f.Unreadable) == 0 {
		return
	}
	e.add("verification", Damaged, true, time.Time{}, "the manifest can't be read: "+numbers(e.f.Unreadable), e.repairFrom())
}

// repairFrom puts back what a copy has: the first that can be looked at, or one that the user must know.
func (e *evaluation) repairFrom() string {
	for _, c := range e.f.Copies {
		if c.Error == "" {
			return fmt.Sprintf("holdfast repair --from %s %s", quote(c.Place), e.name())
		}
	}
	return "holdfast repair --from COPY " + e.name()
}

// quote quotes a word for a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// numbers names snapshots by their numbers, of many only the first.
func numbers(all []uint64) string {
	const most = 5
	var parts []string
	for i, n := range all {
		if i == most {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, fmt.Sprintf("@%d", n))
	}
	return strings.Join(parts, " ")
}

func (e *evaluation) run() {
	run := e.f.LastRun
	if run == nil {
		return
	}
	if run.Error == "" {
		e.add("run", OK, false, run.Time, "the last run went well", "")
		return
	}
	e.add("run", Failing, true, run.Time, "the last run failed: "+run.Error, "holdfast backup "+e.name())
}

func (e *evaluation) rpo() {
	backup := "holdfast backup " + e.name()
	s := e.newest((*Snapshot).usable)
	if s == nil { // a log restores nothing without one
		e.add("rpo", Late, true, e.f.Snapshots[0].Arrived, "no snapshot is usable: "+e.unusable(0), backup)
		return
	}
	point, what := s.state(), fmt.Sprintf("newest usable snapshot is @%d with the state of %s", s.Sequence, stamp(s.state()))
	if e.f.LogUntil.After(point) {
		point, what = e.f.LogUntil, "the log reaches to "+stamp(e.f.LogUntil)
	}
	what += fmt.Sprintf(" (rpo %s)", e.o.RPO)
	if e.now.Sub(point) <= e.o.RPO.Std() {
		e.add("rpo", OK, false, point, what, "")
		return
	}
	if why := e.unusable(s.Sequence); why != "" {
		what += "; since then " + why
	}
	e.add("rpo", Late, true, point.Add(e.o.RPO.Std()), what, backup)
}

// unusable says why the snapshots after a number do not count.
func (e *evaluation) unusable(after uint64) string {
	var parts []string
	for i := range e.f.Snapshots {
		s := &e.f.Snapshots[i]
		if s.Sequence <= after {
			continue
		}
		switch {
		case s.Condemned:
			parts = append(parts, fmt.Sprintf("@%d is announced for deletion", s.Sequence))
		case s.Damaged:
			parts = append(parts, fmt.Sprintf("@%d failed verification", s.Sequence))
		case s.Partial:
			parts = append(parts, fmt.Sprintf("@%d is partial", s.Sequence))
		case s.ClockOff():
			parts = append(parts, fmt.Sprintf("@%d has a wrong clock", s.Sequence))
		}
	}
	const most = 3
	if n := len(parts); n > most {
		// How many is not told: who remembers only some of the snapshots comes to the same text.
		parts = append(parts[n-most:], "and others before these")
	}
	return strings.Join(parts, ", ")
}

// gapDays is how far back gaps are reported; older ones can't be helped any more.
const gapDays = 7

func (e *evaluation) gap() {
	var last *Snapshot
	var gaps int
	var first time.Time
	var longest time.Duration
	for i := range e.f.Snapshots {
		s := &e.f.Snapshots[i]
		if !s.usable() {
			continue
		}
		// Where numbers are missing, retention thinned out: that is no gap of the backups.
		if last != nil && e.contiguous(last.Sequence, s.Sequence) && e.now.Sub(s.Arrived) < gapDays*24*time.Hour {
			if d := s.state().Sub(last.state()); d > e.o.RPO.Std() {
				gaps++
				longest = max(longest, d)
				if first.IsZero() {
					first = last.state()
				}
			}
		}
		last = s
	}
	if gaps > 0 && e.f.LogUntil.IsZero() {
		e.add("history", Gap, false, first, fmt.Sprintf("%s longer than the rpo %s in the last %d days, the longest of %s",
			plural(gaps, "gap"), e.o.RPO, gapDays, policy.Duration(longest).Rough()), "holdfast snapshots "+e.name())
	}
}

// contiguous reports whether no number between two snapshots is missing.
func (e *evaluation) contiguous(from, to uint64) bool {
	between := 0
	for i := range e.f.Snapshots {
		if q := e.f.Snapshots[i].Sequence; q > from && q <= to {
			between++
		}
	}
	return uint64(between) == to-from
}

func (e *evaluation) clock() {
	s := &e.f.Snapshots[len(e.f.Snapshots)-1]
	if !s.ClockOff() {
		return
	}
	e.add("clock", ClockOff, false, s.Arrived, fmt.Sprintf("@%d arrived at %s, but the host's clock said %s",
		s.Sequence, stamp(s.Arrived), stamp(s.Finished)), "timedatectl status")
}

func (e *evaluation) damaged() {
	var failed []uint64
	var since time.Time
	for i := range e.f.Snapshots {
		if s := &e.f.Snapshots[i]; s.Damaged && !s.Condemned {
			failed = append(failed, s.Sequence)
			if since.IsZero() {
				since = s.Arrived
			}
		}
	}
	if len(failed) == 0 {
		return
	}
	// Without a copy repair still reads again what is on record, and takes back what is in order; else a full backup
	// needs nothing of what is damaged.
	verify := " && holdfast verify --level content " + e.name()
	next := "holdfast repair " + e.name() + verify + " || holdfast backup --type full " + e.name()
	if len(e.f.Copies) > 0 {
		next = e.repairFrom() + verify
	}
	e.add("verification", Damaged, true, since, plural(len(failed), "snapshot")+" failed verification: "+numbers(failed), next)
}

// verification wants the newest verified snapshot to be young enough. A source whose newest snapshot is verified is
// fine however old that is (the RPO judges its age), and so is one that is younger than the objective.
func (e *evaluation) verification() {
	limit := e.o.Verify.Std()
	newest := e.newest(func(s *Snapshot) bool { return !s.Condemned })
	verified := e.newest(func(s *Snapshot) bool { return s.Verified && !s.Damaged && !s.Condemned })
	oldest := e.f.Snapshots[0].Arrived
	verify := "holdfast verify --level content " + e.name()
	switch {
	case verified != nil && (verified == newest || e.now.Sub(verified.Arrived) <= limit):
		e.add("verification", OK, false, verified.Arrived, fmt.Sprintf("@%d is verified", verified.Sequence), "")
	case e.now.Sub(oldest) <= limit:
		e.add("verification", OK, false, oldest, "nothing is verified yet; due by "+stamp(oldest.Add(limit)), verify)
	case verified == nil:
		e.add("verification", Unverified, true, oldest.Add(limit), "no snapshot was ever verified", verify)
	default:
		e.add("verification", Unverified, true, verified.Arrived.Add(limit),
			fmt.Sprintf("the newest verified snapshot is @%d of %s (verify %s)", verified.Sequence, stamp(verified.Arrived), e.o.Verify), verify)
	}
}

// deepSlack is by how much a verification of the agent may be late: it waits for its turn, and gives way to others.
const deepSlack = 24 * time.Hour

// deep wants the verifications that the policy asks of the agent to have been made in their time.
func (e *evaluation) deep() {
	for _, d := range e.f.Deep {
		next := fmt.Sprintf("holdfast verify --level %s %s", d.Level, e.name())
		if d.Level == "restore" {
			next = fmt.Sprintf("holdfast restore %s --to /var/tmp/drill", e.name())
		}
		since, what := d.Proven, fmt.Sprintf("last in order at level %s at %s (verification %s)", d.Level, stamp(d.Proven), policy.Duration(d.Within))
		if d.Proven.IsZero() || d.Proven.After(e.now.Add(deepSlack)) { // by a clock that was ahead: it would count for as long
			// A new source has the whole time for its first.
			since, what = e.f.Snapshots[0].Arrived, fmt.Sprintf("never verified at level %s (verification %s)", d.Level, policy.Duration(d.Within))
		}
		limit := d.Within + min(d.Within, deepSlack)
		if e.now.Sub(since) <= limit {
			e.add(d.Level, OK, false, since, what, "")
			continue
		}
		if d.Error != "" {
			what += ": " + d.Error
		}
		e.add(d.Level, Unverified, true, since.Add(limit), what, next)
	}
}

func (e *evaluation) protection() {
	if e.f.Protected {
		e.add("protection", OK, false, time.Time{}, "the host can't delete or overwrite its snapshots", "")
		return
	}
	// No breach: nothing measures it yet, and what could never be met would hide what can.
	e.add("protection", NotProtected, false, time.Time{}, "not protected from this host, as far as is known: who owns it may be able to destroy its snapshots",
		"holdfast copy --to 's3://BUCKET?region=REGION' "+e.name())
}

// logUnderWay is how long records of a log may be on their way to a copy, where the RPO is less: nobody copies within seconds.
const logUnderWay = 15 * time.Minute

func (e *evaluation) copies() {
	have, unseen := 1, 0
	for i := range e.f.Copies {
		c := &e.f.Copies[i]
		next := fmt.Sprintf("holdfast copy --to %s %s", quote(c.Place), e.name())
		switch {
		case c.Unseen:
			unseen++
			e.add("copies", CopyUnseen, false, time.Time{}, fmt.Sprintf("the control plane can't look at copy %s", c.Place), "holdfast status "+e.name())
			continue
		case c.Error != "":
			e.add("copies", CopyLate, true, time.Time{}, fmt.Sprintf("copy %s can't be looked at: %s", c.Place, c.Error), next)
			continue
		case c.Missing > 0 && e.now.Sub(c.Waiting) > e.o.RPO.Std():
			e.add("copies", CopyLate, true, c.Waiting.Add(e.o.RPO.Std()),
				fmt.Sprintf("copy %s lacks %s, the oldest from %s", c.Place, plural(c.Missing, "snapshot"), stamp(c.Waiting)), next)
			continue
		case !c.Log.IsZero() && e.now.Sub(c.Log) > max(e.o.RPO.Std(), logUnderWay):
			e.add("copies", CopyLate, true, c.Log.Add(max(e.o.RPO.Std(), logUnderWay)),
				fmt.Sprintf("copy %s lacks what the log has since %s", c.Place, stamp(c.Log)), next)
			continue
		}
		if !c.Dependent {
			have++
		}
	}
	what := fmt.Sprintf("%s of %d, the primary counted", plural(have, "place"), e.o.Copies)
	if have >= e.o.Copies {
		e.add("copies", OK, false, time.Time{}, what, "")
		return
	}
	if have+unseen >= e.o.Copies {
		return // as far as can be seen from here; the note above says so
	}
	if slices.ContainsFunc(e.f.Copies, func(c Copy) bool { return c.Dependent }) {
		what += "; a place does not count if whoever can delete the primary can delete it too"
	}
	e.add("copies", TooFewCopies, true, time.Time{}, what, "name a place elsewhere under repository.copies of the policy, then holdfast copy")
}

func (e *evaluation) size() {
	if e.o.MaxSize > 0 {
		e.sizeOf(e.o.MaxSize, e.f.Stored, "holdfast prune --dry-run "+e.name())
	}
}

func (e *evaluation) sizeOf(limit policy.Size, stored int64, next string) {
	if stored <= int64(limit) {
		e.add("size", OK, false, time.Time{}, fmt.Sprintf("within %s", limit), "")
		return
	}
	e.add("size", Oversized, true, time.Time{}, fmt.Sprintf("more than %s stored", limit), next)
}

func (e *evaluation) rto() {
	if e.o.RTO == 0 {
		return
	}
	r := e.f.Restored
	next := fmt.Sprintf("holdfast restore %s --to /var/tmp/drill", e.name())
	switch {
	case r == nil:
		e.add("rto", Unknown, true, time.Time{}, fmt.Sprintf("no restore was ever measured (rto %s)", e.o.RTO), next)
		return
	case r.Failed != "":
		e.add("rto", RestoreFailed, true, r.Time, "the last measured restore failed: "+r.Failed, next)
		return
	}
	today := e.f.Snapshots[len(e.f.Snapshots)-1].Bytes
	if s := e.newest((*Snapshot).usable); s != nil {
		today = s.Bytes
	}
	scaled := float64(r.Took)
	if r.Bytes > 0 {
		scaled *= float64(today) / float64(r.Bytes)
	}
	scaled += float64(e.f.Thaw)
	took := policy.Duration(min(scaled, float64(100*365*24*time.Hour)))
	what := fmt.Sprintf("a restore of today's size would take %s, after the one measured at %s (rto %s)", took.Rough(), stamp(r.Time), e.o.RTO)
	if took <= e.o.RTO {
		e.add("rto", OK, false, r.Time, what, "")
		return
	}
	e.add("rto", Slow, true, r.Time, what, next)
}

func (e *evaluation) keyCheck() {
	const next = "holdfast key check --identity FILE"
	limit := e.o.KeyCheck.Std()
	proven, what := e.f.KeyProven, "the offline identity was proven at "+stamp(e.f.KeyProven)
	if proven.IsZero() {
		// A new source has the whole time for the first proof.
		proven = e.f.Snapshots[0].Arrived
		what = "the offline identity was never proven"
	}
	due := proven.Add(limit)
	if e.now.After(due) {
		e.add("key_check", KeyUnchecked, true, due, fmt.Sprintf("%s (key_check %s)", what, e.o.KeyCheck), next)
		return
	}
	e.add("key_check", OK, false, e.f.KeyProven, what+"; due by "+stamp(due), "")
}

// usual compares the newest complete snapshot with the median of up to ten before it: half or double the size, or
// three times the duration (over a minute), is worth a look. It needs five to compare with.
func (e *evaluation) usual() {
	const fewest, most = 5, 10
	var bytes, took []float64
	var newest *Snapshot
	for i := len(e.f.Snapshots) - 1; i >= 0 && len(bytes) < most; i-- {
		s := &e.f.Snapshots[i]
		switch {
		case s.Partial:
		case newest == nil:
			newest = s
		default:
			bytes = append(bytes, float64(s.Bytes))
			took = append(took, float64(s.Finished.Sub(s.Started)))
		}
	}
	if len(bytes) < fewest {
		return
	}
	size, usual := float64(newest.Bytes), median(bytes)
	d, usualTook := newest.Finished.Sub(newest.Started), time.Duration(median(took))
	look := "holdfast diff " + e.name()
	switch {
	case usual > 0 && (size < usual/2 || size > usual*2):
		e.add("usual", Unusual, false, newest.Arrived, fmt.Sprintf("@%d holds %.3g %% of the usual bytes", newest.Sequence, 100*size/usual), look)
	case d > 3*usualTook && d > time.Minute:
		e.add("usual", Unusual, false, newest.Arrived, fmt.Sprintf("@%d took %s, usual is %s", newest.Sequence,
			policy.Duration(d).Rough(), policy.Duration(usualTook).Rough()), look)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
