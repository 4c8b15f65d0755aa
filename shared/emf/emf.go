// Package emf writes metrics in CloudWatch's embedded metric format: a line of JSON on standard output that CloudWatch
// Logs turns into metrics. No request is made for them.
//
// Use [Line] for each set of dimension values. The format is specified at
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
package emf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"
)

// The limits of the format.
const (
	MaxMetrics    = 100
	MaxDimensions = 30
	maxName       = 1024
	maxValue      = 1024
)

// Metric is one value.
type Metric struct {
	Name  string
	Unit  string // as CloudWatch names units
	Value float64
}

// Entry is metrics that share their dimensions.
type Entry struct {
	Namespace  string
	Time       time.Time
	Dimensions map[string]string // empty: none
	Metrics    []Metric
	Fields     map[string]any // searchable in the log, no metrics
}

type directive struct {
	Namespace  string       `json:"Namespace"`
	Dimensions [][]string   `json:"Dimensions"`
	Metrics    []definition `json:"Metrics"`
}

type definition struct {
	Name string `json:"Name"`
	Unit string `json:"Unit,omitempty"`
}

type metadata struct {
	Timestamp  int64       `json:"Timestamp"`
	Directives []directive `json:"CloudWatchMetrics"`
}

// Line encodes an entry as one line, which ends in a line feed. What CloudWatch would drop without a word is an error: a
// value that is no number, a name twice, too many of anything.
func Line(e Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	doc := map[string]any{}
	put := func(name string, v any) error {
		if _, twice := doc[name]; twice || name == "" || name == "_aws" || len(name) > maxName {
			return fmt.Errorf("encode metrics: name %q is there twice, or can't be one", name)
		}
		doc[name] = v
		return nil
	}
	names := slices.Sorted(maps.Keys(e.Dimensions))
	if names == nil {
		names = []string{}
	}
	d := directive{Namespace: e.Namespace, Dimensions: [][]string{names}}
	for _, name := range names {
		if err := put(name, e.Dimensions[name]); err != nil {
			return nil, err
		}
	}
	for _, m := range e.Metrics {
		if err := put(m.Name, m.Value); err != nil {
			return nil, err
		}
		d.Metrics = append(d.Metrics, definition{m.Name, m.Unit})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		if err := put(name, e.Fields[name]); err != nil {
			return nil, err
		}
	}
	doc["_aws"] = metadata{Timestamp: e.Time.UnixMilli(), Directives: []directive{d}}
	line, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode metrics: %w", err)
	}
	return append(line, '\n'), nil
}

func (e *Entry) check() error {
	if e.Namespace == "" || len(e.Metrics) == 0 || e.Time.IsZero() {
		return errors.New("encode metrics: no namespace, no time or no metric")
	}
	if len(e.Metrics) > MaxMetrics || len(e.Dimensions) > MaxDimensions {
		return fmt.Errorf("encode metrics: %d metrics with %d dimensions are more than %d and %d", len(e.Metrics), len(e.Dimensions), MaxMetrics, MaxDimensions)
	}
	for name, v := range e.Dimensions {
		if v == "" || len(v) > maxValue {
			return fmt.Errorf("encode metrics: dimension %s has %d characters", name, len(v))
		}
	}
	for _, m := range e.Metrics {
		if math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
			return fmt.Errorf("encode metrics: %s is no number", m.Name)
		}
	}
	return nil
}

// Write encodes entries and writes them, each in one call, so that lines of others do not come between.
func Write(w io.Writer, entries ...Entry) error {
	for _, e := range entries {
		line, err := Line(e)
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}

// Value is a metric that was read back from a line.
type Value struct {
	Namespace  string
	Name       string
	Unit       string
	Dimensions map[string]string
	Value      float64
	Time       time.Time
}

// Parse reads the metrics of one line as CloudWatch would; none if the line is another one. Tests and dashboards without
// CloudWatch use it.
func Parse(line []byte) ([]Value, error) {
	var meta struct {
		AWS *metadata `json:"_aws"`
	}
	if err := json.Unmarshal(line, &meta); err != nil || meta.AWS == nil {
		return nil, nil //nolint:nilerr // a line of text is no metric
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return nil, fmt.Errorf("decode metrics: %w", err)
	}
	var out []Value
	for _, d := range meta.AWS.Directives {
		for _, set := range d.Dimensions {
			dims := map[string]string{}
			for _, name := range set {
				var v string
				if err := json.Unmarshal(members[name], &v); err != nil {
					return nil, fmt.Errorf("decode metrics: dimension %s: %w", name, err)
				}
				dims[name] = v
			}
			for _, m := range d.Metrics {
				v := Value{Namespace: d.Namespace, Name: m.Name, Unit: m.Unit, Dimensions: dims, Time: time.UnixMilli(meta.AWS.Timestamp).UTC()}
				if err := json.Unmarshal(members[m.Name], &v.Value); err != nil {
					return nil, fmt.Errorf("decode metrics: %s: %w", m.Name, err)
				}
				out = append(out, v)
			}
		}
	}
	return out, nil
}
