package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// offer decides on what a feed brings, and writes the decision to the journal.
func (a *Agent) offer(_ context.Context, o Offered) error {
	job := o.Job
	if job == nil {
		var err error
		if job, err = events.DecodeJob(o.Body); err != nil {
			sum := sha256.Sum256(o.Body)
			return a.refuse(&events.Job{}, hex.EncodeToString(sum[:16]), err)
		}
	}
	now := time.Now()
	if err := a.judge(job, a.Policies.Current(), now); err != nil {
		return a.refuse(job, job.ID, err)
	}
	err := a.Journal.Accept(job, o.Origin, now, a.event(events.TypeJobAccepted, now, events.JobAccepted{
		Version: events.Version, Job: job.ID, Host: a.Host, Source: job.Source, Kind: job.Kind, Time: now.UTC(),
	})...)
	if errors.Is(err, journal.ErrDuplicate) {
		if o.Origin == journal.FromSchedule {
			return nil // the queue was faster
		}
		return a.again(job)
	}
	if err != nil {
		return err
	}
	a.Log.Info("job accepted", "job", job.ID, "kind", job.Kind, "source", job.Source, "type", job.Type, "from", o.Origin)
	nudge(a.wake)
	nudge(a.mail)
	return nil
}

// judge says why a job is refused, if it is. Whether it is a duplicate is for the journal.
func (a *Agent) judge(job *events.Job, p *policy.Policy, now time.Time) error {
	if job.Host != a.Host {
		return &events.RefusedError{Code: events.Foreign, Reason: "the job is for host " + job.Host}
	}
	if err := job.CheckTime(now); err != nil {
		return err
	}
	if job.Kind == events.Restore {
		r, err := approval.Check(p, a.Host, job.ID, job.Restore, now)
		if err == nil && job.Source != "" && job.Source != r.From().Name {
			err = &events.RefusedError{Code: events.Forged, Reason: "the job names another source than the request that was signed"}
		}
		return err
	}
	if _, err := p.Lookup(a.Host, job.Source); err != nil {
		return &events.RefusedError{Code: events.UnknownSource, Reason: err.Error()}
	}
	return nil
}

// refuse reports a refusal, unless the same was reported before. The id alone is no key: a job that was sent to the
// wrong host, or too late, must not keep the right one with this id from running.
func (a *Agent) refuse(job *events.Job, id string, why error) error {
	code, reason := approval.Code(why), ""
	var r *events.RefusedError
	if errors.As(why, &r) {
		reason = clip(r.Reason)
	}
	now := time.Now()
	first, err := a.Journal.Refuse(string(code)+" "+id, now, a.event(events.TypeJobRefused, now, events.JobRefused{
		Version: events.Version, Job: job.ID, Host: a.Host, Source: job.Source, Kind: job.Kind,
		Code: code, Reason: reason, Time: now.UTC(),
	})...)
	if err != nil {
		return fmt.Errorf("note a refusal: %w", err)
	}
	if first {
		a.Log.Warn("job refused", "job", job.ID, "source", job.Source, "code", code, "reason", reason)
		nudge(a.mail)
	}
	return nil
}

// again answers a job whose message came again: with its result, if there is one, because the event that told it may
// have been lost.
func (a *Agent) again(job *events.Job) error {
	err := a.refuse(job, job.ID, &events.RefusedError{Code: events.Duplicate, Reason: "the job was accepted before"})
	if err != nil {
		return err
	}
	if result := a.Journal.Result(job.ID); result != nil && a.Bus != nil && !a.waits(result.Job) {
		now := time.Now()
		if err := a.Journal.Report(now, a.event(events.TypeJobFinished, now, result)...); err != nil {
			return err
		}
		nudge(a.mail)
	}
	return nil
}

// waits reports whether a job's result is about to be sent anyway.
func (a *Agent) waits(id string) bool {
	for _, e := range a.Journal.Pending(journal.MaxUnsent) {
		if e.Type != events.TypeJobFinished {
			continue
		}
		if f, err := events.DecodeJobFinished([]byte(e.Detail)); err == nil && f.Job == id {
			return true
		}
	}
	return false
}

// event makes an event; none where nobody takes them.
func (a *Agent) event(detailType string, now time.Time, detail any) []journal.Event {
	if a.Bus == nil {
		return nil
	}
	text, err := json.Marshal(detail)
	if err != nil {
		a.Log.Error("an event can not be written", "type", detailType, "error", err)
		return nil
	}
	return []journal.Event{{Type: detailType, Time: now.UTC(), Detail: string(text)}}
}

// maxText bounds a text in an event, in bytes.
const maxText = 2000

// clip cuts a text that would make an event too large.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for cut > 0 && text[cut]&0xc0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}
