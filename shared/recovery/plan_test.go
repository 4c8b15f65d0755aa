package recovery_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
)

func TestPlan(t *testing.T) {
	f := recovery.Facts{
		RPO: time.Hour, Bytes: func(n uint64) (int64, int64) { return int64(n) << 30, int64(n) << 29 },
		Thaw: 5 * time.Hour, Measured: &recovery.Measured{Took: 10 * time.Minute, Bytes: 1 << 30},
	}
	now := at("2026-11-20 18:00")
	p, err := recovery.MakePlan(history(), recovery.Selector{Sequence: 2}, f, now)
	if err != nil || p.LostMin != 7*60 || p.Bytes != 2<<30 || p.Download != 1<<30 || p.Minutes != 5*60+20 || p.Guessed || len(p.Window.Gaps) == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	// What is lost counts up to what was wanted.
	if p, err = recovery.MakePlan(history(), recovery.Selector{At: at("2026-11-20 11:30")}, f, now); err != nil || p.LostMin != 30 || p.Selection.Point.Sequence != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	f.Measured, f.Thaw = nil, 0
	if p, err = recovery.MakePlan(history(), recovery.Selector{Sequence: 1}, f, now); err != nil || !p.Guessed || p.Minutes != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err = recovery.MakePlan(nil, recovery.Selector{}, f, now); err == nil {
		t.Error("a plan for nothing")
	}
}
