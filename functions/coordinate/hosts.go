package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/schedule"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// conflicts is how often a host is begun anew because another wrote its document.
const conflicts = 5

// look is one host with its document, and what is to be done.
type look struct {
	host string
	doc  *control.HostJobs
	tag  string
	step control.Step
}

// read reads a host's document and finds what is to be done.
func (r *round) read(ctx context.Context, host string) (*look, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key := control.JobsKey(host)
	body, tag, err := r.state.Get(ctx, key)
	if err != nil && !errors.Is(err, statestore.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	l := &look{host: host, tag: tag}
	if err := l.decode(ctx, key, body); err != nil {
		return nil, err
	}
	found := control.Found{Manifests: map[string]control.Evidence{}, Receipts: map[string]schedule.Proofs{}}
	l.step = l.doc.Follow(r.p, found, r.limits, r.now)
	// What the manifests show may make receipts necessary. Each time from the document as it was.
	for round := 0; len(l.step.Look)+len(l.step.Proofs) > 0 && round < 2; round++ {
		r.lookUp(ctx, host, l.step, found)
		if err := l.decode(ctx, key, body); err != nil {
			return nil, err
		}
		l.step = l.doc.Follow(r.p, found, r.limits, r.now)
	}
	return l, nil
}

// lookUp finds what a step asks for. A source about which the repository gives no answer stays as it is and is looked at
// again with the next tick; the others of the host go on.
func (r *round) lookUp(ctx context.Context, host string, step control.Step, found control.Found) {
	for _, name := range step.Look {
		src := snapshot.Source{Host: host, Name: name}
		e, err := r.manifests.Newest(ctx, r.p, src)
		if err != nil && ctx.Err() != nil {
			return // the others go on with what there is
		}
		if err != nil {
			r.failed(ctx, host, fmt.Errorf("find the newest snapshot of %s: %w", src, err))
			continue
		}
		found.Manifests[name] = e
	}
	for _, name := range step.Proofs {
		src := snapshot.Source{Host: host, Name: name}
		shown, err := r.manifests.Proofs(ctx, r.p, src)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			r.failed(ctx, host, fmt.Errorf("find the verifications of %s: %w", src, err))
			continue
		}
		found.Receipts[name] = shown
	}
}

func (l *look) decode(ctx context.Context, key string, body []byte) error {
	l.doc = &control.HostJobs{}
	if body != nil {
		if err := json.Unmarshal(body, l.doc); err != nil {
			// Damaged: it is written anew from what the repository and the agent say.
			invoke.Log(ctx).Error("document is damaged and begun anew", "key", key, "error", err.Error())
			l.doc = &control.HostJobs{}
		}
	}
	l.doc.Version, l.doc.Host = 1, l.host
	return nil
}

// order is a new run of a host.
type order struct {
	host string
	control.Order
}

// wanted returns all new runs in the order in which they get slots, and those that are asked for again. Slots are for
// backups: who verifies hinders none.
func wanted(looks []*look) []order {
	var out []order
	for _, l := range looks {
		for _, o := range l.step.Orders {
			if o.Job.Kind == events.Backup {
				out = append(out, order{l.host, o})
			}
		}
	}
	tiers := []policy.Tier{policy.Critical, policy.High, policy.Standard, policy.Low}
	slices.SortStableFunc(out, func(a, b order) int {
		return cmp.Or(cmp.Compare(slices.Index(tiers, a.Tier), slices.Index(tiers, b.Tier)), a.Job.Due.Compare(b.Job.Due))
	})
	return out
}

// host writes the host's document and sends its messages.
func (r *round) host(ctx context.Context, l *look) error {
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		send, changed, next := r.apply(l)
		if changed {
			_, err := statestore.Write(ctx, r.state, control.JobsKey(l.host), l.doc, l.tag)
			if errors.Is(err, statestore.ErrConflict) && try < conflicts {
				// An agent's event or another tick came between: see what is to be done now.
				again, err := r.read(ctx, l.host)
				if err != nil {
					return err
				}
				if err := r.slots.reserve(ctx, wanted([]*look{again}), r.now); err != nil {
					return err
				}
				l = again
				continue
			}
			if err != nil {
				return err
			}
		}
		r.note(ctx, l, send, next)
		return r.send(ctx, l, send)
	}
}

// apply notes new runs in the document, if they have a slot, and returns what is to be sent once it is written.
func (r *round) apply(l *look) (send []*events.Job, changed bool, next time.Time) {
	changed, next = l.step.Changed, l.step.Next
	for _, o := range l.step.Orders {
		if o.New && o.Job.Kind == events.Backup && !r.slots.has(o.First) {
			changed = l.doc.Wait(o, r.now) || changed
			r.mu.Lock()
			r.Waiting++
			r.mu.Unlock()
			continue
		}
		if o.New {
			if at := l.doc.Ask(o, r.now); next.IsZero() || at.Before(next) {
				next = at
			}
			changed = true
		}
		send = append(send, o.Job)
	}
	return send, changed, next
}

// note counts and logs what was written down.
func (r *round) note(ctx context.Context, l *look, send []*events.Job, next time.Time) {
	fresh := map[string]bool{}
	for _, o := range l.step.Orders {
		fresh[o.Job.ID] = o.New
	}
	for _, j := range send {
		invoke.Log(ctx).Info("job", "job", j.ID, "host", l.host, "source", j.Source, "kind", j.Kind, "type", j.Type, "due", j.Due,
			"attempt", j.Attempt, "new", fresh[j.ID])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range send {
		if fresh[j.ID] {
			r.Asked++
		} else {
			r.Again++
		}
	}
	r.closed = append(r.closed, l.step.Closed...)
	r.shard.Looked(l.host, next, r.now)
}

// send puts the messages into the host's queue. What can't be sent now is sent again by a later tick.
func (r *round) send(ctx context.Context, l *look, jobs []*events.Job) error {
	if len(jobs) == 0 {
		return nil
	}
	err := r.queues.Send(ctx, l.host, jobs)
	problem := ""
	switch {
	case errors.Is(err, errNoQueue):
		problem = fmt.Sprintf("%v: make it with “holdfast host add %s”", err, l.host)
		if _, err := events.QueueName(l.host); err != nil {
			problem = err.Error() // it can't have one
		}
	case err != nil:
		return err
	}
	if problem == l.doc.Problem {
		return nil
	}
	return statestore.Update(ctx, r.state, control.JobsKey(l.host), func(h *control.HostJobs) error {
		if h.Host == "" || h.Problem == problem {
			return statestore.ErrUnchanged
		}
		if h.Problem, h.Since = problem, r.now; problem == "" {
			h.Since = time.Time{}
		}
		return nil
	})
}
