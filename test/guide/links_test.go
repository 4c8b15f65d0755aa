package guide_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are all texts of the repository that people read, relative to its root.
func documents(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "test/*/*.md", "events/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	if len(out) < 10 {
		t.Fatalf("found %d documents", len(out))
	}
	return out
}

// prose is a document without its blocks of code, in which brackets are no links.
func prose(text string) string {
	text = regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(text, "")
	return regexp.MustCompile("`[^`\n]*`").ReplaceAllStringFunc(text, func(code string) string {
		// What stands in a heading counts for its anchor; a link in it is none.
		return strings.NewReplacer("](", "] (").Replace(code)
	})
}

// anchors are those of a document's headings and of what it names by hand.
func anchors(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} +(.*?) *#*$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		heading = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`).ReplaceAllString(strings.ToLower(heading), "")
		out = append(out, strings.ReplaceAll(heading, " ", "-"))
	}
	for _, m := range regexp.MustCompile(`<a (?:id|name)="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// dead says what is wrong with a link of a document; empty: nothing.
func dead(document, link string) string {
	u, err := url.Parse(link)
	switch {
	case err != nil:
		return err.Error()
	case u.Scheme != "" || u.Host != "":
		return "" // elsewhere: no test asks the network
	}
	target := document
	if u.Path != "" {
		target = filepath.Join(filepath.Dir(document), filepath.FromSlash(u.Path))
	}
	if _, err := os.Stat(target); err != nil {
		return "there is no such file"
	}
	if u.Fragment == "" || !strings.HasSuffix(target, ".md") {
		return ""
	}
	text, err := os.ReadFile(target)
	if err != nil {
		return err.Error()
	}
	if !slices.Contains(anchors(prose(string(text))), u.Fragment) {
		return "it has no such anchor"
	}
	return ""
}

// TestLinks: what a document refers to, in this repository, is there.
func TestLinks(t *testing.T) {
	const root = "../.."
	links := regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)(?: "[^"]*")?\)`)
	named := regexp.MustCompile("(?:^|[\\s(`])(docs/[a-z0-9/_.-]+\\.(?:md|yaml|json|svg))(#[a-z0-9_-]+)?")
	n := 0
	for _, document := range documents(t, root) {
		b, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		text := prose(string(b))
		for _, m := range links.FindAllStringSubmatch(text, -1) {
			n++
			if what := dead(document, m[1]); what != "" {
				t.Errorf("%s: %s: %s", document, m[1], what)
			}
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) { // by its path from the root
			n++
			if what := dead(filepath.Join(root, "x"), m[1]+m[2]); what != "" {
				t.Errorf("%s: %s: %s", document, m[1]+m[2], what)
			}
		}
	}
	if n < 20 {
		t.Errorf("found %d links: the test does not look", n)
	}
	for link, want := range map[string]bool{
		"docs/guide.md": true, "docs/nothing.md": false, "docs/runbook.md#late": true, "docs/runbook.md#nothing": false, "https://example.org/x#y": true,
	} {
		if got := dead(filepath.Join(root, "x"), link) == ""; got != want {
			t.Errorf("%s: %v", link, got)
		}
	}
}
