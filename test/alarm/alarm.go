// Package alarm evaluates CloudWatch alarms of synthesized templates over metrics in the embedded format, as far as the
// deployment uses them: one metric, Maximum or Sum, all periods of a window, and the rules for missing data. An emulator
// does none of this, and on AWS it would be too late to find out.
package alarm

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/test/iam"
)

// Point is one value of one metric.
type Point struct {
	Namespace, Name string
	Dimensions      map[string]string
	Time            time.Time
	Value           float64
}

// Parse takes the metrics out of a function's output: every line that is JSON with an _aws member.
func Parse(output string) ([]Point, error) {
	var out []Point
	for line := range strings.Lines(output) {
		at := strings.Index(line, "{")
		if at < 0 || !strings.Contains(line, `"_aws"`) {
			continue
		}
		points, err := record(strings.TrimSpace(line[at:]))
		if err != nil {
			return nil, fmt.Errorf("metrics %.200s: %w", line, err)
		}
		out = append(out, points...)
	}
	return out, nil
}

func record(line string) ([]Point, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		return nil, err
	}
	var meta struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	}
	if err := json.Unmarshal(members["_aws"], &meta); err != nil {
		return nil, err
	}
	var out []Point
	for _, d := range meta.CloudWatchMetrics {
		for _, set := range d.Dimensions {
			dimensions := map[string]string{}
			for _, name := range set {
				var value string
				if err := json.Unmarshal(members[name], &value); err != nil {
					return nil, fmt.Errorf("dimension %s: %w", name, err)
				}
				dimensions[name] = value
			}
			for _, m := range d.Metrics {
				p := Point{Namespace: d.Namespace, Name: m.Name, Dimensions: dimensions, Time: time.UnixMilli(meta.Timestamp)}
				if err := json.Unmarshal(members[m.Name], &p.Value); err != nil {
					return nil, fmt.Errorf("metric %s: %w", m.Name, err)
				}
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// State is that of an alarm.
type State string

// The states.
const (
	OK    State = "OK"
	Alarm State = "ALARM"
)

// Rule is one alarm of a template.
type Rule struct {
	Name, Namespace, Metric, Statistic, Operator, Missing string
	Dimensions                                            map[string]string
	Threshold                                             float64
	Period                                                time.Duration
	Periods                                               int
}

// Rules returns the alarms of all templates by name.
func Rules(a *iam.Account) (map[string]Rule, error) {
	out := map[string]Rule{}
	for _, t := range a.Templates {
		for id, r := range t.Resources {
			if r.Type != "AWS::CloudWatch::Alarm" {
				continue
			}
			rule, err := parseRule(r.Properties)
			if err != nil {
				return nil, fmt.Errorf("alarm %s: %w", id, err)
			}
			out[rule.Name] = rule
		}
	}
	return out, nil
}

func parseRule(properties map[string]any) (Rule, error) {
	text, err := json.Marshal(properties)
	if err != nil {
		return Rule{}, err
	}
	var p struct {
		AlarmName, Namespace, MetricName, Statistic, ComparisonOperator, TreatMissingData string
		Dimensions                                                                        []struct{ Name, Value string }
		Threshold, Period                                                                 float64
		EvaluationPeriods                                                                 int
		DatapointsToAlarm                                                                 *int
		Metrics                                                                           []any
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Rule{}, err
	}
	r := Rule{
		Name: p.AlarmName, Namespace: p.Namespace, Metric: p.MetricName, Statistic: p.Statistic, Operator: p.ComparisonOperator, Missing: p.TreatMissingData,
		Dimensions: map[string]string{}, Threshold: p.Threshold, Period: time.Duration(p.Period) * time.Second, Periods: p.EvaluationPeriods,
	}
	for _, d := range p.Dimensions {
		r.Dimensions[d.Name] = d.Value
	}
	known := slices.Contains([]string{"Maximum", "Sum"}, r.Statistic) && slices.Contains([]string{"GreaterThanThreshold", "LessThanThreshold"}, r.Operator) &&
		slices.Contains([]string{"breaching", "notBreaching"}, r.Missing)
	if !known || p.DatapointsToAlarm != nil || p.Metrics != nil || r.Periods < 1 || r.Period <= 0 {
		return r, fmt.Errorf("%s uses what the evaluator does not know: %s", r.Name, text)
	}
	return r, nil
}

// Evaluate tells the alarm's state at a time. It is in alarm if each of its last periods is: by the statistic of its
// points, or by the rule for missing data where it has none.
func (r Rule) Evaluate(points []Point, now time.Time) State {
	for i := range r.Periods {
		end := now.Add(-time.Duration(i) * r.Period)
		value, some := 0.0, false
		for _, p := range points {
			if !r.about(p) || p.Time.After(end) || !p.Time.After(end.Add(-r.Period)) {
				continue
			}
			switch {
			case r.Statistic == "Sum":
				value += p.Value
			case !some || p.Value > value:
				value = p.Value
			}
			some = true
		}
		breaches := r.Missing == "breaching"
		if some {
			breaches = r.Operator == "GreaterThanThreshold" && value > r.Threshold || r.Operator == "LessThanThreshold" && value < r.Threshold
		}
		if !breaches {
			return OK
		}
	}
	return Alarm
}

func (r Rule) about(p Point) bool {
	return p.Namespace == r.Namespace && p.Name == r.Metric && maps.Equal(p.Dimensions, r.Dimensions)
}
