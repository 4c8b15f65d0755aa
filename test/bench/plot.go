package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Measures of the plot, in pixels.
const (
	plotWidth  = 760
	plotLeft   = 90
	plotRight  = 120
	barHeight  = 14
	groupGap   = 34
	plotTop    = 44
	plotBottom = 16
)

// plot draws the wall times: a group of bars for each step, one bar for each tool, with a line from the fastest to the
// slowest round. Each group has its own scale, because steps differ by far more than tools do.
func (r *report) plot() []byte {
	colors := map[string]string{
		toolHoldfast: "#0b6e4f", toolRestic: "#4c78a8", toolKopia: "#f58518", toolBorg: "#9d755d", toolFloor: "#bab0ac",
	}
	var b strings.Builder
	y := plotTop
	for _, step := range r.steps() {
		most := 0.0
		for _, tool := range r.Tools {
			if v := r.values(step, tool, wall()); len(v) > 0 {
				most = max(most, slices.Max(v))
			}
		}
		fmt.Fprintf(&b, "<text x=\"8\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y+2, html.EscapeString(step))
		y += 8
		for _, tool := range r.Tools {
			v := r.values(step, tool, wall())
			if len(v) == 0 {
				continue
			}
			x := func(seconds float64) float64 {
				return plotLeft + quotient(seconds, most)*(plotWidth-plotLeft-plotRight)
			}
			middle := float64(y) + barHeight/2
			fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", plotLeft-6, y+barHeight-3, html.EscapeString(tool))
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n",
				plotLeft, y, x(median(v))-plotLeft, barHeight-2, colors[tool])
			fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#333\"/>\n",
				x(slices.Min(v)), middle-1, x(slices.Max(v)), middle-1)
			fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\">%s s</text>\n", x(slices.Max(v))+6, y+barHeight-3, number(median(v)))
			y += barHeight
		}
		y += groupGap - 8
	}
	height := y - groupGap + 8 + plotBottom
	head := fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "+
		"font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n<title>Wall time of each step and tool</title>\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"+
		"<text x=\"8\" y=\"18\" font-size=\"13\">Wall time, median of all rounds; the line spans the fastest and the slowest. Shorter is better.</text>\n",
		plotWidth, height, plotWidth, height)
	return []byte(head + b.String() + "</svg>\n")
}
