package iam_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/test/alarm"
)

// TestFailuresAreAlarms evaluates the synthesized alarms over a day of each function's schedule: a beat that fails is tried once
// more a minute later. One bad beat is nothing, a function that fails at each of them is an alarm, however seldom it is called.
func TestFailuresAreAlarms(t *testing.T) {
	d := deployment(t)
	rules, err := alarm.Rules(d.account)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, f := range append(settings.Functions(false), settings.Functions(true)...) {
		every := time.Duration(f.Every) * time.Second
		name := map[string]string{"FunctionName": settings.FunctionName(f.Verb)}
		errs := func(beat int) []alarm.Point {
			at := start.Add(time.Duration(beat) * every)
			p := alarm.Point{Namespace: "AWS/Lambda", Name: "Errors", Dimensions: name, Time: at, Value: 1}
			again := p
			again.Time = at.Add(time.Minute)
			return []alarm.Point{p, again}
		}
		messages := func(beat int) []alarm.Point {
			return []alarm.Point{{
				Namespace: environment.Namespace, Name: environment.MetricFailedMessages, Time: start.Add(time.Duration(beat) * every), Value: 1,
				Dimensions: map[string]string{environment.DimensionFunction: f.Verb},
			}}
		}
		kinds := map[string]func(int) []alarm.Point{"crashes": errs}
		if f.Queue {
			kinds["failed-messages"] = messages
		}
		for kind, points := range kinds {
			rule, ok := rules["holdfast-"+f.Verb+"-"+kind]
			if !ok {
				t.Errorf("%s: no alarm %s", f.Verb, kind)
				continue
			}
			var all []alarm.Point
			for beat := range 8 {
				all = append(all, points(beat)...)
			}
			rings := func(points []alarm.Point) bool {
				for at := start; at.Before(start.Add(8 * every)); at = at.Add(every / 60) {
					if rule.Evaluate(points, at) == alarm.Alarm {
						return true
					}
				}
				return false
			}
			if rings(points(3)) {
				t.Errorf("%s: one beat that fails is an alarm", rule.Name)
			}
			if !rings(all) {
				t.Errorf("%s: it fails each %v, and nobody is told: more than %g in %v", rule.Name, every, rule.Threshold, rule.Period)
			}
		}
	}
}
