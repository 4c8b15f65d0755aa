package guide_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/test/program"
)

// operations are the texts that people follow when something is deployed or wrong. What they say can't be run here: it
// takes an account, or a fault. That each command is one is checked instead.
var operations = []string{"deploy.md", "runbook.md", "agent.md", "sqlite.md", "from-scripts.md"}

// code is all that stands in blocks or spans of code in a document.
func code(text string) []string {
	var out []string
	add := func(block string) { out = append(out, strings.Split(block, "\n")...) }
	text = regexp.MustCompile("(?ms)^ *```[a-z]*\n(.*?)^ *```").ReplaceAllStringFunc(text, func(block string) string { add(block); return "" })
	text = regexp.MustCompile(`(?m)^(?:    |\t)+ *[^ \n].*$`).ReplaceAllStringFunc(text, func(line string) string { add(line); return "" })
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		add(m[1])
	}
	return out
}

// texts are the documents of operations, with the code in them.
func texts(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, name := range operations {
		text, err := os.ReadFile(filepath.Join("../../docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if out[name] = code(string(text)); len(out[name]) < 10 {
			t.Fatalf("%s: found %d lines of code", name, len(out[name]))
		}
	}
	return out
}

// TestOperations looks that each command of ours in these documents is there, and knows the flags that it is given.
func TestOperations(t *testing.T) {
	holdfast, err := program.Holdfast(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	helps := map[string]string{}
	help := func(words ...string) string {
		name := strings.Join(words, " ")
		if _, ok := helps[name]; !ok {
			out, _ := exec.Command(holdfast, append(slices.Clone(words), "--help")...).CombinedOutput()
			helps[name] = string(out)
		}
		return helps[name]
	}
	known := func(words ...string) bool {
		return regexp.MustCompile(`(?m)^  holdfast ` + regexp.QuoteMeta(strings.Join(words, " ")) + `( |$)`).MatchString(help(words...))
	}
	word := regexp.MustCompile(`^[a-z]+$`)
	n := 0
	for name, lines := range texts(t) {
		for _, line := range lines {
			for _, at := range regexp.MustCompile(`(?:^|[ ("])holdfast ([a-z].*)`).FindAllStringSubmatch(line, -1) {
				command, _, _ := strings.Cut(at[1], ")\"") // it may stand in $(…)
				command, _, _ = strings.Cut(command, " # ")
				fields := strings.Fields(command)
				words := fields[:1]
				if !known(words...) {
					t.Errorf("%s: there is no command holdfast %s: %s", name, fields[0], line)
					continue
				}
				if len(fields) > 1 && word.MatchString(fields[1]) && known(fields[0], fields[1]) {
					words = fields[:2]
				}
				n++
				for _, f := range regexp.MustCompile(`(?:^| )(--[a-z-]+|-[a-zA-Z])\b`).FindAllStringSubmatch(command, -1) {
					if !regexp.MustCompile(`(?m)^ +.*` + regexp.QuoteMeta(f[1]) + `\b`).MatchString(help(words...)) {
						t.Errorf("%s: holdfast %s knows no %s: %s", name, strings.Join(words, " "), f[1], line)
					}
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("found %d commands", n)
	}
}

// TestTargets looks that each target of make in these documents is one.
func TestTargets(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, lines := range texts(t) {
		for _, line := range lines {
			for _, m := range regexp.MustCompile(`(?:^|[ (])make ([a-z][a-z0-9-]*)`).FindAllStringSubmatch(line, -1) {
				n++
				if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
					t.Errorf("%s: there is no make %s: %s", name, m[1], line)
				}
			}
		}
	}
	if n < 5 {
		t.Errorf("found %d targets", n)
	}
}

// TestNames looks that queues, functions, stacks and alarms have the names in a deployment that these documents say.
func TestNames(t *testing.T) {
	p, err := policy.Parse([]byte("version: 1\nrepository: {primary: \"s3://b?region=eu-central-1\", copies: [\"s3://c?region=eu-west-1\"]}\n" +
		"hosts: {web-1: {sources: {app: {files: {roots: [/srv]}, metrics: true}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(p, func(key string) string { return map[string]string{"account": "111122223333"}[key] })
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{
		events.DeadLetterName: true, settings.TopicName: true, settings.ReplicaRole: true, settings.RestoreRole: true,
		// Of hosts, and of stacks, roles and policies that the CDK's templates have; test/iam loads those.
		"holdfast-web-1": true, "holdfast-storage": true, "holdfast-control": true, "holdfast-observe": true, "holdfast-capture": true,
		"holdfast-restore": true, "holdfast-capture-certificate": true,
		// No part of the deployment: the tag, the unit of systemd, a file's name, and the buckets of the smoke test.
		"holdfast-host": true, "holdfast-agent": true, "holdfast-admin": true, "holdfast-smoke": true,
		"holdfast-docker": true, // a directory
	}
	for _, at := range []*settings.Settings{s, s.In(s.Replica)} {
		for _, a := range at.Alarms() {
			names[settings.AlarmName(a)] = true
		}
		for _, f := range settings.Functions(at.Second) {
			names[settings.FunctionName(f.Verb)] = true
			names[settings.QueuePrefix+f.Verb+"-dlq"] = true
		}
	}
	names[settings.QueuePrefix+"rules-dlq"] = true
	verb := strings.NewReplacer("VERB", settings.Verify, "TIER", "critical", "HOST", "web-1")
	for name, lines := range texts(t) {
		for _, line := range lines {
			for _, m := range regexp.MustCompile(`\bholdfast(?:control)?-[A-Za-z0-9-]*[A-Za-z0-9]`).FindAllString(line, -1) {
				at := verb.Replace(m)
				prefix := func(known string) bool { return strings.HasPrefix(known, at+"-") && strings.Contains(line, m+"-…") }
				if !names[at] && !strings.HasPrefix(at, "holdfast-state-ACCOUNT-") && at != "holdfast-replica" && !slices.ContainsFunc(slices.Collect(maps.Keys(names)), prefix) {
					t.Errorf("%s: nothing is called %s: %s", name, m, line)
				}
			}
		}
	}
}
