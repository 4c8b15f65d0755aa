package iam_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/repository/tier"
	"github.com/btcdecoded/holdfast/test/cloud"
	"github.com/btcdecoded/holdfast/test/iam"
)

// TestNothingIsAllowedByWildcard looks at the statements that allow: no action with a star (the parser refuses them),
// no resource with one unless package rights has a reason for it. Keys' own policies call their key "*".
func TestNothingIsAllowedByWildcard(t *testing.T) {
	d := deployment(t)
	used := map[string]bool{}
	for _, p := range d.account.Policies {
		key := strings.Contains(p.Name, ":kms:")
		for _, s := range p.Statements {
			for _, r := range s.Resources {
				if !s.Allow || !strings.Contains(r, "*") || key && r == "*" {
					continue
				}
				reason, ok := rights.WildcardReason(r)
				if !ok {
					t.Errorf("policy %s, statement %s allows %s, which no reason is listed for", p.Name, s.Sid, r)
				}
				used[reason] = true
			}
			for kind, names := range s.Principals {
				if s.Allow && slices.Contains(names, "*") {
					t.Errorf("policy %s, statement %s allows every %s", p.Name, s.Sid, kind)
				}
			}
		}
	}
	t.Logf("%d policies, %d reasons for wildcards in use", len(d.account.Policies), len(used))
}

// TestStatementsFit: S3 takes policies of at most 20 KB, roles 10,240 characters of inline policies, managed ones 6,144.
func TestStatementsFit(t *testing.T) {
	d := deployment(t)
	for arn, size := range d.account.Sizes {
		if strings.HasPrefix(arn, "arn:aws:s3:::") && size > 20<<10 {
			t.Errorf("policy of %s: %d bytes, more than 20 KB", arn, size)
		}
		if strings.HasPrefix(arn, "arn:aws:s3:::") {
			t.Logf("%s: %d bytes", arn, size)
		}
	}
	for _, tpl := range d.account.Templates {
		for id, r := range tpl.Resources {
			switch r.Type {
			case "AWS::IAM::Role":
				total := 0
				policies, _ := r.Properties["Policies"].([]any)
				for _, p := range policies {
					total += size(t, p.(map[string]any)["PolicyDocument"])
				}
				if total > 10240 {
					t.Errorf("role %s: %d characters of inline policies, more than 10,240", id, total)
				}
			case "AWS::IAM::ManagedPolicy":
				if n := size(t, r.Properties["PolicyDocument"]); n > 6144 {
					t.Errorf("managed policy %s: %d characters, more than 6,144", id, n)
				}
			}
		}
	}
}

func size(t *testing.T, document any) int {
	t.Helper()
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}

// TestMetricsExist compares every metric of an alarm or a widget with those that the functions emit.
func TestMetricsExist(t *testing.T) {
	d := deployment(t)
	known := map[string]environment.Metric{}
	for _, m := range environment.Metrics() {
		known[m.Name] = m
	}
	check := func(where, namespace, name string, dimensions map[string]string) {
		if strings.HasPrefix(namespace, "AWS/") {
			checkService(t, where, namespace, name, dimensions)
			return
		}
		m, ok := known[name]
		switch {
		case namespace != environment.Namespace || !ok:
			t.Errorf("%s: nobody emits %s %s", where, namespace, name)
		case !slices.Equal(slices.Sorted(maps.Keys(dimensions)), m.Dimensions) && len(dimensions)+len(m.Dimensions) > 0:
			t.Errorf("%s: %s is emitted with the dimensions %v, not %v", where, name, m.Dimensions, dimensions)
		}
		for name, value := range dimensions {
			if values := environment.DimensionValues(name); values != nil && !slices.Contains(values, value) {
				t.Errorf("%s: the dimension %s never is %s", where, name, value)
			}
		}
	}
	alarms, series := 0, map[string]bool{}
	for _, tpl := range d.account.Templates {
		for id, r := range tpl.Resources {
			switch r.Type {
			case "AWS::CloudWatch::Alarm":
				alarms++
				dimensions := map[string]string{}
				list, _ := r.Properties["Dimensions"].([]any)
				for _, e := range list {
					m := e.(map[string]any)
					dimensions[m["Name"].(string)] = m["Value"].(string)
				}
				check(id, r.Properties["Namespace"].(string), r.Properties["MetricName"].(string), dimensions)
			case "AWS::CloudWatch::Dashboard":
				for _, line := range lines(t, r) {
					dimensions := map[string]string{}
					for i := 2; i+1 < len(line); i += 2 {
						dimensions[line[i]] = line[i+1]
					}
					check(id, line[0], line[1], dimensions)
					series[strings.Join(line, " ")] = true
				}
			}
		}
	}
	// CloudWatch bills alarms and metrics each month; these bounds are what docs/cost.md counts with.
	if alarms < 20 || alarms > 70 {
		t.Errorf("%d alarms", alarms)
	}
	sets := map[string]bool{}
	for _, m := range environment.Metrics() {
		sets[strings.Join(m.Dimensions, ",")] = true
	}
	if len(sets) > 5 {
		t.Errorf("%d sets of dimensions", len(sets))
	}
	t.Logf("%d alarms, %d lines on dashboards, %d sets of dimensions", alarms, len(series), len(sets))
}

// checkService knows the metrics of AWS's own services that the alarms use.
func checkService(t *testing.T, where, namespace, name string, dimensions map[string]string) {
	t.Helper()
	known := map[string]string{
		"AWS/Lambda Invocations": "FunctionName", "AWS/Lambda Errors": "FunctionName", "AWS/Lambda Duration": "FunctionName",
		"AWS/SQS ApproximateNumberOfMessagesVisible": "QueueName", "AWS/Events TriggeredRules": "RuleName",
	}
	dimension, ok := known[namespace+" "+name]
	if _, has := dimensions[dimension]; !ok || !has || len(dimensions) != 1 {
		t.Errorf("%s: %s %s with %v is not known", where, namespace, name, dimensions)
	}
}

// lines returns the metrics of a dashboard's widgets.
func lines(t *testing.T, r iam.Resource) [][]string {
	t.Helper()
	var body struct {
		Widgets []struct {
			Properties struct {
				Metrics [][]string `json:"metrics"`
			} `json:"properties"`
		} `json:"widgets"`
	}
	if err := json.Unmarshal([]byte(r.Properties["DashboardBody"].(string)), &body); err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for _, w := range body.Widgets {
		out = append(out, w.Properties.Metrics...)
	}
	return out
}

// TestMissingDataIsTold: a heartbeat that stops is a failure, an error that does not come is none.
func TestMissingDataIsTold(t *testing.T) {
	d := deployment(t)
	beats := map[string]bool{environment.MetricMonitorPass: false, environment.MetricWatchdogPass: false, environment.MetricPrimaryHeartbeat: false, "Invocations": false}
	for _, tpl := range d.account.Templates {
		for id, r := range tpl.Resources {
			if r.Type != "AWS::CloudWatch::Alarm" {
				continue
			}
			metric, missing := r.Properties["MetricName"].(string), r.Properties["TreatMissingData"]
			_, beat := beats[metric]
			if beat {
				beats[metric] = true
			}
			want := "notBreaching"
			if beat || metric == environment.MetricReplicaLag {
				want = "breaching"
			}
			if missing != want {
				t.Errorf("%s (%s): missing data is %v, want %s", id, metric, missing, want)
			}
			if beat && r.Properties["AlarmActions"] == nil {
				t.Errorf("%s: tells nobody", id)
			}
		}
	}
	for metric, seen := range beats {
		if !seen {
			t.Errorf("no alarm on %s", metric)
		}
	}
}

// TestRunbook: an alarm sends people to a part of the runbook that is there.
func TestRunbook(t *testing.T) {
	d := deployment(t)
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*settings.Settings{d.settings, d.settings.In(d.settings.Replica)} {
		for _, a := range s.Alarms() {
			if a.Anchor == "" || !strings.Contains(string(text), "\n## "+a.Anchor+"\n") {
				t.Errorf("alarm %s: docs/runbook.md has no %q", a.Name, a.Anchor)
			}
		}
	}
}

// TestWhatMustStay: what holds backups is kept whatever happens to its stack.
func TestWhatMustStay(t *testing.T) {
	d := deployment(t)
	kept := []string{"AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::KMS::Key", "AWS::KMS::Alias"}
	for name, tpl := range d.account.Templates {
		for id, r := range tpl.Resources {
			if slices.Contains(kept, r.Type) && (r.DeletionPolicy != "Retain" || !strings.HasSuffix(name, "-storage")) {
				t.Errorf("%s in %s: its deletion policy is %q", id, name, r.DeletionPolicy)
			}
		}
	}
}

// TestBuckets looks at what the emulator does not enforce.
func TestBuckets(t *testing.T) {
	d := deployment(t)
	for stack, name := range map[string]string{"holdfast-storage": bucket, "holdfast-replica-storage": replica} {
		p := property(t, d.account, stack, "Repository")
		if p("BucketName") != name || p("ObjectLockEnabled") != "true" || p("VersioningConfiguration.Status") != "Enabled" {
			t.Errorf("%s: not the bucket that is wanted", name)
		}
		if mode, days := p("ObjectLockConfiguration.Rule.DefaultRetention.Mode"), p("ObjectLockConfiguration.Rule.DefaultRetention.Days"); mode != "GOVERNANCE" || days != "14" {
			t.Errorf("%s: default retention %s for %s days", name, mode, days)
		}
		// verify reads all bytes within 30 days, those of the replica within 90; the policy's 20 days are less, and the lock too.
		want := map[string]string{bucket: "60", replica: "180"}[name]
		if days := p("LifecycleConfiguration.Rules.1.NoncurrentVersionExpiration.NoncurrentDays"); days != want {
			t.Errorf("%s: old versions go after %s days", name, days)
		}
		tag, class := p("LifecycleConfiguration.Rules.2.TagFilters.0.Key"), p("LifecycleConfiguration.Rules.2.Transitions.0.StorageClass")
		if tag != tier.Tag || p("LifecycleConfiguration.Rules.2.TagFilters.0.Value") != tier.Cold || class != "GLACIER_IR" {
			t.Errorf("%s: what has the tag %s goes to %s", name, tag, class)
		}
		for _, rule := range []string{"0", "1", "2"} {
			if p("LifecycleConfiguration.Rules."+rule+".ExpirationInDays") != "" {
				t.Errorf("%s: a rule expires current versions", name)
			}
		}
	}
	p := property(t, d.account, "holdfast-storage", "Repository")
	if p("ReplicationConfiguration.Rules.0.DeleteMarkerReplication.Status") != "Disabled" {
		t.Error("delete markers are replicated")
	}
	if property(t, d.account, "holdfast-storage", "AccessLogs")("ObjectLockEnabled") != "" {
		t.Error("the bucket of access logs has Object Lock: no log would arrive")
	}
}

// property returns a function that looks properties of a resource up by path.
func property(t *testing.T, a *iam.Account, stack, id string) func(path string) string {
	t.Helper()
	r, ok := a.Templates[stack].Resources[id]
	if !ok {
		t.Fatalf("stack %s has no %s", stack, id)
	}
	return func(path string) string {
		var at any = r.Properties
		for _, part := range strings.Split(path, ".") {
			switch v := at.(type) {
			case map[string]any:
				at = v[part]
			case []any:
				if int(part[0]-'0') >= len(v) {
					return ""
				}
				at = v[part[0]-'0']
			default:
				return ""
			}
		}
		if at == nil {
			return ""
		}
		text, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Trim(string(text), `"`)
	}
}

// TestSuppressions: each of cdk-nag's findings that is taken back has a reason and says which finding is meant.
func TestSuppressions(t *testing.T) {
	d := deployment(t)
	reports, err := filepath.Glob(filepath.Join(d.dir, "*NagReport.csv"))
	if err != nil || len(reports) != len(d.account.Templates) {
		t.Fatalf("%d reports of cdk-nag for %d stacks: %v", len(reports), len(d.account.Templates), err)
	}
	line := regexp.MustCompile(`(?m)^"([^"]+)","([^"]+)","(Non-Compliant|UNKNOWN)"`)
	for _, name := range reports {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			t.Errorf("%s: %s: %s", filepath.Base(name), m[2], m[1])
		}
	}
}

// TestTemplatesAreValid asks the CDK's own validation and cfn-lint.
func TestTemplatesAreValid(t *testing.T) {
	d := deployment(t)
	text, err := os.ReadFile(filepath.Join(d.dir, "validation-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		PluginReports []struct {
			PluginName string
			Violations []struct {
				RuleName, Description string
				Severity              string
			}
		} `json:"pluginReports"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for _, p := range report.PluginReports {
		for _, v := range p.Violations {
			t.Errorf("%s: %s: %s", p.PluginName, v.RuleName, v.Description)
		}
	}
	templates, err := filepath.Glob(filepath.Join(d.dir, "*.template.json"))
	if err != nil || len(templates) != 6 {
		t.Fatalf("%d templates: %v", len(templates), err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(cloud.Python(t), "cfn-lint"), templates...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("cfn-lint: %v\n%s", err, out)
	}
}
