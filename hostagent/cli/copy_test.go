package cli

import (
	"strings"
	"testing"
)

// TestFailedCopyIsNoSuccess checks that the first line of a copy that ended with an error does not say copied.
func TestFailedCopyIsNoSuccess(t *testing.T) {
	for failed, want := range map[bool]string{false: "copied to there: ", true: "NOT complete: only copied to there: "} {
		var out strings.Builder
		copyResult{To: "there", Committed: []string{"t@1"}, Objects: 4, Failed: failed}.write(&out)
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("failed %v: %q", failed, out.String())
		}
	}
}
