package main

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// widgetDocumentation is what CloudWatch shows who edits the widget: Markdown.
const widgetDocumentation = `## Hosts
A row for each host: the worst of what is not met, the age of the newest state of the worst source as a share of its RPO,
bytes stored and their course over two weeks. The function *monitor* writes it down in each pass.

No parameters.`

// maxRows is how many hosts the widget shows; the worst come first.
const maxRows = 200

// rows is the table of hosts, worst first.
func (x *findings) rows(now time.Time) control.Rows {
	out := control.Rows{Version: 1, Time: now, Hosts: []control.Row{}}
	for _, h := range x.hosts {
		row := control.Row{Host: h.Host, Tier: string(h.Tier), Sources: len(h.Sources), Stored: h.Stored}
		states := slices.Clone(h.States)
		var samples [][]compliance.Sample
		for _, j := range h.Sources {
			states = append(states, j.States...)
			if compliance.Breached(j.States) {
				row.Breach++
			}
			row.Age = max(row.Age, j.Age)
			if j.Memory != nil {
				samples = append(samples, j.Memory.Days)
			}
			if m := j.Memory; m != nil && len(m.Kept) > 0 && m.Kept[len(m.Kept)-1].Arrived.After(row.Newest) {
				row.Newest = m.Kept[len(m.Kept)-1].Arrived
			}
		}
		if worst := compliance.Worst(states); worst.Code != "" {
			row.Worst = string(worst.Code)
			if worst.Code != compliance.OK {
				row.Cause = clip(worst.Cause, 200)
			}
		}
		row.Days = days(samples)
		out.Hosts = append(out.Hosts, row)
	}
	slices.SortStableFunc(out.Hosts, func(a, b control.Row) int {
		return cmp.Or(cmp.Compare(b.Breach, a.Breach), cmp.Compare(b.Age, a.Age), cmp.Compare(a.Host, b.Host))
	})
	return out
}

func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// series is how many days a row's course has.
const series = 14

// days sums the samples of a host's sources by day, for the last days that any of them has.
func days(of [][]compliance.Sample) []int64 {
	byDay := map[string]int64{}
	var names []string
	last := map[string]map[int]int64{} // of a day, by source: the last sample counts
	for i, samples := range of {
		for _, s := range samples {
			day := s.Time.UTC().Format(time.DateOnly)
			if last[day] == nil {
				last[day] = map[int]int64{}
				names = append(names, day)
			}
			last[day][i] = s.Bytes
		}
	}
	slices.Sort(names)
	carried := make([]int64, len(of)) // a day without a sample is as the day before
	for _, day := range names {
		for i, v := range last[day] {
			carried[i] = v
		}
		for _, v := range carried {
			byDay[day] += v
		}
	}
	var out []int64
	for _, day := range names[max(0, len(names)-series):] {
		out = append(out, byDay[day])
	}
	return out
}

// widget answers with HTML. Everything that stands in it is escaped: names and causes come from hosts.
func (f *function) widget(ctx context.Context) (string, error) {
	r, _, err := statestore.Read[control.Rows](ctx, f.state, control.RowsKey)
	if r, err = missing(r, err); err != nil {
		return "", err
	}
	if r.Time.IsZero() {
		return "<p>Nothing yet: no pass of monitor has come to its end.</p>", nil
	}
	return table(r, f.now()), nil
}

func table(r *control.Rows, now time.Time) string {
	var b strings.Builder
	if old := now.Sub(r.Time); old > 15*time.Minute {
		fmt.Fprintf(&b, `<p><b style="color:#d13212">monitor was last at work at %s</b></p>`, html.EscapeString(r.Time.UTC().Format(time.RFC3339)))
	}
	b.WriteString(`<table class="awsui"><thead><tr><th>Host</th><th>Tier</th><th>Sources</th><th>Not met</th><th>Worst</th><th>Age of RPO</th><th>Newest</th><th>Stored</th><th>14 days</th></tr></thead><tbody>`)
	for i := range r.Hosts {
		if i == maxRows {
			fmt.Fprintf(&b, `<tr><td colspan="9">and %d more</td></tr>`, len(r.Hosts)-maxRows)
			break
		}
		h := &r.Hosts[i]
		color := "#1d8102"
		switch {
		case h.Breach > 0:
			color = "#d13212"
		case h.Worst != string(compliance.OK):
			color = "#8a6d00"
		}
		newest := "never"
		if !h.Newest.IsZero() {
			newest = policy.Duration(max(0, now.Sub(h.Newest))).Rough() + " ago"
		}
		fmt.Fprintf(&b, `<tr><td>%s</td><td>%s</td><td>%d</td><td>%d</td><td title="%s"><b style="color:%s">%s</b></td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>`,
			html.EscapeString(h.Host), html.EscapeString(h.Tier), h.Sources, h.Breach, html.EscapeString(h.Cause), color, html.EscapeString(h.Worst),
			bar(h.Age), html.EscapeString(newest), html.EscapeString(compliance.RoughSize(float64(h.Stored))), sparkline(h.Days))
	}
	b.WriteString("</tbody></table>")
	return b.String()
}

// bar shows a share of the RPO; beyond it the bar is full and red.
func bar(share float64) string {
	color := "#1d8102"
	if share > 1 {
		color = "#d13212"
	}
	return fmt.Sprintf(`<svg width="60" height="10"><rect width="60" height="10" fill="#e9ebed"/><rect width="%.0f" height="10" fill="%s"/></svg> %.0f&nbsp;%%`,
		60*min(1, max(0, share)), color, share*hundred)
}

// sparkline draws values as a line.
func sparkline(values []int64) string {
	if len(values) < 2 {
		return ""
	}
	const width, height = 80.0, 16.0
	low, high := slices.Min(values), slices.Max(values)
	var points []string
	for i, v := range values {
		y := height / 2
		if high > low {
			y = height - 1 - float64(v-low)/float64(high-low)*(height-2)
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", float64(i)*width/float64(len(values)-1), y))
	}
	return fmt.Sprintf(`<svg width="%.0f" height="%.0f"><polyline points="%s" fill="none" stroke="#0073bb" stroke-width="1.5"/></svg>`, width, height, strings.Join(points, " "))
}
