package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// table is a Markdown table in the making.
type table struct{ b strings.Builder }

func newTable(heads ...string) *table {
	t := &table{}
	t.row(heads...)
	for range heads {
		t.b.WriteString("| --- ")
	}
	t.b.WriteString("|\n")
	return t
}

func (t *table) row(cells ...string) {
	for _, c := range cells {
		t.b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	t.b.WriteString("|\n")
}

// number has three significant digits at most, and none after the point from 100 on.
func number(x float64) string {
	switch {
	case x >= 100 || x == 0:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

// spread is "median [min–max]", or the median alone if there is no spread.
func spread(v []float64) string {
	if len(v) == 0 {
		return "–"
	}
	low, high := number(slices.Min(v)), number(slices.Max(v))
	if low == high {
		return low
	}
	return fmt.Sprintf("%s [%s–%s]", number(median(v)), low, high)
}

func (r ratio) String() string { return fmt.Sprintf("%.2f [%.2f–%.2f]", r.Value, r.Low, r.High) }

// bar is a goal: the ratio to a peer that a measure must not pass.
type bar struct {
	step    string
	measure measure
	limit   float64
	peer    string // "": the best of this measure
}

func bars() []bar {
	return []bar{
		{stepFull, wall(), 0.60, ""},
		{stepFull, cpu(), 0.65, ""},
		{stepFull, size(), 1.03, toolRestic},
		{stepFull, rss(), 1, ""},
		{stepUnchanged, wall(), 0.40, ""},
		{stepUnchanged, rss(), 1, ""},
		{stepDay2, wall(), 0.50, ""},
		{stepDay2, added(), 0.25, ""},
		{stepDay2, rss(), 1, ""},
		{stepVerify, wall(), 0.65, ""},
		{stepVerify, rss(), 1, ""},
		{stepRestore, wall(), 0.50, ""},
		{stepRestore, rss(), 1, ""},
	}
}

// markdown renders a report as what stands between its markers in the document.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s. Seed %d.\n\n", r.Time.Format(time.DateOnly), r.Machine, r.Seed)
	if c := r.Corpus; c.Files > 0 {
		fmt.Fprintf(&b, "Corpus: %.2f GB in %d files, %d directories and %d symlinks.", float64(c.Bytes)/1e9, c.Files, c.Dirs, c.Symlinks)
		if d := c.Day2; d != nil {
			fmt.Fprintf(&b, " Day 2: %d files edited (%.1f MB), %d of %d database pages changed (%.1f %%, %.1f MB); together %.1f MB.",
				d.Files, float64(d.Bytes)/mega, d.Changed, d.Pages, 100*quotient(float64(d.Changed), float64(d.Pages)),
				float64(d.PageBytes)/mega, float64(d.LowerBound)/mega)
		}
		b.WriteString("\n\n")
	}
	for _, n := range r.Notes {
		b.WriteString("- " + n + "\n")
	}
	b.WriteString("\n")
	if r.Mode == "sqlite" {
		return b.String() + r.lagTable()
	}
	if r.Mode == "months" {
		return b.String() + r.weights()
	}
	b.WriteString(r.details())
	switch r.Mode {
	case "compare":
		b.WriteString("\nHoldfast against the best peer of each measure, or the one that is named:\n\n" + r.against())
	case "chain", "s3":
		b.WriteString("\n" + r.factors())
	case "postgres":
		b.WriteString("\n" + r.rates())
	}
	return b.String()
}

// details lists every step of every tool.
func (r *report) details() string {
	t := newTable("step", "tool", "rounds", "wall s", "CPU s", "peak RSS MB", "repository MB", "added MB")
	for _, step := range r.steps() {
		for _, tool := range r.Tools {
			v := r.values(step, tool, wall())
			if len(v) == 0 {
				continue
			}
			t.row(step, tool, fmt.Sprint(len(v)), spread(v), spread(r.values(step, tool, cpu())), spread(r.values(step, tool, rss())),
				spread(r.values(step, tool, size())), spread(r.values(step, tool, added())))
		}
	}
	return t.b.String()
}

// weights lists how much the repositories hold at the end of each day that is reported.
func (r *report) weights() string {
	t := newTable(append([]string{"MB after backup and prune"}, r.Tools...)...)
	for _, step := range r.steps() {
		cells := []string{step}
		for _, tool := range r.Tools {
			cells = append(cells, spread(r.values(step, tool, size())))
		}
		t.row(cells...)
	}
	return t.b.String()
}

// against compares with the peers, bar by bar.
func (r *report) against() string {
	t := newTable("step", "measure", "Holdfast", "peer", "ratio [95 % interval]", "bar", "reached")
	for _, x := range bars() {
		peer := x.peer
		if peer == "" {
			peer = r.bestPeer(x.step, x.measure, peers())
		}
		ours, theirs := r.values(x.step, toolHoldfast, x.measure), r.values(x.step, peer, x.measure)
		if len(ours) == 0 || len(theirs) == 0 {
			continue
		}
		q := ratioOf(ours, theirs, r.Seed)
		reached := "no"
		if q.Value <= x.limit {
			reached = "yes"
		}
		unit := " " + x.measure.unit
		t.row(x.step, x.measure.name, number(median(ours))+unit, peer+" "+number(median(theirs))+unit, q.String(),
			fmt.Sprintf("%.2f", x.limit), reached)
	}
	return t.b.String()
}

// factors compares each step's wall time with that of the first place or state.
func (r *report) factors() string {
	t := newTable("step", "where", "against", "wall ratio [95 % interval]")
	for _, step := range r.steps() {
		first := r.values(step, r.Tools[0], wall())
		for _, tool := range r.Tools[1:] {
			if v := r.values(step, tool, wall()); len(v) > 0 && len(first) > 0 {
				t.row(step, tool, r.Tools[0], ratioOf(v, first, r.Seed).String())
			}
		}
	}
	return t.b.String()
}
