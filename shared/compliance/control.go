package compliance

import (
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What only a control plane observes: jobs, receipts, locks and agents.

// Agent is what is known about the agent of one host.
type Agent struct {
	Heard  time.Time     // last event or heartbeat; zero: never
	Known  time.Time     // since when the host is expected to answer
	Within time.Duration // it is silent when it was not heard for longer

	Problem string    // why no job can reach it; empty: none
	Since   time.Time // of the problem
	Refused []Refused // messages that the agent took for no job of ours, newest first

	Mend   string    // what a person must mend on the host, as the agent says; empty: nothing
	Broken time.Time // since when
}

// Refused is a message that an agent refused.
type Refused struct {
	Time   time.Time `json:"time"`
	Code   string    `json:"code"`
	Reason string    `json:"reason,omitempty"`
}

// refusedFor is how long a refused message is told.
const refusedFor = 24 * time.Hour

// EvaluateAgent judges whether the agent of a host was heard in time, and what it was sent.
func EvaluateAgent(host string, a Agent, now time.Time) []State {
	e := &evaluation{f: Facts{Source: snapshot.Source{Host: host}}}
	if a.Problem != "" {
		e.add("jobs", JobLost, true, a.Since, "no job reaches the host: "+a.Problem, "holdfast host add "+host)
	}
	if a.Mend != "" {
		e.add("agent", AgentBroken, true, a.Broken, "the agent says: "+a.Mend, "holdfast agent status")
	}
	if n := len(a.Refused); n > 0 && now.Sub(a.Refused[0].Time) < refusedFor {
		r := a.Refused[0]
		e.add("jobs", JobRefused, true, r.Time, fmt.Sprintf("the agent refused a message as %s: %s", r.Code, r.Reason), "journalctl -u holdfast-agent --since -1d")
	}
	heard, what := a.Heard, "the agent was last heard at "+stamp(a.Heard)
	if heard.IsZero() {
		heard, what = a.Known, "the agent was never heard"
	}
	if now.Sub(heard) > a.Within {
		// The agent backs up by its own schedule when it hears nothing: silence is no proof of a missed backup.
		e.add("agent", HostSilent, true, heard.Add(a.Within), what, "systemctl status holdfast-agent")
		return e.states
	}
	if a.Heard.IsZero() {
		what = "the agent was not heard yet; due by " + stamp(heard.Add(a.Within))
		e.add("agent", OK, false, time.Time{}, what, "")
		return e.states
	}
	e.add("agent", OK, false, time.Time{}, "the agent is heard", "")
	return e.states
}

// Reaches is the newest state to which the source can be restored, by the store's clock: what came after it is lost if
// the host is. It is zero if there is none: a log restores nothing without a snapshot.
func Reaches(f *Facts) time.Time {
	var point time.Time
	for i := len(f.Snapshots) - 1; i >= 0; i-- {
		if s := &f.Snapshots[i]; s.usable() {
			point = s.state()
			break
		}
	}
	if !point.IsZero() && f.LogUntil.After(point) {
		point = f.LogUntil
	}
	return point
}

// looked wants somebody to have looked within the RPO (an hour at least): what nobody looks at is not known to be met.
func (e *evaluation) looked() {
	limit := max(e.o.RPO.Std(), time.Hour)
	if e.f.Looked.IsZero() || e.now.Sub(e.f.Looked) <= limit {
		return
	}
	what := "nobody could look at the source since " + stamp(e.f.Looked)
	if e.f.LookError != "" {
		what += ": " + e.f.LookError
	}
	e.add("look", NotLooked, true, e.f.Looked.Add(limit), what, "holdfast status "+e.name())
}

func (e *evaluation) lost() {
	if len(e.f.Lost) == 0 {
		return
	}
	first := e.f.Lost[0]
	what := fmt.Sprintf("%s got no answer; the first is %s (%s, due %s)", plural(len(e.f.Lost), "job"), first.ID, first.Kind, stamp(first.Due))
	e.add("run", JobLost, true, first.Lost, what, "journalctl -u holdfast-agent --since '"+first.Due.UTC().Format("2006-01-02 15:04:05")+" UTC'")
}

// receipt wants the control plane to have looked at the newest snapshot. Snapshots arrive all the time: the oldest of
// those that nobody looked at, after the last that somebody did, tells since when this is so.
func (e *evaluation) receipt() {
	if e.f.CheckWithin <= 0 {
		return
	}
	var first *Snapshot
	for i := len(e.f.Snapshots) - 1; i >= 0 && !e.f.Snapshots[i].Checked; i-- {
		first = &e.f.Snapshots[i]
	}
	switch {
	case first == nil:
		e.add("receipt", OK, false, time.Time{}, "the newest snapshot was checked on arrival", "")
	case e.now.Sub(first.Arrived) > e.f.CheckWithin:
		e.add("receipt", NoReceipt, true, first.Arrived.Add(e.f.CheckWithin),
			fmt.Sprintf("nobody checked what arrived since @%d of %s", first.Sequence, stamp(first.Arrived)), "holdfast verify --level structure "+e.name())
	default:
		e.add("receipt", OK, false, time.Time{}, "what arrived last is still to be checked", "")
	}
}

// lockLooked is how long what is known of locks counts: lifecycle looks daily, and they are extended days before they end.
const lockLooked = 4 * 24 * time.Hour

// Short reports whether an object is locked for less time than the policy keeps its snapshot.
func (l *Lock) Short() bool { return l != nil && l.Until.Before(l.Wanted) }

func (e *evaluation) lock() {
	l := e.f.Lock
	// A finding of lifecycle says the same and is never older: one cause, one state.
	if l == nil || slices.ContainsFunc(e.f.Findings, func(f Finding) bool { return f.By == "lock" && !f.Warning }) {
		return
	}
	if at := l.Checked.Add(lockLooked); !l.Checked.IsZero() && !l.Short() && e.now.After(at) {
		e.add("lock", LockShort, true, at, fmt.Sprintf("nobody has looked at locks and extended them since %s; @%d is the first to be free, at %s", stamp(l.Checked), l.Sequence, stamp(l.Until)),
			"aws lambda invoke --function-name holdfast-lifecycle --payload '{}' /dev/stdout")
		return
	}
	if !l.Short() {
		e.add("lock", OK, false, time.Time{}, fmt.Sprintf("every snapshot is locked as long as the policy wants; @%d is the first to be free, at %s", l.Sequence, stamp(l.Until)), "")
		return
	}
	until := "not locked"
	if !l.Until.IsZero() {
		until = "locked until " + stamp(l.Until) + " only"
	}
	e.add("lock", LockShort, true, l.Checked, fmt.Sprintf("@%d is %s, the policy keeps it until %s", l.Sequence, until, stamp(l.Wanted)),
		"aws lambda invoke --function-name holdfast-lifecycle --payload '{}' /dev/stdout")
}

// findings tells what verify and lifecycle found: one state for each that found something, with the first.
func (e *evaluation) findings() {
	type kind struct {
		by      string
		warning bool
	}
	var order []kind
	all := map[kind][]Finding{}
	for _, f := range e.f.Findings {
		k := kind{f.By, f.Warning}
		if all[k] == nil {
			order = append(order, k)
		}
		all[k] = append(all[k], f)
	}
	for _, k := range order {
		first := all[k][0]
		since := first.First
		for _, f := range all[k] {
			if f.First.Before(since) {
				since = f.First
			}
		}
		what := first.Key
		if first.Detail != "" {
			what = first.Detail
		}
		cause := fmt.Sprintf("%s by %s: %s: %s", plural(len(all[k]), "finding"), k.by, first.Problem, what)
		code, next := FindingOf(k.by)
		if k.warning && code != RetentionWaits {
			code = Noted
		}
		e.add(k.by, code, !k.warning, since, cause, next+" "+e.name())
	}
}

// FindingOf says as what a finding of verify or lifecycle counts, and what to do next.
func FindingOf(by string) (Code, string) {
	switch by {
	case "versions":
		return Tampered, "holdfast repair --undelete --dry-run"
	case "lock":
		return LockShort, "holdfast snapshots"
	case "pass": // nobody extends the locks meanwhile
		return LockShort, "holdfast prune --dry-run"
	case "replica":
		return ReplicaLate, "holdfast snapshots"
	case "retention":
		return RetentionWaits, "holdfast prune --dry-run"
	case "period": // the limit of bytes is too small, or the time
		return Unverified, "holdfast verify --level bytes"
	}
	return Damaged, "holdfast verify --level bytes"
}

// filling says when the limit will be reached, if that is near. A week of samples is the least to judge by.
func (e *evaluation) filling() {
	const soon, least = 30 * 24 * time.Hour, 7 * 24 * time.Hour
	perDay, over := Growth(e.f.Growth)
	room := int64(e.o.MaxSize) - e.f.Stored
	if e.o.MaxSize == 0 || over < least || perDay <= 0 || room <= 0 {
		return
	}
	left := float64(room) / perDay
	if left > soon.Hours()/24 {
		return
	}
	// By the day, so that the text does not change with each observation.
	full := e.now.Add(time.Duration(left * 24 * float64(time.Hour))).UTC().Format(time.DateOnly)
	e.add("size", Filling, false, time.Time{}, fmt.Sprintf("at the growth of the last %s, %s a day, the limit of %s is reached about %s",
		policy.Duration(over).Rough(), RoughSize(perDay), e.o.MaxSize, full), "holdfast prune --dry-run "+e.name())
}

// Growth is by how many bytes a day the samples grow, by least squares, and over which time they reach.
func Growth(samples []Sample) (perDay float64, over time.Duration) {
	if len(samples) < 2 {
		return 0, 0
	}
	first := samples[0].Time
	var sumX, sumY, sumXX, sumXY float64
	for _, s := range samples {
		x, y := s.Time.Sub(first).Hours()/24, float64(s.Bytes)
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	n := float64(len(samples))
	if d := n*sumXX - sumX*sumX; d > 0 {
		perDay = (n*sumXY - sumX*sumY) / d
	}
	return perDay, samples[len(samples)-1].Time.Sub(first)
}

// RoughSize writes bytes with three digits.
func RoughSize(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return fmt.Sprintf("%.3g %s", bytes, units[i])
}

// EvaluateUnseen judges a source that nobody could look at so far. why may be empty.
func EvaluateUnseen(source string, since time.Time, why string) []State {
	what := "nobody could look at the source yet"
	if why != "" {
		what += ": " + why
	}
	return []State{{Source: source, Objective: "look", Code: NotLooked, Breach: true, Since: since.UTC(), Cause: what, Next: "holdfast status " + source}}
}
