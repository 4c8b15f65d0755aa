package verify

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// readLogs reads further objects of logs, when all packs are read, until none is left or the budget is spent; then the
// sweep is not done yet. At its end the logs are checked as a whole: what is missing, and what is on record as damaged is
// read again. Archived objects are passed by.
func (w *sweeper) readLogs(ctx context.Context) error {
	l, err := w.source.openLogs(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{l.checkHeads, l.checkCuts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	// Findings of a call tell of what it has read; the rest is told at the end.
	before := w.source.c.result.LogBytes
	choose := func(o layout.LogObject, p inventory.LogPiece) bool {
		_, damaged := w.source.inv.LogDamaged[o]
		fresh := w.sweep.Since.IsZero() || p.Arrived().After(w.sweep.Since.Add(-overlap))
		return !p.Class.Archived() && (damaged || fresh && l.key(o) > w.sweep.Log)
	}
	w.done, err = l.readObjects(ctx, choose, func(part []layout.LogObject) bool {
		w.sweep.Log = max(w.sweep.Log, l.key(part[len(part)-1]))
		read := w.source.c.result.LogBytes - before
		before += read
		w.read, w.sweep.Bytes = w.read+read, w.sweep.Bytes+read
		return w.budget.spent(w.read)
	})
	if err != nil {
		return err
	}
	if w.done {
		if err := l.checkHoles(ctx); err != nil {
			return err
		}
	}
	return l.recordDamage(ctx)
}
