package observe

import (
	"strings"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// restoreOf is the measured restore that a receipt of level restore stands for.
func restoreOf(r record.Receipt) *compliance.Restore {
	m := &compliance.Restore{Time: r.Finished, Took: r.Finished.Sub(r.Started), Bytes: r.Bytes}
	if r.Result == record.Fail {
		m.Failed = "a check failed"
		if len(r.Problems) > 0 {
			m.Failed = strings.Join(r.Problems[:min(3, len(r.Problems))], "; ")
		}
	}
	return m
}

func newerRestore(a, b *compliance.Restore) *compliance.Restore {
	if a == nil || b != nil && b.Time.After(a.Time) {
		return b
	}
	return a
}
