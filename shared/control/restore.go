package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
)

// RestoreStatus is how far a restore has come.
type RestoreStatus string

// The statuses. The last five are ends.
const (
	RestoreRequested RestoreStatus = "requested" // waits for signatures
	RestoreApproved  RestoreStatus = "approved"  // signed by enough; not known to be in the queue
	RestoreThawing   RestoreStatus = "thawing"   // signed by enough; packs are archived and are asked for
	RestoreSent      RestoreStatus = "sent"      // in the queue of the host
	RestoreAccepted  RestoreStatus = "accepted"  // in the journal of the agent: it runs, whatever happens here
	RestoreDone      RestoreStatus = "done"
	RestoreFailed    RestoreStatus = "failed"
	RestoreRefused   RestoreStatus = "refused" // by the agent
	RestoreCancelled RestoreStatus = "cancelled"
	RestoreExpired   RestoreStatus = "expired" // nobody began it in time
)

// Ended reports whether nothing more is to come.
func (s RestoreStatus) Ended() bool {
	return slices.Contains([]RestoreStatus{RestoreDone, RestoreFailed, RestoreRefused, RestoreCancelled, RestoreExpired}, s)
}

// Restore is one restore over the queue: `restores/<id>.json`. The function restore writes it. What it says is for
// people; whether anything runs is decided by the agent, from the signatures alone.
type Restore struct {
	Version  int                 `json:"version"`
	ID       string              `json:"id"`
	Status   RestoreStatus       `json:"status"`
	Request  *approval.Request   `json:"request"`
	Order    events.RestoreOrder `json:"order"`             // the exact bytes, and the signatures so far
	Signers  []string            `json:"signers,omitempty"` // whose signatures are good, by the control plane's policy
	Plan     *recovery.Plan      `json:"plan,omitempty"`
	Frozen   time.Time           `json:"frozen,omitzero"` // nothing of the source is removed until then
	Sent     time.Time           `json:"sent,omitzero"`
	Refused  *events.JobRefused  `json:"refused,omitempty"`
	Finished *events.JobFinished `json:"finished,omitempty"`
	Thaw     *RestoreThaw        `json:"thaw,omitempty"`     // nil: nothing is archived
	Seen     time.Time           `json:"seen,omitzero"`      // newest sign that the agent is at it
	Restored uint64              `json:"restored,omitempty"` // bytes, then
	Report   *RestoreReport      `json:"report,omitempty"`   // once it is done
	History  []RestoreEvent      `json:"history"`
}

// RestoreEvent is a line of the history.
type RestoreEvent struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
}

// maxRestoreEvents bounds the history.
const maxRestoreEvents = 100

// ErrRestoreEnded says that nothing more can be done with a restore.
var ErrRestoreEnded = errors.New("the restore has come to its end")

func (r *Restore) say(now time.Time, format string, args ...any) {
	if len(r.History) < maxRestoreEvents {
		r.History = append(r.History, RestoreEvent{Time: now.UTC(), What: fmt.Sprintf(format, args...)})
	}
}

// NewRestore begins the document of a request.
func NewRestore(order events.RestoreOrder, plan *recovery.Plan, now time.Time) (*Restore, error) {
	request, err := approval.Decode(order.Request)
	if err != nil {
		return nil, err
	}
	if !request.Expires.After(now) {
		return nil, fmt.Errorf("request %s: it expired at %s", request.ID, request.Expires.UTC().Format(time.RFC3339))
	}
	r := &Restore{
		Version: 1, ID: request.ID, Status: RestoreRequested, Request: request, Plan: plan,
		Order: events.RestoreOrder{Request: order.Request, Signatures: []events.Signature{}},
	}
	r.say(now, "requested: %s@%d to host %s", request.Source, request.Snapshot, request.Host)
	return r, nil
}

// Sign adds signatures; one that is there already is not added again. It reports whether there are enough now. A
// signature that is not by an approver of the policy, or not over the request, is an error and changes nothing: the agent
// would refuse all for it.
func (r *Restore) Sign(p *policy.Policy, signatures []events.Signature, now time.Time) (enough bool, err error) {
	r.Expire(now)
	if r.Status.Ended() {
		return false, fmt.Errorf("restore %s is %s: %w", r.ID, r.Status, ErrRestoreEnded)
	}
	order := events.RestoreOrder{Request: r.Order.Request, Signatures: slices.Clone(r.Order.Signatures)}
	for _, s := range signatures {
		if !slices.Contains(order.Signatures, s) {
			order.Signatures = append(order.Signatures, s)
		}
	}
	signers, err := approval.SignedBy(p, &order)
	if err != nil {
		return false, fmt.Errorf("restore %s: %w", r.ID, err)
	}
	for _, name := range signers {
		if !slices.Contains(r.Signers, name) {
			r.say(now, "signed by %s", name)
		}
	}
	r.Order, r.Signers = order, signers
	enough = len(signers) >= approval.Approvals
	if enough && r.Status == RestoreRequested {
		r.Status = RestoreApproved
		r.say(now, "approved by %d people", len(signers))
	}
	return enough, nil
}

// Job is what goes into the queue of the host.
func (r *Restore) Job() *events.Job {
	order := r.Order
	return &events.Job{
		Version: events.Version, ID: r.ID, Host: r.Request.Host, Kind: events.Restore, Due: r.Request.Created, NotAfter: r.Request.Expires, Restore: &order,
	}
}

// MarkSent notes that the job is in the queue. It may be sent again as long as no agent has it: the journal of the agent
// drops the second.
func (r *Restore) MarkSent(now time.Time) {
	if r.Status == RestoreApproved || r.Status == RestoreThawing || r.Status == RestoreSent {
		r.Status, r.Sent = RestoreSent, now.UTC()
		r.say(now, "sent to host %s", r.Request.Host)
	}
}

// Cancel ends a restore that no agent has begun. A job that is in the queue may still be taken: then it runs, and the
// document says so.
func (r *Restore) Cancel(by string, now time.Time) error {
	r.Expire(now)
	switch {
	case r.Status.Ended():
		return fmt.Errorf("cancel restore %s, which is %s: %w", r.ID, r.Status, ErrRestoreEnded)
	case r.Status == RestoreAccepted:
		return fmt.Errorf("cancel restore %s: the agent is at it; stop it on the host: systemctl restart holdfast-agent", r.ID)
	}
	sent := r.Status == RestoreSent
	r.Status = RestoreCancelled
	r.say(now, "cancelled by %s", by)
	if sent {
		r.say(now, "the job is in the queue of the host: if the agent takes it, it runs")
	}
	return nil
}

// Expire ends a restore that nobody began in time. It reports whether it did.
func (r *Restore) Expire(now time.Time) bool {
	if r.Status.Ended() || r.Status == RestoreAccepted || !now.After(r.Request.Expires) {
		return false
	}
	r.Status = RestoreExpired
	r.say(now, "expired at %s", r.Request.Expires.UTC().Format(time.RFC3339))
	return true
}

// Accepted enters that the agent has the job in its journal. Events come late, twice and out of order: what is later in
// the life of a job wins, and what the agent did counts more than what was said here. As Refuse and Finish do, it reports
// whether anything changed.
func (r *Restore) Accepted(e *events.JobAccepted, now time.Time) bool {
	if e.Host != r.Request.Host || r.Finished != nil || r.Refused != nil || r.Status == RestoreAccepted {
		return false
	}
	r.Status = RestoreAccepted
	r.say(now, "accepted by the agent at %s", e.Time.UTC().Format(time.RFC3339))
	return true
}

// Refuse enters that the agent refused the job. That it has the job already is no refusal of the restore.
func (r *Restore) Refuse(e *events.JobRefused, now time.Time) bool {
	if e.Host != r.Request.Host || e.Code == events.Duplicate || r.Finished != nil || r.Refused != nil || r.Status == RestoreAccepted {
		return false
	}
	r.Status, r.Refused = RestoreRefused, e
	r.say(now, "refused by the agent as %s: %s", e.Code, e.Reason)
	return true
}

// Finish enters how the restore ended.
func (r *Restore) Finish(e *events.JobFinished, now time.Time) bool {
	if e.Host != r.Request.Host || r.Finished != nil {
		return false
	}
	r.Finished, r.Refused = e, nil
	took := e.Finished.Sub(e.Started).Round(time.Second)
	switch e.Result {
	case events.OK:
		r.Status = RestoreDone
		r.say(now, "done in %s", took)
	case events.Partial:
		r.Status = RestoreDone
		r.say(now, "done in %s, and something was left out: %s", took, e.Error)
	default:
		r.Status = RestoreFailed
		r.say(now, "failed after %s: %s", took, e.Error)
	}
	return true
}
