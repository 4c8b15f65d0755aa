package recovery_test

import (
	"math"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/recovery"
)

func TestPlan(t *testing.T) {
	f := recovery.Facts{
		RPO: time.Hour, Bytes: func(n uint64) (int64, int64) { return int64(n) << 30, int64(n) << 29 },
		Thawing: recovery.Thaw([]recovery.Cold{{Class: recovery.Flexible, Objects: 3, Bytes: 1 << 30}}, "", 3), Measured: &recovery.Measured{Took: 10 * time.Minute, Bytes: 1 << 30},
	}
	now := at("2026-11-20 18:00")
	p, err := recovery.MakePlan(history(), recovery.Selector{Sequence: 2}, f, now)
	if err != nil || p.LostMin != 7*60 || p.Bytes != 2<<30 || p.Download != 1<<30 || p.Minutes != 5*60+20 || p.ThawMin != 5*60 || p.Guessed || len(p.Window.Gaps) == 0 || len(p.Warnings) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	// What is lost counts up to what was wanted.
	if p, err = recovery.MakePlan(history(), recovery.Selector{At: at("2026-11-20 11:30")}, f, now); err != nil || p.LostMin != 30 || p.Selection.Point.Sequence != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	f.Measured, f.Thawing, f.Space = nil, nil, &recovery.Space{Path: "/srv", Free: 1 << 30}
	if p, err = recovery.MakePlan(history(), recovery.Selector{Sequence: 1}, f, now); err != nil || !p.Guessed || p.Minutes != 1 || len(p.Warnings) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err = recovery.MakePlan(nil, recovery.Selector{}, f, now); err == nil {
		t.Error("a plan for nothing")
	}
}

func TestThaw(t *testing.T) {
	cold := func(class recovery.ColdClass, objects, thawed, asked int) []recovery.Cold {
		return []recovery.Cold{{Class: class, Objects: objects, Bytes: 100e9, Thawed: thawed, Asked: asked}}
	}
	for _, tt := range []struct {
		name   string
		cold   []recovery.Cold
		speed  recovery.Speed
		hours  float64
		dollar float64 // of 100 GB in objects of 1,000, and copies for 30 days
	}{
		{"instant", cold(recovery.Instant, 1000, 0, 0), "", 0, 3.01},
		{"flexible", cold(recovery.Flexible, 1000, 0, 0), recovery.Standard, 5, 1 + 0.05 + 2.3},
		{"flexible in bulk", cold(recovery.Flexible, 1000, 0, 0), recovery.Bulk, 12, 2.3},
		{"deep", cold(recovery.Deep, 1000, 0, 0), "", 12, 2 + 0.1 + 2.3},
		{"deep in bulk", cold(recovery.Deep, 1000, 0, 0), recovery.Bulk, 48, 0.25 + 0.025 + 2.3},
		{"half is under way", cold(recovery.Deep, 1000, 0, 500), "", 12, 1 + 0.05 + 2.3},
		{"all is thawed", cold(recovery.Deep, 1000, 1000, 0), "", 0, 2.3},
		{"two classes", append(cold(recovery.Flexible, 1000, 0, 0), cold(recovery.Deep, 1000, 0, 0)...), "", 12, 1.05 + 2.1 + 4.6},
	} {
		got := recovery.Thaw(tt.cold, tt.speed, 30)
		if got.Time.Hours() != tt.hours || math.Abs(got.Dollar-tt.dollar) > 1e-9 {
			t.Errorf("%s: %.1f h, %.4f USD; want %.1f, %.4f", tt.name, got.Time.Hours(), got.Dollar, tt.hours, tt.dollar)
		}
	}
	if recovery.Thaw(nil, "", 1) != nil {
		t.Error("nothing is cold, and costs")
	}
}
