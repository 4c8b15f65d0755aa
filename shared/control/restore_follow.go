package control

import (
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/recovery"
)

const (
	// FrozenBeyond is how long after the end of a request, or after the last sign that the agent is at it, removals of
	// the source stay frozen: a restore that begins in the last minute needs its packs for as long as it runs.
	FrozenBeyond = 2 * 24 * time.Hour
	// thawReserve is how long thawed copies must still be there; then they are asked to stay longer.
	thawReserve = 24 * time.Hour
	// protectWithin is how long after a restore its source should be backed up again, and watchAfter how long it is waited
	// for.
	protectWithin = 24 * time.Hour
	watchAfter    = 7 * 24 * time.Hour
)

// RestoreThaw is how far the archived packs of a snapshot are.
type RestoreThaw struct {
	Asked   time.Time `json:"asked"`             // when the first was asked for
	Packs   int       `json:"packs"`             // in classes from which nothing can be read
	Waiting int       `json:"waiting"`           // of these, that can not be read yet
	Until   time.Time `json:"until,omitzero"`    // until when all can be read; zero: not yet
	Thawed  time.Time `json:"thawed,omitzero"`   // when all could be read
	Problem string    `json:"problem,omitempty"` // of the last look
}

// RestoreReport is what a restore came to. It is complete when the sources are protected again.
type RestoreReport struct {
	Took        time.Duration    `json:"took_ns"`
	Minutes     int              `json:"minutes"`           // the same, rounded up
	Expected    int              `json:"expected_minutes"`  // by the plan, thaw included
	LostMin     int              `json:"lost_minutes"`      // by the plan
	Files       uint64           `json:"files,omitempty"`   // restored
	Bytes       uint64           `json:"bytes,omitempty"`   // restored
	Failed      uint64           `json:"failed,omitempty"`  // things that could not be restored
	Sources     []RestoredSource `json:"sources,omitempty"` // that back up what was restored
	Protected   bool             `json:"protected"`         // each of them has a whole snapshot that began after the restore
	Problem     string           `json:"problem,omitempty"` // why what was restored is not protected
	ProtectedAt time.Time        `json:"protected_at,omitzero"`
}

// RestoredSource is a source that backs up what was restored.
type RestoredSource struct {
	Source   string    `json:"source"`             // host/name
	Asked    time.Time `json:"asked,omitzero"`     // when a full was ordered for it
	Snapshot uint64    `json:"snapshot,omitempty"` // the first whole one that began after the restore; 0: none yet
	Arrived  time.Time `json:"arrived,omitzero"`
}

// MarkThawing notes how far the archived packs are and reports whether all can be read, for long enough.
func (r *Restore) MarkThawing(t RestoreThaw, now time.Time) bool {
	if t.Packs == 0 {
		return true
	}
	ready := t.Waiting == 0
	old := r.Thaw
	if old != nil {
		t.Asked, t.Thawed = old.Asked, old.Thawed
	}
	if t.Asked.IsZero() {
		t.Asked = now.UTC()
		if !ready {
			r.say(now, "%d packs are archived: asked to thaw them", t.Packs)
		}
	}
	if ready && t.Thawed.IsZero() {
		t.Thawed = now.UTC()
		r.say(now, "all archived packs can be read until %s", t.Until.UTC().Format(time.RFC3339))
	}
	if t.Problem != "" && (old == nil || old.Problem != t.Problem) {
		r.say(now, "thaw: %s", t.Problem)
	}
	r.Thaw = &t
	if !ready && r.Status == RestoreApproved {
		r.Status = RestoreThawing
	}
	if ready && r.Status == RestoreThawing {
		r.Status = RestoreApproved
	}
	return ready
}

// ThawDays is for how many days thawed copies must be there: as long as the request is valid and the source frozen.
func (r *Restore) ThawDays(now time.Time) int {
	end := r.Request.Expires
	if r.Status == RestoreAccepted {
		end = now
	}
	days := int((end.Add(FrozenBeyond).Sub(now) + 24*time.Hour - 1) / (24 * time.Hour))
	return min(max(days, 1), 30)
}

// Speed is how fast archived packs are thawed.
func (r *Restore) Speed() recovery.Speed {
	if r.Plan != nil && r.Plan.Thawing != nil {
		return r.Plan.Thawing.Speed
	}
	return recovery.Standard
}

// RenewThaw reports whether thawed copies that are there until then must be asked to stay longer.
func RenewThaw(until, now time.Time) bool { return until.Sub(now) < thawReserve }

// Follows reports whether something is to be done or waited for.
func (r *Restore) Follows(now time.Time) bool {
	switch {
	case !r.Status.Ended():
		return true
	case r.Status != RestoreDone || r.Finished == nil:
		return false
	}
	return r.Report == nil || !r.Report.Protected && r.Report.Problem == "" && now.Sub(r.Finished.Finished) < watchAfter
}

// See takes what the host's document says about the restore, and returns until when removals of its source must stay
// frozen; the zero time: as long as they are already. Only the agent itself keeps the freeze alive: a restore that
// nobody has heard of for [FrozenBeyond] holds nothing any more.
func (r *Restore) See(h *HostJobs, now time.Time) time.Time {
	if r.Status != RestoreAccepted || h == nil || h.Restoring == nil || h.Restoring.Job != r.ID {
		return time.Time{}
	}
	seen := h.Restoring.Seen
	if seen.After(now) {
		seen = now // a clock that was ahead must not keep everything
	}
	if seen.After(r.Seen) {
		r.Seen, r.Restored = seen.UTC(), h.Restoring.Bytes
	}
	until := r.Seen.Add(FrozenBeyond)
	if !until.After(r.Frozen.Add(12 * time.Hour)) { // not each time
		return time.Time{}
	}
	return until
}

// MarkFrozen notes until when removals are frozen.
func (r *Restore) MarkFrozen(until, now time.Time) {
	if until.After(r.Frozen) {
		r.Frozen = until.UTC()
		r.say(now, "the agent is at it: removals stay frozen until %s", r.Frozen.Format(time.RFC3339))
	}
}

// BeginReport begins the report of a restore that is done. sources are those that back up what was restored.
func (r *Restore) BeginReport(sources []string, now time.Time) {
	f := r.Finished
	if r.Report != nil || f == nil {
		return
	}
	took := f.Finished.Sub(f.Started)
	rep := &RestoreReport{Took: took, Minutes: int((took + time.Minute - 1) / time.Minute), Bytes: f.BytesAdded}
	if p := r.Plan; p != nil {
		rep.Expected, rep.LostMin = p.Minutes, p.LostMin
	}
	if c := f.Counts; c != nil {
		rep.Files, rep.Bytes, rep.Failed = c.Files, c.Bytes, c.Errors
	}
	for _, s := range sources {
		rep.Sources = append(rep.Sources, RestoredSource{Source: s})
	}
	if len(sources) == 0 {
		where := r.Request.Target
		if where == "" {
			where = "its original place"
		}
		rep.Problem = fmt.Sprintf("no source of host %s in the policy backs up %s: what was restored is not protected", r.Request.Host, where)
		r.say(now, "%s", rep.Problem)
	}
	r.Report = rep
}

// Guard is the job that protects an in-place restore's source again: a full, which begins a chain of its own. Its id is
// derived, so that asking twice is asking once.
func (r *Restore) Guard(source string, now time.Time) *events.Job {
	due := r.Finished.Finished.UTC().Truncate(time.Second)
	return &events.Job{
		Version: events.Version, ID: events.JobID("restore "+r.ID, r.Request.Host+"/"+source, due, string(events.Backup), "full"),
		Host: r.Request.Host, Source: source, Kind: events.Backup, Type: "full", Due: due, NotAfter: now.UTC().Add(protectWithin),
	}
}

// MarkGuarded notes that a full was ordered.
func (r *Restore) MarkGuarded(source string, now time.Time) {
	for i := range r.Report.Sources {
		if s := &r.Report.Sources[i]; s.Source == source && s.Asked.IsZero() {
			s.Asked = now.UTC()
			r.say(now, "ordered a full of %s", source)
		}
	}
}

// MarkProtected notes the first whole snapshot of a source that began after the restore, and reports whether this makes
// the report complete.
func (r *Restore) MarkProtected(source string, n uint64, arrived, now time.Time) bool {
	for i := range r.Report.Sources {
		if s := &r.Report.Sources[i]; s.Source == source && s.Snapshot == 0 {
			s.Snapshot, s.Arrived = n, arrived.UTC()
			r.say(now, "%s is backed up again: @%d", source, n)
		}
	}
	left := slices.ContainsFunc(r.Report.Sources, func(s RestoredSource) bool { return s.Snapshot == 0 })
	if left || r.Report.Protected {
		return false
	}
	r.Report.Protected, r.Report.ProtectedAt = true, now.UTC()
	return true
}

// GiveUp ends the wait for a snapshot after the restore; it reports whether it did. Objectives go on to be judged by
// monitor.
func (r *Restore) GiveUp(now time.Time) bool {
	if r.Report == nil || r.Report.Protected || r.Report.Problem != "" || now.Sub(r.Finished.Finished) < protectWithin {
		return false
	}
	var names []string
	for _, s := range r.Report.Sources {
		if s.Snapshot == 0 {
			names = append(names, s.Source)
		}
	}
	text := fmt.Sprintf("not backed up again %s after the restore: %v", protectWithin, names)
	if slices.ContainsFunc(r.History, func(e RestoreEvent) bool { return e.What == text }) {
		return false
	}
	r.say(now, "%s", text)
	return true
}
