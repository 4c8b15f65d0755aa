package stack

import (
	"encoding/json"
	"slices"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// dashboard shows the machinery on top of the objectives, and a row for each host, which the function monitor draws.
func (b *builder) dashboard(st awscdk.Stack, functions []settings.Function) {
	name := "holdfast"
	if b.s.Second {
		name = "holdfast-replica"
	}
	body, err := json.Marshal(map[string]any{"widgets": b.widgets(functions)})
	if err != nil {
		b.errs = append(b.errs, err)
		return
	}
	awscloudwatch.NewCfnDashboard(st, jsii.String("Dashboard"), &awscloudwatch.CfnDashboardProps{
		DashboardName: jsii.String(name), DashboardBody: jsii.String(string(body)),
	})
}

func (b *builder) widgets(functions []settings.Function) []any {
	var out []any
	row := 0
	if !b.s.Second {
		out = append(out, map[string]any{
			"type": "custom", "x": 0, "y": 0, "width": 24, "height": 10,
			"properties": map[string]any{
				"title": "Hosts", "endpoint": b.s.ARN("lambda", "function:"+settings.FunctionName(settings.Monitor)),
				"params": map[string]any{"widget": "hosts"}, "updateOn": map[string]any{"refresh": true, "resize": false, "timeRange": false},
			},
		})
		row = 10
	}
	column := 0
	add := func(title, stat string, metrics []any) {
		out = append(out, map[string]any{
			"type": "metric", "x": column * 8, "y": row, "width": 8, "height": 6,
			"properties": map[string]any{"title": title, "region": b.s.Region, "stat": stat, "period": 300, "view": "timeSeries", "metrics": metrics},
		})
		if column++; column == 3 {
			column, row = 0, row+6
		}
	}
	for _, m := range environment.Metrics() {
		if series := b.series(m); len(series) > 0 {
			add(m.Name+": "+m.Help, "Maximum", series)
		}
	}
	for _, metric := range []string{"Invocations", "Errors", "Duration"} {
		var series []any
		for _, f := range functions {
			series = append(series, []any{"AWS/Lambda", metric, "FunctionName", settings.FunctionName(f.Verb)})
		}
		stat := "Sum"
		if metric == "Duration" {
			stat = "Maximum"
		}
		add(metric, stat, series)
	}
	return out
}

// series are the lines of one metric in this region: one for each value of its dimension.
func (b *builder) series(m environment.Metric) []any {
	here := func(f settings.Function) bool { return f.Verb == m.Function }
	if m.Function != "" && !slices.ContainsFunc(settings.Functions(b.s.Second), here) {
		return nil
	}
	if m.Dimensions == nil {
		return []any{[]any{environment.Namespace, m.Name}}
	}
	dimension := m.Dimensions[0]
	values := environment.DimensionValues(dimension)
	switch dimension {
	case environment.DimensionSource:
		values = b.s.Own()
	case environment.DimensionFunction:
		values = nil
		for _, f := range settings.Functions(b.s.Second) {
			if f.Queue {
				values = append(values, f.Verb)
			}
		}
	}
	var out []any
	for _, v := range values {
		out = append(out, []any{environment.Namespace, m.Name, dimension, v})
	}
	return out
}
