package cloud

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Adopt makes a stack whose resources an earlier one of that name has left, by the kind of change set that
// `make deploy` asks for (ImportExistingResources), and returns the logical names of what was taken over.
//
// It makes the change set itself: the emulator finds what is there and imports it, but before that it compares the names of
// buckets with those that exist, and refuses the ones that it is about to import. That look is switched off here.
func (d *Deployed) Adopt(t testing.TB, stack, region string) (imported []string) {
	t.Helper()
	template, err := os.ReadFile(filepath.Join(d.Assembly, stack+".template.json")) //nolint:gosec // of this deployment
	if err != nil {
		t.Fatal(err)
	}
	const version, set = "2010-05-15", "adopt"
	ask := func(action string, more url.Values) string {
		t.Helper()
		form := url.Values{"Action": {action}, "Version": {version}, "StackName": {stack}}
		for name, value := range more {
			form[name] = value
		}
		return d.query(t, region, "cloudformation", form)
	}
	ask("CreateChangeSet", url.Values{
		"ChangeSetName": {set}, "ChangeSetType": {"CREATE"}, "ImportExistingResources": {"true"}, "DisableValidation": {"true"},
		"TemplateBody": {string(template)}, "Capabilities.member.1": {"CAPABILITY_NAMED_IAM"},
	})
	changes := ask("DescribeChangeSet", url.Values{"ChangeSetName": {set}})
	for _, change := range regexp.MustCompile(`(?s)<ResourceChange>.*?</ResourceChange>`).FindAllString(changes, -1) {
		if name := regexp.MustCompile(`<LogicalResourceId>(.*?)</LogicalResourceId>`).FindStringSubmatch(change); strings.Contains(change, "<Action>Import</Action>") {
			imported = append(imported, name[1])
		}
	}
	ask("ExecuteChangeSet", url.Values{"ChangeSetName": {set}})
	status := regexp.MustCompile(`<StackStatus>(.*?)</StackStatus>`)
	for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		said := ask("DescribeStacks", nil)
		now := status.FindStringSubmatch(said)
		switch {
		case now == nil:
			t.Fatalf("adopt %s: %s\n%s", stack, said, changes)
		case now[1] == "CREATE_COMPLETE":
			return imported
		case !strings.HasSuffix(now[1], "_IN_PROGRESS"):
			t.Fatalf("adopt %s: %s: %s", stack, now[1], ask("DescribeStackEvents", nil))
		}
	}
	t.Fatalf("adopt %s: it does not come to an end", stack)
	return nil
}
