package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/test/alarm"
	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/iam"
)

// judged evaluates the alarms of the templates over the metrics that the functions wrote. A pass of monitor may find another
// at work, and of a function that takes long to end the emulator loses what it wrote: then they are asked again.
func judged(w *world) {
	account, err := iam.Load(w.Assembly, cloud.Account)
	w.must(err)
	rules, err := alarm.Rules(account)
	w.must(err)
	var points []alarm.Point
	w.until("alarms", func() (bool, string) {
		w.tick(settings.Monitor, time.Now())
		w.invokeBy(lambda.NewFromConfig(w.Config(second)), settings.Watchdog, map[string]any{})
		var err error
		if points, err = alarm.Parse(w.Output(w.t)); err != nil {
			return false, err.Error() // a line that is being written
		}
		wrong := w.alarms(rules, points)
		return len(wrong) == 0, strings.Join(wrong, "; ")
	})
	known := map[string][]string{}
	for _, m := range environment.Metrics() {
		known[m.Name] = m.Dimensions
	}
	for _, p := range points {
		if dimensions, ok := known[p.Name]; !ok || !slices.Equal(slices.Sorted(maps.Keys(p.Dimensions)), slices.Sorted(slices.Values(dimensions))) {
			w.t.Errorf("%s with %v is emitted and not listed", p.Name, p.Dimensions)
		}
	}
}

// alarms tells which alarms are not as they should be by these metrics.
func (w *world) alarms(rules map[string]alarm.Rule, points []alarm.Point) (wrong []string) {
	now := time.Now().Add(time.Second)
	for name, want := range map[string][2]alarm.State{ // with the metrics, and without any
		"holdfast-breach-critical":  {alarm.Alarm, alarm.OK},
		"holdfast-breach-low":       {alarm.Alarm, alarm.OK},
		"holdfast-breach-high":      {alarm.OK, alarm.OK},
		"holdfast-damaged-critical": {alarm.Alarm, alarm.OK},
		"holdfast-damaged-low":      {alarm.OK, alarm.OK},
		"holdfast-monitor-pass":     {alarm.OK, alarm.Alarm},
		"holdfast-unconfirmed":      {alarm.OK, alarm.OK},
		"holdfast-source-web-1/app": {alarm.Alarm, alarm.OK},
		"holdfast-watchdog-pass":    {alarm.OK, alarm.Alarm},
		"holdfast-primary-silent":   {alarm.OK, alarm.Alarm},
	} {
		rule, ok := rules[name]
		if !ok {
			w.t.Fatalf("no alarm %s", name)
		}
		if got := [2]alarm.State{rule.Evaluate(points, now), rule.Evaluate(nil, now)}; got != want {
			wrong = append(wrong, fmt.Sprintf("alarm %s: with metrics and without %v, want %v", name, got, want))
		}
	}
	return wrong
}
