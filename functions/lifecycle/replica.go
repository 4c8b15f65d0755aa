package main

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// replicationTime is how long an object may take to the replica.
const replicationTime = 24 * time.Hour

// replicaReport is how the replica of one source compares with the primary.
type replicaReport struct {
	Objects int    `json:"objects"` // in the replica
	Missing int    `json:"missing"` // there in the primary for longer than a day, and not in the replica
	Differ  int    `json:"differ"`  // have another size
	Extra   int    `json:"extra"`   // no longer in the primary
	First   string `json:"first,omitempty"`
}

// compare compares what the two listings of the source say. The replica is kept and pruned by what stands in itself: a
// primary that was robbed or rolled back must not be what its retention goes by. What one removed earlier than the other is
// no difference that counts: only what snapshots of the primary need which stay is missed.
func (v *visit) compare(ctx context.Context) error {
	if v.primary == nil {
		return v.primaryErr
	}
	kept, err := v.kept(ctx)
	if err != nil {
		return fmt.Errorf("primary: %w", err)
	}
	r := &replicaReport{}
	v.report.Replica = r
	there := map[string]int64{}
	prefix := layout.SourcePrefix(v.src)
	// The replica first: what arrives in both meanwhile is taken for not replicated yet, never for extra.
	err = v.repo.Store().List(ctx, prefix, func(o objstore.Info) error {
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
	err = v.primary.Store().List(ctx, prefix, func(o objstore.Info) error {
		size, ok := there[o.Key]
		delete(there, o.Key)
		switch {
		case !ok && (!kept[o.Key] || now.Sub(o.Modified) < replicationTime):
		case !ok:
			r.Missing++
			first(o.Key, "not in the replica")
		case size != o.Size && kept[o.Key]:
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

// kept are the keys of what snapshots of the primary need that stay by the same rules.
func (v *visit) kept(ctx context.Context) (map[string]bool, error) {
	h, err := observe.Read(ctx, v.primary, v.src)
	if err != nil {
		return nil, err
	}
	decisions, _, err := v.doc.Retention.Plan(h.Retention(), v.now())
	if err != nil {
		return nil, err
	}
	g, err := v.gather(ctx, v.primary, h, decisions)
	if err != nil {
		return nil, err
	}
	return g.kept(), nil
}
