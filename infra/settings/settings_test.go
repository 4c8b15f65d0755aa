package settings_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/policy"
)

const two = "primary: s3://b?region=eu-central-1\n  copies: [gs://g, \"s3://c?region=eu-west-1\", \"s3://d?region=us-east-1\"]"

func load(t *testing.T, repository string, context map[string]string) (*settings.Settings, error) {
	t.Helper()
	p, err := policy.Parse([]byte("version: 1\nrepository:\n  " + repository + "\nhosts: {h: {sources: {s: {files: {roots: [/etc]}}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"account": "123456789012"}
	maps.Copy(all, context)
	return settings.Load(p, func(key string) string { return all[key] })
}

func TestPolicyNamesTheBuckets(t *testing.T) {
	s, err := load(t, two, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Bucket != "b" || s.Region != "eu-central-1" || s.Replica == nil || s.Replica.Bucket != "c" || s.Replica.Region != "eu-west-1" {
		t.Errorf("%+v, replica %+v", s, s.Replica)
	}
	if s.LockMode != settings.Governance || s.LockDays != 14 || s.Architecture != settings.ARM64 {
		t.Errorf("defaults: %+v", s)
	}
	second := s.In(s.Replica)
	if second.Bucket != "c" || !second.Second || second.RoleName("verify") == s.RoleName("verify") || second.StateBucket() == s.StateBucket() {
		t.Errorf("second region: %+v", second)
	}
	if one, err := load(t, "primary: s3://b?region=eu-central-1", nil); err != nil || one.Replica != nil {
		t.Errorf("one region: %+v, %v", one, err)
	}
}

// TestHostsWithoutAQueue: names that SQS does not take are refused before anything is deployed, all in one error.
func TestHostsWithoutAQueue(t *testing.T) {
	p, err := policy.Parse([]byte("version: 1\nrepository: {primary: \"s3://b?region=eu-central-1\"}\nhosts:\n" +
		"  web.example.org: {sources: {s: {files: {roots: [/etc]}}}}\n  jobs-dlq: {sources: {s: {files: {roots: [/etc]}}}}\n  web_1: {sources: {s: {files: {roots: [/etc]}}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = settings.Load(p, func(key string) string { return map[string]string{"account": "123456789012"}[key] })
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"web.example.org"`, "give the host another name", `"jobs-dlq"`, "dead-letter queue"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "web_1") {
		t.Error(err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct {
		repository string
		context    map[string]string
		want       string
	}{
		{"primary: /srv/backup", nil, "s3://bucket?region="},
		{"primary: s3://b", nil, "no region"},
		{"primary: s3://b/prefix?region=eu-central-1", nil, "leave out the prefix"},
		{"primary: s3://b?region=eu-central-1\n  copies: [\"s3://c?region=eu-central-1\"]", nil, "another region"},
		{two, map[string]string{"account": "1"}, "twelve digits"},
		{two, map[string]string{"replica-account": "1"}, "twelve digits"},
		{two, map[string]string{"architecture": "mips"}, "architecture"},
		{two, map[string]string{"lock-days": "36500"}, "lock-days"},
		{two, map[string]string{"email": "nobody"}, "not an address"},
		{two, map[string]string{"break-glass": "root"}, "break-glass"},
		{two, map[string]string{"lock": "NONE"}, "lock"},
		{two, map[string]string{"lock": "COMPLIANCE"}, "nobody can delete from b for 14 days"},
		{two, map[string]string{"lock": "COMPLIANCE", "confirm-compliance": "yes"}, "nobody can delete from b for 14 days"},
		{two, map[string]string{"lock": "COMPLIANCE", "lock-days": "30", "confirm-compliance": "nobody can delete from b for 14 days"}, "for 30 days"},
	} {
		if _, err := load(t, c.repository, c.context); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: %v, want %q", c.repository, c.context, err, c.want)
		}
	}
	s, err := load(t, two, map[string]string{"lock": "COMPLIANCE", "confirm-compliance": "nobody can delete from b for 14 days"})
	if err != nil || s.LockMode != settings.Compliance {
		t.Errorf("typed confirmation: %v", err)
	}
}

func TestFunctionsAndAlarms(t *testing.T) {
	s, err := load(t, two, map[string]string{"email": "b@example.org,a@example.org, b@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Emails) != 2 || s.Emails[0] != "a@example.org" {
		t.Errorf("emails %v", s.Emails)
	}
	for _, at := range []*settings.Settings{s, s.In(s.Replica)} {
		names := map[string]settings.Alarm{}
		for _, a := range at.Alarms() {
			if _, taken := names[a.Name]; taken || a.Description == "" || strings.ContainsAny(a.Name, " ") {
				t.Errorf("alarm %+v: its name is taken or it says nothing", a)
			}
			names[a.Name] = a
		}
		for _, f := range settings.Functions(at.Second) {
			// The schedule's beats must fit several times into the window of quiet, or a late one is an alarm.
			if f.Every > 0 && f.Quiet < 3*f.Every {
				t.Errorf("%s has a schedule, and nobody notices when it stops, or too soon", f.Verb)
			}
			if f.Queue && 6*f.Timeout > 12*3600 {
				t.Errorf("%s: SQS keeps no message invisible for so long", f.Verb)
			}
			crashes, ok := names[f.Verb+"-crashes"]
			if !ok {
				t.Errorf("%s may fail unseen", f.Verb)
			}
			// A schedule's beat is tried once more when it fails. What fails at each beat must be an alarm in a few of them, and
			// what failed at one must not.
			beats := crashes.Period / f.Every
			if 2*beats <= crashes.Threshold || crashes.Threshold < 2 {
				t.Errorf("%s: an alarm at more than %g errors in %g s, with a beat each %g s", f.Verb, crashes.Threshold, crashes.Period, f.Every)
			}
			if crashes.Period*crashes.Periods > 24*3600 {
				t.Errorf("%s: its alarm looks back for %g s", f.Verb, crashes.Period*crashes.Periods)
			}
			// The message of a shard is sent at each beat, and does not come again in time.
			messages, ok := names[f.Verb+"-failed-messages"]
			if ok != f.Queue || ok && messages.Period/f.Every <= messages.Threshold {
				t.Errorf("%s: messages that always fail are no alarm: %+v", f.Verb, messages)
			}
			if ok && !slices.Contains(environment.DimensionValues(environment.DimensionFunction), f.Verb) {
				t.Errorf("%s is no value of the dimension", f.Verb)
			}
		}
	}
}

// TestReread: what the policy says of reading everything again reaches the functions of both regions.
func TestReread(t *testing.T) {
	parse := func(limits string) *settings.Settings {
		t.Helper()
		p, err := policy.Parse([]byte("version: 1\nrepository:\n  " + two + "\n" + limits + "hosts: {h: {sources: {s: {files: {roots: [/etc]}}}}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := settings.Load(p, func(key string) string { return map[string]string{"account": "123456789012"}[key] })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const day = 24 * time.Hour
	s := parse("")
	if got := s.Reread(); got.Period != 30*day || got.Bytes != 0 || got.Copy != "" {
		t.Errorf("%+v", got)
	}
	if got := s.In(s.Replica).Reread(); got.Period != 90*day || got.Bytes != 0 || got.Copy != "s3://c?region=eu-west-1" {
		t.Errorf("%+v", got)
	}
	s = parse("limits: {reread: {period: 60d, bytes: 2TB, replica_period: 180d, replica_bytes: 100GB}}\n")
	if got := s.Reread(); got.Period != 60*day || got.Bytes != 2e12 {
		t.Errorf("%+v", got)
	}
	if got := s.In(s.Replica).Reread(); got.Period != 180*day || got.Bytes != 1e11 {
		t.Errorf("%+v", got)
	}
	// Old versions stay until two readings could have missed them.
	if s.RereadDays() != 60 || s.In(s.Replica).RereadDays() != 180 {
		t.Errorf("%d, %d", s.RereadDays(), s.In(s.Replica).RereadDays())
	}
}

// TestExample: the policy with which docs/deploy.md begins is one that can be deployed, in two regions.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/examples/aws.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse([]byte(strings.ReplaceAll(string(text), "YOUR-BUCKET", "example-backups")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(p, func(key string) string { return map[string]string{"account": "123456789012"}[key] })
	if err != nil {
		t.Fatal(err)
	}
	if s.Bucket != "example-backups" || s.Replica == nil || s.Replica.Region != "eu-west-1" {
		t.Errorf("%+v", s)
	}
}
