package main

import (
	"testing"
)

func TestMedian(t *testing.T) {
	for _, x := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(x.values); got != x.want {
			t.Errorf("median of %v is %v, want %v", x.values, got, x.want)
		}
	}
}

func TestRatioIsSeeded(t *testing.T) {
	a, b := []float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}
	first := ratioOf(a, b, 1)
	if first != ratioOf(a, b, 1) {
		t.Error("equal seeds give different intervals")
	}
	if first.Value != 3.0/8 || first.Low > first.Value || first.High < first.Value {
		t.Errorf("ratio %v", first)
	}
	if point := ratioOf([]float64{2}, []float64{4}, 1); point != (ratio{0.5, 0.5, 0.5}) {
		t.Errorf("ratio of single values %v", point)
	}
	if zero := ratioOf([]float64{2}, []float64{0}, 1); zero.Value != 0 {
		t.Errorf("ratio to nothing %v", zero)
	}
}

// Of intervals from random samples with a known ratio, about 95 % must have it in them; the percentile bootstrap of a
// median with few values has somewhat fewer.
func TestRatioCovers(t *testing.T) {
	random := dice(7, "coverage")
	const tries, n = 40, 9
	covered := 0
	for try := range tries {
		a, b := make([]float64, n), make([]float64, n)
		for i := range n {
			a[i], b[i] = 50+random.NormFloat64()*3, 100+random.NormFloat64()*3
		}
		if r := ratioOf(a, b, uint64(try)); r.Low <= 0.5 && 0.5 <= r.High {
			covered++
		}
	}
	if covered < tries*85/100 {
		t.Errorf("%d of %d intervals have the true ratio", covered, tries)
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.123: "0.12", 1.5: "1.50", 14.62: "14.6", 917.4: "917"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
	if got := spread([]float64{2, 1, 3}); got != "2.00 [1.00–3.00]" {
		t.Errorf("spread %q", got)
	}
	if got := spread([]float64{5, 5}); got != "5.00" {
		t.Errorf("spread without one %q", got)
	}
	if got := spread(nil); got != "–" {
		t.Errorf("spread of nothing %q", got)
	}
}
