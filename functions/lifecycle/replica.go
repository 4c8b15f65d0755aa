package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/retention"
)

// replicationTime is how long an object may take to the replica.
const replicationTime = 24 * time.Hour

// replicaReport is what was done about the replica of one source.
type replicaReport struct {
	Prune   *prune.Report `json:"prune,omitempty"`
	Objects int           `json:"objects"` // in the replica
	Missing int           `json:"missing"` // there in the primary for longer than a day, and not in the replica
	Differ  int           `json:"differ"`  // have another size
	Extra   int           `json:"extra"`   // no longer in the primary
	First   string        `json:"first,omitempty"`
	Stopped bool          `json:"stopped,omitempty"` // too many snapshots would go
}

// replicate does for the replica what was done for the primary, by what stands in the replica itself: a primary that was
// robbed or rolled back must not be what the replica's retention goes by. Then the two listings are compared.
func (v *visit) replicate(ctx context.Context) error {
	if v.replica == nil {
		return v.replicaErr
	}
	r := &replicaReport{}
	v.report.Replica = r
	h, err := observe.Read(ctx, v.replica, v.src)
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	decisions, _, err := v.doc.Retention.Plan(h.Retention(), v.now())
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	var errs []error
	if err := v.locks(ctx, v.replica, h, decisions, &v.doc.Replica, false); err != nil {
		errs = append(errs, fmt.Errorf("replica: %w", err))
	}
	if err := h.Broken(); err != nil {
		errs = append(errs, fmt.Errorf("replica: prune: %w", err))
	} else if r.Prune, err = v.remove(ctx, v.replica, "replica", decisions); errors.Is(err, retention.ErrTooMany) {
		// The primary asks; its plan is agreed to there. That of the replica is the same one, or is looked at singly.
		r.Stopped = true
		v.ask(ctx, r)
	} else if err != nil {
		errs = append(errs, fmt.Errorf("replica: %w", err))
	}
	errs = append(errs, v.compare(ctx, r))
	return errors.Join(errs...)
}

// ask tells people of removals from the replica that they must agree to, and that the primary does not ask about.
func (v *visit) ask(ctx context.Context, r *replicaReport) {
	if r.Prune == nil || v.doc.Waiting != nil && v.doc.Waiting.Plan == r.Prune.Plan {
		return
	}
	v.find(ctx, control.Finding{
		By: "retention", Key: v.src.String(), Problem: "too many snapshots of the replica would go", Warning: true,
		Detail: fmt.Sprintf(`%d snapshots, which the primary has no more or does not ask about: nothing is removed from the replica; agree with {"sources":[%q],"confirm":{%q:%q}}`,
			len(r.Prune.Blocked), v.src, v.src, r.Prune.Plan),
	})
}

// compare compares what the two listings of the source say. What one removed earlier than the other is no difference that
// counts: only what snapshots of the primary need which stay is missed.
func (v *visit) compare(ctx context.Context, r *replicaReport) error {
	there := map[string]int64{}
	prefix := layout.SourcePrefix(v.src)
	// The replica first: what arrives in both meanwhile is taken for not replicated yet, never for extra.
	err := v.replica.Store().List(ctx, prefix, func(o objstore.Info) error {
		there[o.Key] = o.Size
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the replica of %s: %w", v.src, err)
	}
	r.Objects = len(there)
	now := v.now()
	first := func(key, what string) {
		if r.First == "" {
			r.First = key + ": " + what
		}
	}
	err = v.repo.Store().List(ctx, prefix, func(o objstore.Info) error {
		size, ok := there[o.Key]
		delete(there, o.Key)
		switch {
		case !ok && (!v.kept[o.Key] || now.Sub(o.Modified) < replicationTime):
		case !ok:
			r.Missing++
			first(o.Key, "not in the replica")
		case size != o.Size && v.kept[o.Key]:
			r.Differ++
			first(o.Key, fmt.Sprintf("%d bytes, in the replica %d", o.Size, size))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", v.src, err)
	}
	r.Extra = len(there)
	v.looked = append(v.looked, "replica")
	if r.Missing+r.Differ > 0 {
		v.find(ctx, control.Finding{
			By: "replica", Key: v.src.String(), Problem: "the replica is not like the primary",
			Detail: fmt.Sprintf("%d objects are missing, %d have another size; the first: %s", r.Missing, r.Differ, r.First),
		})
	}
	return nil
}
