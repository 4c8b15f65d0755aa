package policy_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/policy"
)

const reference = "../../docs/policy.md"

// TestReferenceExamples parses every example of docs/policy.md; what is said to be wrong must give the errors shown.
func TestReferenceExamples(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```(yaml[a-z ]*|text)\n(.*?)^```$").FindAllStringSubmatch(string(read(t, reference)), -1)
	if len(blocks) < 6 {
		t.Fatalf("%d examples", len(blocks))
	}
	shown := 0
	for i, b := range blocks {
		switch kind, text := b[1], b[2]; kind {
		case "yaml":
			if _, err := policy.Parse([]byte(text)); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		case "yaml source":
			text = "version: 1\nhosts:\n h:\n  sources:\n   s:\n" + regexp.MustCompile("(?m)^").ReplaceAllString(strings.TrimSuffix(text, "\n"), "    ") + "\n"
			if _, err := policy.Parse([]byte(text)); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		case "yaml bad":
			_, err := policy.Parse([]byte(text))
			if err == nil || blocks[i+1][1] != "text" {
				t.Fatalf("%v\n%s", err, text)
			}
			if got := strings.TrimPrefix(err.Error(), "parse policy: ") + "\n"; got != blocks[i+1][2] {
				t.Errorf("docs/policy.md shows other errors than\n%s", got)
			}
			shown++
		case "text":
		default:
			t.Errorf("unknown sort of example %q", kind)
		}
	}
	if shown == 0 {
		t.Error("no example of errors")
	}
}

// TestReferenceIsComplete looks for every key of the schema in docs/policy.md.
func TestReferenceIsComplete(t *testing.T) {
	var doc any
	if err := json.Unmarshal(policy.Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	text := string(read(t, reference))
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, child := range v {
				if keys, ok := child.(map[string]any); ok && name == "properties" {
					for key := range keys {
						if !strings.Contains(text, "`"+key+"`") && !strings.Contains(text, "### "+key+"\n") {
							t.Errorf("docs/policy.md does not describe %q", key)
						}
					}
				}
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	walk(doc)
}
