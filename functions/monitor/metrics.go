package main

import (
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/emf"
	"github.com/btcdecoded/holdfast/shared/observe"
)

// units are those of [environment.Metrics], by name.
func units() map[string]string {
	out := map[string]string{}
	for _, m := range environment.Metrics() {
		out[m.Name] = m.Unit
	}
	return out
}

// gauge collects values by name, for one set of dimension values.
type gauge map[string]float64

// max keeps the greater value.
func (g gauge) max(name string, v float64) { g[name] = max(g[name], v) }

// entry encodes a gauge; nil dimensions: none.
func (g gauge) entry(unit map[string]string, dimension, value string, fields map[string]any, now time.Time) emf.Entry {
	e := emf.Entry{Namespace: environment.Namespace, Time: now, Fields: fields}
	if dimension != "" {
		e.Dimensions = map[string]string{dimension: value}
	}
	names := make([]string, 0, len(g))
	for name := range g {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e.Metrics = append(e.Metrics, emf.Metric{Name: name, Unit: unit[name], Value: g[name]})
	}
	return e
}

// hundred makes a share a percentage.
const hundred = 100

// metrics are those of the pass: for each tier and kind also where there is no source of it, because a value that is
// missing says something else than 0.
func (x *findings) metrics(now time.Time, open int) []emf.Entry {
	unit := units()
	tiers, kinds := map[string]gauge{}, map[string]gauge{}
	worst := map[string]string{}
	for _, tier := range environment.DimensionValues(environment.DimensionTier) {
		tiers[tier] = gauge{
			environment.MetricSources: 0, environment.MetricSourcesInBreach: 0, environment.MetricWorstAgeToRPO: 0, environment.MetricNeverBackedUp: 0,
			environment.MetricUnverified: 0, environment.MetricDamaged: 0, environment.MetricFailing: 0,
		}
	}
	for _, kind := range environment.DimensionValues(environment.DimensionKind) {
		kinds[kind] = gauge{environment.MetricBytesTotal: 0, environment.MetricSourcesOfKind: 0}
	}
	whole := gauge{
		environment.MetricMonitorPass: 1, environment.MetricHostsSilent: 0, environment.MetricJobsLost: 0, environment.MetricWithoutReceipt: 0,
		environment.MetricCopiesLate: 0, environment.MetricAlertsOpen: float64(open), environment.MetricOldestLook: 0,
		environment.MetricUnconfirmed: float64(unconfirmed(x.monitor.Subscriptions)), environment.MetricRequests: float64(x.requests),
	}
	for _, j := range x.sources {
		tier, kind := string(j.Policy.Objectives.Tier), j.Policy.Kind()
		if g := tiers[tier]; g != nil {
			if age := j.Age * hundred; age > g[environment.MetricWorstAgeToRPO] {
				worst[tier] = j.Source.String()
			}
			countSource(g, whole, j)
		}
		if g := kinds[kind]; g != nil {
			g[environment.MetricSourcesOfKind]++
			if j.Memory != nil {
				g[environment.MetricBytesTotal] += float64(j.Memory.Stored)
			}
		}
	}
	for _, h := range x.hosts {
		for _, s := range h.States {
			switch s.Code {
			case compliance.HostSilent:
				whole[environment.MetricHostsSilent]++
			case compliance.JobLost:
				whole[environment.MetricJobsLost]++
			default:
			}
		}
	}
	if oldest := x.pass.OldestLook(); !oldest.IsZero() {
		whole[environment.MetricOldestLook] = now.Sub(oldest).Seconds()
	}
	var out []emf.Entry
	for _, tier := range environment.DimensionValues(environment.DimensionTier) {
		out = append(out, tiers[tier].entry(unit, environment.DimensionTier, tier, map[string]any{"worst": worst[tier]}, now))
	}
	for _, kind := range environment.DimensionValues(environment.DimensionKind) {
		out = append(out, kinds[kind].entry(unit, environment.DimensionKind, kind, nil, now))
	}
	out = append(out, x.own(unit, now)...)
	// Last: that it is there says that all the others are.
	return append(out, whole.entry(unit, "", "", nil, now))
}

// countSource adds one source to the values of its tier and to those of the whole.
func countSource(g, whole gauge, j *observe.Judged) {
	g[environment.MetricSources]++
	g.max(environment.MetricWorstAgeToRPO, j.Age*hundred)
	if compliance.Breached(j.States) {
		g[environment.MetricSourcesInBreach]++
	}
	counted := map[string]bool{} // a source counts once
	one := func(in gauge, name string) {
		if !counted[name] {
			counted[name] = true
			in[name]++
		}
	}
	for _, s := range j.States {
		if !s.Breach {
			continue
		}
		switch s.Code {
		case compliance.Never:
			one(g, environment.MetricNeverBackedUp)
		case compliance.Unverified:
			one(g, environment.MetricUnverified)
		case compliance.Damaged, compliance.Rollback:
			one(g, environment.MetricDamaged)
		case compliance.Failing:
			one(g, environment.MetricFailing)
		case compliance.JobLost:
			whole[environment.MetricJobsLost]++
		case compliance.NoReceipt:
			one(whole, environment.MetricWithoutReceipt)
		case compliance.CopyLate:
			whole[environment.MetricCopiesLate]++
		default:
		}
	}
}

// own are the metrics of single sources, where the policy asks for them, of the first so many by name.
func (x *findings) own(unit map[string]string, now time.Time) []emf.Entry {
	var out []emf.Entry
	for _, j := range x.sources {
		if !j.Policy.Metrics || !j.Known || len(out) == environment.MostOwnMetrics {
			continue
		}
		g := gauge{environment.MetricSourceAgeToRPO: j.Age * hundred, environment.MetricSourceBreach: 0, environment.MetricSourceBytes: 0}
		if compliance.Breached(j.States) {
			g[environment.MetricSourceBreach] = 1
		}
		if j.Memory != nil {
			g[environment.MetricSourceBytes] = float64(j.Memory.Stored)
		}
		out = append(out, g.entry(unit, environment.DimensionSource, j.Source.String(), nil, now))
	}
	return out
}
