package tier_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/repository/tier"
)

func TestPlan(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	base := func() []tier.Snapshot {
		var out []tier.Snapshot
		for n := range uint64(6) { // chains a, b and c of two snapshots each
			out = append(out, tier.Snapshot{
				Sequence: n + 1, Chain: string("abc"[n/2]), Arrived: now.Add(-time.Duration(120-20*n) * day), Keep: true, Proven: true,
			})
		}
		return out
	}
	for name, c := range map[string]struct {
		change func([]tier.Snapshot)
		moved  []string
		after  time.Duration
		want   []string
	}{
		"all that is closed":   {nil, nil, 30 * day, []string{"a", "b"}},
		"old enough":           {nil, nil, 70 * day, []string{"a"}},
		"never too soon":       {func(s []tier.Snapshot) { s[3].Arrived = now.Add(-29 * day) }, nil, time.Hour, []string{"a"}},
		"moved before":         {nil, []string{"a"}, 30 * day, []string{"b"}},
		"not proven":           {func(s []tier.Snapshot) { s[0].Proven = false }, nil, 30 * day, []string{"b"}},
		"not proven, not kept": {func(s []tier.Snapshot) { s[0].Proven, s[0].Keep = false, false }, nil, 30 * day, []string{"a", "b"}},
		"nothing of it stays":  {func(s []tier.Snapshot) { s[0].Keep, s[1].Keep = false, false }, nil, 30 * day, []string{"b"}},
		"damaged":              {func(s []tier.Snapshot) { s[2].Damaged = true }, nil, 30 * day, []string{"a"}},
		"the running one":      {func(s []tier.Snapshot) { s[4].Arrived, s[5].Arrived = now.Add(-99*day), now.Add(-98*day) }, []string{"a", "b"}, 30 * day, nil},
	} {
		snaps := base()
		if c.change != nil {
			c.change(snaps)
		}
		if diff := cmp.Diff(c.want, tier.Plan(snaps, c.moved, c.after, now)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if got := tier.Plan(nil, nil, 0, now); got != nil {
		t.Error(got)
	}
}
