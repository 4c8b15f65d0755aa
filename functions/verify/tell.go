package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// tooLate is the problem of a source whose bytes are not all read again within the period.
const tooLate verify.Problem = "not read again in time"

// tell says how the laps go: in the log, as metrics, and, of each source that takes longer than the period, as a finding,
// which is over when a lap has ended. Where the limit of bytes is too small for all, that is told of each as soon as it is
// known how much there is to read.
func (t *tour) tell(ctx context.Context) error {
	var errs []error
	t.out.Days = t.days()
	small := t.out.Days > t.env.Period.Hours()/24
	for _, name := range slices.Sorted(maps.Keys(t.cursor.Sources)) {
		at := t.cursor.Sources[name]
		src, err := snapshot.ParseSource(name)
		if err != nil {
			continue
		}
		if at.Open {
			t.out.Open++
		}
		late := at.Open && (small || t.now().Sub(at.Begun) > t.env.Period)
		if late {
			t.out.Behind++
		}
		if late == at.Late {
			continue
		}
		if err := t.reportLate(ctx, src, at, late); err != nil {
			errs = append(errs, err)
			continue // told by the next run
		}
		at.Late = late
	}
	if small {
		invoke.Log(ctx).Warn("the limit of bytes is too small to read everything within the period", "days", t.out.Days, "period", t.env.Period, "month", t.env.Bytes)
	}
	invoke.Log(ctx).Info("rotation", "sources", t.out.Sources, "looked", t.out.Looked, "laps", t.out.Laps, "open", t.out.Open,
		"behind", t.out.Behind, "days", t.out.Days, "packs", t.out.Packs, "bytes", t.out.Bytes, "left", t.cursor.Allowance.Left,
		"archived", t.out.Archived, "spared", t.out.Spared, "findings", t.out.Findings, "failed", t.out.Failed)
	return errors.Join(append(errs, t.metrics())...)
}

// reportLate tells that a source is late, or no longer.
func (t *tour) reportLate(ctx context.Context, src snapshot.Source, at *control.SourceTour, late bool) error {
	if !late {
		return t.report(ctx, src, "period", nil, "period")
	}
	detail := fmt.Sprintf("the reading of all its bytes, %s, which began at %s, does not end within the period of %s",
		compliance.RoughSize(float64(at.Total)), at.Begun.UTC().Format(time.RFC3339), policy.Duration(t.env.Period))
	if t.limited() {
		detail += fmt.Sprintf("; limits.reread of the policy allows %s in 30 days, by which reading everything takes %.0f days", policy.Size(max(0, t.env.Bytes)), t.out.Days)
	}
	return t.report(ctx, src, "period", []verify.Finding{{Key: src.String(), Problem: tooLate, Detail: detail}}, "period")
}

// days is how long a lap of all sources takes within the limit of bytes; 0 where there is none.
func (t *tour) days() float64 {
	if !t.limited() {
		return 0
	}
	var total int64
	for _, at := range t.cursor.Sources {
		total += at.Total
	}
	return float64(total) / (float64(t.env.Bytes) / float64(max(1, t.shards)) / 30)
}

// metrics writes what alarms watch.
func (t *tour) metrics() error {
	unit := map[string]string{}
	for _, m := range environment.Metrics() {
		unit[m.Name] = m.Unit
	}
	e := emf.Entry{Namespace: environment.Namespace, Time: t.now()}
	for _, m := range []struct {
		name  string
		value float64
	}{
		{environment.MetricRereadBehind, float64(t.out.Behind)}, {environment.MetricRereadDays, t.out.Days}, {environment.MetricRereadBytes, float64(t.out.Bytes)},
	} {
		e.Metrics = append(e.Metrics, emf.Metric{Name: m.name, Unit: unit[m.name], Value: m.value})
	}
	return emf.Write(t.function.out, e)
}
