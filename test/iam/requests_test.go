package iam_test

import (
	"maps"
	"testing"

	"github.com/btcdecoded/holdfast/test/iam"
)

// keyed is a request's condition keys.
type keyed = map[string][]string

// asked is one request with what must come of it.
type asked struct {
	name    string
	who     string // see principals
	action  string
	on      string
	context keyed
	allowed bool
}

func with(maps1 ...keyed) keyed {
	out := keyed{}
	for _, m := range maps1 {
		maps.Copy(out, m)
	}
	return out
}

func object(key string) string { return "arn:aws:s3:::" + bucket + "/" + key }

// The keys that S3 sets for requests.
var (
	created  = keyed{"s3:ObjectCreationOperation": {"true"}}
	ifAbsent = with(created, keyed{"s3:if-none-match": {"*"}})
	part     = keyed{"s3:ObjectCreationOperation": {"false"}, "s3:if-none-match": {"*"}}
	copied   = with(ifAbsent, keyed{"s3:x-amz-copy-source": {bucket + "/v1/h/s/packs/c/p"}})
	wrap     = func(host, source string) keyed {
		return keyed{
			"kms:ResourceAliases": {"alias/holdfast"}, "kms:EncryptionContextKeys": {"host", "source"},
			"kms:EncryptionContext:host": {host}, "kms:EncryptionContext:source": {source},
		}
	}
	years = keyed{"s3:object-lock-remaining-retention-days": {"36500"}, "s3:object-lock-mode": {"COMPLIANCE"}}
	month = keyed{"s3:object-lock-remaining-retention-days": {"45"}, "s3:object-lock-mode": {"GOVERNANCE"}}
)

const (
	own    = "v1/governance-1/config/"
	other  = "v1/governance-2/config/"
	state  = "arn:aws:s3:::holdfast-state-123456789012-eu-central-1"
	state2 = "arn:aws:s3:::holdfast-state-123456789012-eu-west-1"
	key1   = "arn:aws:kms:eu-central-1:123456789012:key/eu-central-1"
	key2   = "arn:aws:kms:eu-west-1:123456789012:key/eu-west-1"
	bus    = "arn:aws:events:eu-central-1:123456789012:event-bus/holdfast"
	topic  = "arn:aws:sns:eu-central-1:123456789012:holdfast-alerts"
)

func sqs(name string) string { return "arn:aws:sqs:eu-central-1:123456789012:" + name }

func listed(prefix string) keyed { return keyed{"s3:prefix": {prefix}} }

// principals makes who asks. The capture role of a machine on EC2 is made by hand, with the managed policy and a tag.
func principals(t *testing.T, a *iam.Account) map[string]iam.Principal {
	t.Helper()
	must := func(p iam.Principal, err error) iam.Principal {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	capture, err := a.Managed("holdfast-capture")
	if err != nil {
		t.Fatal(err)
	}
	on := func(tags map[string]string) iam.Principal {
		return iam.Principal{
			ARN: "arn:aws:iam::123456789012:role/holdfast/agent/capture/holdfast-governance-1", Tags: tags, Policies: []*iam.Policy{capture},
		}
	}
	host := map[string]string{"holdfast-host": "governance-1"}
	out := map[string]iam.Principal{
		"capture": on(host), "untagged": on(nil), "star": on(map[string]string{"holdfast-host": "*"}), "empty": on(map[string]string{"holdfast-host": ""}),
		"certificate": must(a.Role("holdfast-capture-certificate", map[string]string{"x509Subject/CN": "governance-1"})),
		"impostor":    must(a.Role("holdfast-capture-certificate", host)),
		"restorer":    must(a.Role("holdfast-restore-host", host)),
		"admin":       {ARN: "arn:aws:iam::123456789012:role/admin", Policies: []*iam.Policy{everything(t)}},
		"glass":       {ARN: glass, Policies: []*iam.Policy{everything(t)}},
		"stranger":    {ARN: "arn:aws:iam::999999999999:role/stranger", Policies: []*iam.Policy{everything(t)}},
		// Roles that somebody gave too much: the bucket's policy is what is left.
		"widened":     {ARN: "arn:aws:iam::123456789012:role/holdfast/agent/capture/holdfast-governance-1", Tags: host, Policies: []*iam.Policy{everything(t)}},
		"loose":       {ARN: "arn:aws:iam::123456789012:role/holdfast/control/holdfast-verify", Policies: []*iam.Policy{everything(t)}},
		"replication": must(a.Role("holdfast-replicate", nil)),
	}
	for _, verb := range []string{"coordinate", "verify", "lifecycle", "monitor", "restore"} {
		out[verb] = must(a.Role("holdfast-"+verb, nil))
	}
	out["watchdog"] = must(a.Role("holdfast-watchdog-replica", nil))
	out["verify-replica"] = must(a.Role("holdfast-verify-replica", nil))
	out["lifecycle-replica"] = must(a.Role("holdfast-lifecycle-replica", nil))
	for name, service := range map[string]string{"rule": "events.amazonaws.com", "alarm": "cloudwatch.amazonaws.com", "delivery": "logging.s3.amazonaws.com"} {
		out[name] = iam.Principal{Service: service}
	}
	return out
}

// everything is the policy of an administrator, for the actions of the table.
func everything(t *testing.T) *iam.Policy {
	t.Helper()
	p, err := iam.Parse("administrator", map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Sid": "All", "Effect": "Allow", "Resource": "*", "Action": []any{
			"s3:BypassGovernanceRetention", "s3:DeleteBucket", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject",
			"s3:PutObjectRetention", "kms:Decrypt", "kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:DescribeKey", "sts:AssumeRole", "sqs:SendMessage",
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRequests(t *testing.T) {
	d := deployment(t)
	who := principals(t, d.account)
	table := append(append(agentRequests(), restoreRequests()...), cloudRequests()...)
	if len(table) < 60 {
		t.Errorf("%d requests: the table wants 60 at least", len(table))
	}
	seen := map[string]bool{}
	for _, r := range table {
		if seen[r.who+r.name] {
			t.Errorf("%s: %s is twice in the table", r.who, r.name)
		}
		seen[r.who+r.name] = true
		p, ok := who[r.who]
		if !ok {
			t.Fatalf("%s: no principal %s", r.name, r.who)
		}
		got, err := d.account.Decide(iam.Request{Principal: p, Action: r.action, Resource: r.on, Context: r.context})
		if err != nil {
			t.Errorf("%s: %s: %v", r.who, r.name, err)
			continue
		}
		if got.Allowed != r.allowed {
			t.Errorf("%s: %s (%s on %s): allowed is %v, want %v: %s", r.who, r.name, r.action, r.on, got.Allowed, r.allowed, got.Reason)
		}
	}
	t.Logf("%d requests", len(table))
}

// TestEverySafeguardCounts takes the statements that deny out of the bucket's policy, one by one: for each some request
// of the table must come out differently, or no test would miss it.
func TestEverySafeguardCounts(t *testing.T) {
	d := deployment(t)
	who := principals(t, d.account)
	table := append(append(agentRequests(), restoreRequests()...), cloudRequests()...)
	for _, arn := range []string{"arn:aws:s3:::" + bucket, state, key1} {
		for _, sid := range d.account.Denials(arn) {
			without, err := d.account.Without(arn, sid)
			if err != nil {
				t.Fatal(err)
			}
			missed := true
			for _, r := range table {
				got, err := without.Decide(iam.Request{Principal: who[r.who], Action: r.action, Resource: r.on, Context: r.context})
				if err == nil && got.Allowed != r.allowed {
					missed = false
				}
			}
			if missed {
				t.Errorf("%s: the statement %s can go without any request of the table noticing", arn, sid)
			}
		}
	}
}
