package alarm_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/alarm"
)

const line = `{"Damaged":0,"Sources":2,"_aws":{"Timestamp":1767225600000,"CloudWatchMetrics":[{"Namespace":"Holdfast","Dimensions":[["tier"]],` +
	`"Metrics":[{"Name":"Damaged","Unit":"Count"},{"Name":"Sources","Unit":"Count"}]}]},"tier":"low"}`

func TestParse(t *testing.T) {
	points, err := alarm.Parse("something else\n{\"msg\":\"a log line\"}\n" + line + "\n")
	if err != nil || len(points) != 2 {
		t.Fatalf("%v, %v", points, err)
	}
	if p := points[1]; p.Name != "Sources" || p.Value != 2 || p.Dimensions["tier"] != "low" || !p.Time.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", p)
	}
	if _, err := alarm.Parse(`{"_aws":{"CloudWatchMetrics":[{"Dimensions":[["tier"]],"Metrics":[]}]}}`); err == nil {
		t.Error("a dimension without a value passed")
	}
}

func TestEvaluate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 15, 0, 0, time.UTC)
	at := func(minutes int, value float64) alarm.Point {
		return alarm.Point{Namespace: "Holdfast", Name: "M", Dimensions: map[string]string{}, Time: now.Add(-time.Duration(minutes) * time.Minute), Value: value}
	}
	beat := alarm.Rule{
		Namespace: "Holdfast", Metric: "M", Statistic: "Sum", Operator: "LessThanThreshold", Threshold: 1, Missing: "breaching",
		Dimensions: map[string]string{}, Period: 5 * time.Minute, Periods: 3,
	}
	breach := beat
	breach.Statistic, breach.Operator, breach.Threshold, breach.Missing, breach.Periods = "Maximum", "GreaterThanThreshold", 0, "notBreaching", 1
	for name, c := range map[string]struct {
		rule   alarm.Rule
		points []alarm.Point
		want   alarm.State
	}{
		"no heartbeat at all":              {beat, nil, alarm.Alarm},
		"one heartbeat in three periods":   {beat, []alarm.Point{at(12, 1)}, alarm.OK},
		"the last heartbeat was long ago":  {beat, []alarm.Point{at(16, 1)}, alarm.Alarm},
		"nothing is no breach":             {breach, nil, alarm.OK},
		"the greatest value counts":        {breach, []alarm.Point{at(1, 0), at(2, 3), at(3, 0)}, alarm.Alarm},
		"a breach that is over":            {breach, []alarm.Point{at(1, 0), at(6, 3)}, alarm.OK},
		"points of another metric":         {beat, []alarm.Point{{Namespace: "Holdfast", Name: "N", Time: now, Value: 1}}, alarm.Alarm},
		"points with dimensions of others": {beat, []alarm.Point{{Namespace: "Holdfast", Name: "M", Dimensions: map[string]string{"tier": "low"}, Time: now, Value: 1}}, alarm.Alarm},
	} {
		if got := c.rule.Evaluate(c.points, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
