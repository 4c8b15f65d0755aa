package emf_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/emf"
)

func at() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func TestLine(t *testing.T) {
	var out bytes.Buffer
	err := emf.Write(&out, emf.Entry{
		Namespace: "Holdfast", Time: at(), Dimensions: map[string]string{"tier": "critical"},
		Metrics: []emf.Metric{{"SourcesInBreach", "Count", 2}, {"WorstAgeToRPO", "Percent", 130.5}}, Fields: map[string]any{"worst": "h/db"},
	}, emf.Entry{Namespace: "Holdfast", Time: at(), Metrics: []emf.Metric{{"MonitorPass", "Count", 1}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"SourcesInBreach":2,"WorstAgeToRPO":130.5,"_aws":{"Timestamp":1795176000000,"CloudWatchMetrics":[{"Namespace":"Holdfast","Dimensions":[["tier"]],` +
		`"Metrics":[{"Name":"SourcesInBreach","Unit":"Count"},{"Name":"WorstAgeToRPO","Unit":"Percent"}]}]},"tier":"critical","worst":"h/db"}` + "\n" +
		`{"MonitorPass":1,"_aws":{"Timestamp":1795176000000,"CloudWatchMetrics":[{"Namespace":"Holdfast","Dimensions":[[]],"Metrics":[{"Name":"MonitorPass","Unit":"Count"}]}]}}` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var got []emf.Value
	for line := range strings.Lines(out.String()) {
		values, err := emf.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, values...)
	}
	if len(got) != 3 || got[1].Value != 130.5 || got[1].Dimensions["tier"] != "critical" || !got[2].Time.Equal(at()) {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"", "hello", `{"level":"INFO"}`} {
		if v, err := emf.Parse([]byte(text)); v != nil || err != nil {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
}

func TestRefused(t *testing.T) {
	many := make([]emf.Metric, emf.MaxMetrics+1)
	for name, e := range map[string]emf.Entry{
		"nothing":         {Namespace: "N", Time: at()},
		"no namespace":    {Time: at(), Metrics: []emf.Metric{{"a", "Count", 1}}},
		"no time":         {Namespace: "N", Metrics: []emf.Metric{{"a", "Count", 1}}},
		"no number":       {Namespace: "N", Time: at(), Metrics: []emf.Metric{{"a", "Count", math.NaN()}}},
		"twice":           {Namespace: "N", Time: at(), Metrics: []emf.Metric{{"a", "Count", 1}, {"a", "Count", 2}}},
		"field is metric": {Namespace: "N", Time: at(), Metrics: []emf.Metric{{"a", "Count", 1}}, Fields: map[string]any{"a": 1}},
		"reserved":        {Namespace: "N", Time: at(), Metrics: []emf.Metric{{"_aws", "Count", 1}}},
		"empty dimension": {Namespace: "N", Time: at(), Metrics: []emf.Metric{{"a", "Count", 1}}, Dimensions: map[string]string{"d": ""}},
		"too many":        {Namespace: "N", Time: at(), Metrics: many},
	} {
		if line, err := emf.Line(e); err == nil {
			t.Errorf("%s: %s", name, line)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":1,"_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[["d"]],"Metrics":[{"Name":"a"}]}]},"d":"x"}`))
	f.Add([]byte(`{"_aws":{"CloudWatchMetrics":[{"Dimensions":[["d"]]}]}}`))
	f.Add([]byte(`text`))
	f.Fuzz(func(_ *testing.T, line []byte) { _, _ = emf.Parse(line) })
}
