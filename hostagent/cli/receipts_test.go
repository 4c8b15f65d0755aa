package cli

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// TestJudgeReceipts checks each case in every order of its receipts.
func TestJudgeReceipts(t *testing.T) {
	pass := func(level string, day int) verifiedLine {
		return verifiedLine{level, record.Pass, time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), ""}
	}
	fail := func(level string, day int) verifiedLine {
		r := pass(level, day)
		r.Result = record.Fail
		return r
	}
	sampled := func(level string, day int) verifiedLine {
		r := pass(level, day)
		r.Sample = "1/30"
		return r
	}
	for name, tt := range map[string]struct {
		receipts []verifiedLine
		want     verifiedLine
	}{
		"one":                              {[]verifiedLine{pass("bytes", 1)}, pass("bytes", 1)},
		"the deepest pass":                 {[]verifiedLine{pass("structure", 9), pass("content", 1), pass("bytes", 5)}, pass("content", 1)},
		"the newest of two":                {[]verifiedLine{pass("bytes", 1), sampled("bytes", 2)}, sampled("bytes", 2)},
		"the whole before a sample":        {[]verifiedLine{pass("bytes", 1), sampled("bytes", 1)}, pass("bytes", 1)},
		"a failure":                        {[]verifiedLine{pass("content", 1), fail("structure", 2)}, fail("structure", 2)},
		"shallower passes clear nothing":   {[]verifiedLine{fail("content", 1), pass("bytes", 2), pass("structure", 3)}, fail("content", 1)},
		"an equal pass clears":             {[]verifiedLine{fail("content", 1), pass("content", 2), pass("structure", 3)}, pass("content", 2)},
		"a deeper pass clears":             {[]verifiedLine{fail("bytes", 1), pass("content", 2), pass("structure", 3)}, pass("content", 2)},
		"an earlier pass does not":         {[]verifiedLine{pass("content", 1), fail("bytes", 2), pass("structure", 3)}, fail("bytes", 2)},
		"the newest of the open failures":  {[]verifiedLine{fail("content", 1), fail("structure", 3), pass("bytes", 2)}, fail("structure", 3)},
		"one open, one cleared":            {[]verifiedLine{fail("content", 1), fail("structure", 2), pass("bytes", 3)}, fail("content", 1)},
		"a pass at the same time does not": {[]verifiedLine{fail("bytes", 1), pass("bytes", 1)}, fail("bytes", 1)},
		"a sample clears nothing":          {[]verifiedLine{fail("bytes", 1), sampled("content", 2)}, fail("bytes", 1)},
		"failures at the same time":        {[]verifiedLine{fail("bytes", 1), fail("content", 1)}, fail("content", 1)},
	} {
		permutations(tt.receipts, func(receipts []verifiedLine) {
			if diff := cmp.Diff(tt.want, *judgeReceipts(receipts)); diff != "" {
				t.Errorf("%s, %v (-want +got):\n%s", name, fmt.Sprint(receipts), diff)
			}
		})
	}
	if got := judgeReceipts(nil); got != nil {
		t.Errorf("no receipts: %v", got)
	}
}

func TestProvenBy(t *testing.T) {
	line := func(level, result, sample string, day int) verifiedLine {
		return verifiedLine{level, result, time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), sample}
	}
	for name, tt := range map[string]struct {
		receipts []verifiedLine
		want     bool
	}{
		"nothing":        {nil, false},
		"a listing":      {[]verifiedLine{line("structure", record.Pass, "", 1)}, false},
		"a sample":       {[]verifiedLine{line("content", record.Pass, "1/30", 1)}, false},
		"all bytes":      {[]verifiedLine{line("bytes", record.Pass, "", 1), line("content", record.Pass, "1/30", 2)}, true},
		"a failure":      {[]verifiedLine{line("bytes", record.Pass, "", 1), line("content", record.Fail, "1/30", 2)}, false},
		"mended, proven": {[]verifiedLine{line("bytes", record.Fail, "", 1), line("content", record.Pass, "", 2)}, true},
	} {
		permutations(tt.receipts, func(receipts []verifiedLine) {
			if got := provenBy(receipts); got != tt.want {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// permutations calls fn with every order of s.
func permutations(s []verifiedLine, fn func([]verifiedLine)) {
	if len(s) < 2 {
		fn(s)
		return
	}
	for i := range s {
		rest := append(append([]verifiedLine{}, s[:i]...), s[i+1:]...)
		permutations(rest, func(p []verifiedLine) { fn(append([]verifiedLine{s[i]}, p...)) })
	}
}
