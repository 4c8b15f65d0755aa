package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/btcdecoded/holdfast/shared/alert"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// findings are what lifecycle and verify have found about the replica, in the state of its region: one condition for each
// source and kind. The monitor of the primary region does not see them.
func (w *watchdog) findings(ctx context.Context) ([]alert.Condition, error) {
	var keys []string
	for _, prefix := range []string{control.LifecycleFindingsPrefix, control.VerifyFindingsPrefix} {
		err := w.state.List(ctx, prefix, func(key string) error {
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	var out []alert.Condition
	for _, key := range keys {
		doc, _, err := statestore.Read[control.Findings](ctx, w.state, key)
		if errors.Is(err, statestore.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		told := map[string]bool{}
		for _, f := range doc.Findings {
			if told[f.By] {
				continue
			}
			told[f.By] = true
			code, _ := compliance.FindingOf(f.By)
			if f.Warning && code != compliance.RetentionWaits {
				code = compliance.Noted
			}
			next := fmt.Sprintf(`aws lambda invoke --function-name holdfast-lifecycle --payload '{"dry_run":true,"sources":[%q]}' /dev/stdout`, doc.Source)
			if strings.HasPrefix(key, control.VerifyFindingsPrefix) {
				next = fmt.Sprintf("holdfast verify --level bytes --repository '%s' %s", w.env.Repository, doc.Source)
			}
			c := w.condition("replica-"+f.By, code, f.First, fmt.Sprintf("in the replica, by %s: %s: %s: %s", f.By, f.Key, f.Problem, f.Detail), next)
			c.State.Source, c.State.Breach = doc.Source, !f.Warning
			out = append(out, c)
		}
	}
	return out, nil
}
