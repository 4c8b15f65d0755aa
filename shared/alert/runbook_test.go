package alert_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/compliance"
)

// TestRunbook holds the runbook to every cause that a message can have: its link must lead somewhere.
func TestRunbook(t *testing.T) {
	b, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for line := range strings.Lines(string(b)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			anchors = append(anchors, strings.TrimSpace(title))
		}
	}
	codes := []string{"test"}
	for _, c := range compliance.Codes() {
		codes = append(codes, string(c))
	}
	for _, c := range codes {
		if !slices.Contains(anchors, c) {
			t.Errorf("docs/runbook.md has no heading %q", c)
		}
	}
	// Links within the page.
	for _, part := range strings.Split(string(b), "](#")[1:] {
		anchor, _, _ := strings.Cut(part, ")")
		if !slices.ContainsFunc(anchors, func(a string) bool { return strings.ReplaceAll(strings.ToLower(a), " ", "-") == anchor }) {
			t.Errorf("docs/runbook.md links to #%s, which is not there", anchor)
		}
	}
}
