package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// TestJudge checks each case in every order of its receipts.
func TestJudge(t *testing.T) {
	pass := func(level string, day int) Verification {
		return Verification{level, record.Pass, time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), ""}
	}
	fail := func(level string, day int) Verification {
		r := pass(level, day)
		r.Result = record.Fail
		return r
	}
	sampled := func(level string, day int) Verification {
		r := pass(level, day)
		r.Sample = "1/30"
		return r
	}
	for name, tt := range map[string]struct {
		receipts []Verification
		want     Verification
	}{
		"one":                              {[]Verification{pass("bytes", 1)}, pass("bytes", 1)},
		"the deepest pass":                 {[]Verification{pass("structure", 9), pass("content", 1), pass("bytes", 5)}, pass("content", 1)},
		"the newest of two":                {[]Verification{pass("bytes", 1), sampled("bytes", 2)}, sampled("bytes", 2)},
		"the whole before a sample":        {[]Verification{pass("bytes", 1), sampled("bytes", 1)}, pass("bytes", 1)},
		"a failure":                        {[]Verification{pass("content", 1), fail("structure", 2)}, fail("structure", 2)},
		"shallower passes clear nothing":   {[]Verification{fail("content", 1), pass("bytes", 2), pass("structure", 3)}, fail("content", 1)},
		"an equal pass clears":             {[]Verification{fail("content", 1), pass("content", 2), pass("structure", 3)}, pass("content", 2)},
		"a deeper pass clears":             {[]Verification{fail("bytes", 1), pass("content", 2), pass("structure", 3)}, pass("content", 2)},
		"an earlier pass does not":         {[]Verification{pass("content", 1), fail("bytes", 2), pass("structure", 3)}, fail("bytes", 2)},
		"the newest of the open failures":  {[]Verification{fail("content", 1), fail("structure", 3), pass("bytes", 2)}, fail("structure", 3)},
		"one open, one cleared":            {[]Verification{fail("content", 1), fail("structure", 2), pass("bytes", 3)}, fail("content", 1)},
		"a pass at the same time does not": {[]Verification{fail("bytes", 1), pass("bytes", 1)}, fail("bytes", 1)},
		"a sample clears nothing":          {[]Verification{fail("bytes", 1), sampled("content", 2)}, fail("bytes", 1)},
		"failures at the same time":        {[]Verification{fail("bytes", 1), fail("content", 1)}, fail("content", 1)},
	} {
		permutations(tt.receipts, func(receipts []Verification) {
			if diff := cmp.Diff(tt.want, *Judge(receipts)); diff != "" {
				t.Errorf("%s, %v (-want +got):\n%s", name, fmt.Sprint(receipts), diff)
			}
		})
	}
	if got := Judge(nil); got != nil {
		t.Errorf("no receipts: %v", got)
	}
}

func TestProven(t *testing.T) {
	line := func(level, result, sample string, day int) Verification {
		return Verification{level, result, time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), sample}
	}
	for name, tt := range map[string]struct {
		receipts []Verification
		want     bool
	}{
		"nothing":        {nil, false},
		"a listing":      {[]Verification{line("structure", record.Pass, "", 1)}, false},
		"a sample":       {[]Verification{line("content", record.Pass, "1/30", 1)}, false},
		"all bytes":      {[]Verification{line("bytes", record.Pass, "", 1), line("content", record.Pass, "1/30", 2)}, true},
		"a failure":      {[]Verification{line("bytes", record.Pass, "", 1), line("content", record.Fail, "1/30", 2)}, false},
		"mended, proven": {[]Verification{line("bytes", record.Fail, "", 1), line("content", record.Pass, "", 2)}, true},
	} {
		permutations(tt.receipts, func(receipts []Verification) {
			if got := Proven(receipts); got != tt.want {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// permutations calls fn with every order of s.
func permutations(s []Verification, fn func([]Verification)) {
	if len(s) < 2 {
		fn(s)
		return
	}
	for i := range s {
		rest := append(append([]Verification{}, s[:i]...), s[i+1:]...)
		permutations(rest, func(p []Verification) { fn(append([]Verification{s[i]}, p...)) })
	}
}
