package environment_test

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/functions/environment"
)

// TestMetricsAreFew bounds the bill: CloudWatch charges for each name with each set of values.
func TestMetricsAreFew(t *testing.T) {
	sets := map[string]bool{}
	names := map[string]bool{}
	for _, m := range environment.Metrics() {
		if names[m.Name] {
			t.Errorf("%s is listed twice: a name has one set of dimensions", m.Name)
		}
		names[m.Name] = true
		sets[strings.Join(m.Dimensions, ",")] = true
		for _, d := range m.Dimensions {
			if d != environment.DimensionSource && len(environment.DimensionValues(d)) == 0 {
				t.Errorf("%s: nobody knows how many values the dimension %s has", m.Name, d)
			}
		}
		if m.Help == "" || m.Unit == "" {
			t.Errorf("%s has no help or no unit", m.Name)
		}
	}
	if len(sets) > 5 {
		t.Errorf("%d sets of dimensions: %v", len(sets), sets)
	}
	if n := environment.Series(0); n > 80 {
		t.Errorf("%d metrics without any source of its own", n)
	}
	if n := environment.Series(10000) - environment.Series(0); n > 3*environment.MostOwnMetrics {
		t.Errorf("10,000 sources make %d metrics of their own", n)
	}
}
