package iam_test

import (
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/iam"
)

func document(effect string, action, resource any, condition map[string]any) map[string]any {
	s := map[string]any{"Sid": "S", "Effect": effect, "Action": action, "Resource": resource}
	if condition != nil {
		s["Condition"] = condition
	}
	return map[string]any{"Version": "2012-10-17", "Statement": []any{s}}
}

// TestUnknownIsAnError: AWS takes a misspelled policy and does nothing with it; here it fails.
func TestUnknownIsAnError(t *testing.T) {
	for name, d := range map[string]map[string]any{
		"action":            document("Allow", "s3:PutObjekt", "*", nil),
		"service":           document("Allow", "s4:PutObject", "*", nil),
		"action by star":    document("Allow", "s3:Put*", "*", nil),
		"all actions":       document("Allow", "s3:*", "*", nil),
		"part of a denial":  document("Deny", "s3:Put*", "*", nil),
		"operator":          document("Allow", "s3:PutObject", "*", map[string]any{"StringIs": map[string]any{"s3:prefix": "a"}}),
		"set operator":      document("Allow", "s3:PutObject", "*", map[string]any{"ForSomeValues:StringEquals": map[string]any{"s3:prefix": "a"}}),
		"null if exists":    document("Allow", "s3:PutObject", "*", map[string]any{"NullIfExists": map[string]any{"s3:prefix": "true"}}),
		"key":               document("Allow", "s3:PutObject", "*", map[string]any{"StringEquals": map[string]any{"s3:if-none-matches": "*"}}),
		"empty tag":         document("Allow", "s3:PutObject", "*", map[string]any{"StringEquals": map[string]any{"aws:PrincipalTag/": "*"}}),
		"element":           {"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "NotAction": "s3:PutObject", "Resource": "*"}}},
		"effect":            document("Permit", "s3:PutObject", "*", nil),
		"version":           {"Version": "2008-10-17", "Statement": []any{}},
		"kind of principal": {"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*", "Principal": map[string]any{"Federated": "x"}}}},
	} {
		if _, err := iam.Parse(name, d); err == nil {
			t.Errorf("%s: an unknown one passed", name)
		}
	}
	ask := func(resource string, r iam.Request) error {
		p, err := iam.Parse("p", document("Allow", "s3:PutObject", resource, nil))
		if err != nil {
			t.Fatal(err)
		}
		r.Principal.Policies = []*iam.Policy{p}
		_, err = (&iam.Account{ID: account}).Decide(r)
		return err
	}
	if err := ask("arn:aws:s3:::b/${aws:PrincipalTags/host}/*", iam.Request{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x"}); err == nil {
		t.Error("an unknown variable passed")
	}
	if err := ask("arn:aws:s3:::b/${aws:PrincipalArn", iam.Request{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x"}); err == nil {
		t.Error("a variable without end passed")
	}
	if err := ask("*", iam.Request{Action: "s3:PutObjekt", Resource: "arn:aws:s3:::b/x"}); err == nil {
		t.Error("a request with an unknown action passed")
	}
	if err := ask("*", iam.Request{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x", Context: keyed{"s3:nothing": {"x"}}}); err == nil {
		t.Error("a request with an unknown key passed")
	}
}

// TestOperators has one line for each rule of the language that the policies rely on.
func TestOperators(t *testing.T) {
	tag := "aws:PrincipalTag/holdfast-host"
	for _, c := range []struct {
		operator, key string
		want          any
		have          []string
		holds         bool
	}{
		{"StringEquals", "s3:prefix", "a", []string{"a"}, true},
		{"StringEquals", "s3:prefix", []any{"b", "a"}, []string{"a"}, true},
		{"StringEquals", "s3:prefix", "a*", []string{"ab"}, false},
		{"StringEquals", "s3:prefix", "a", nil, false},
		{"StringEqualsIfExists", "s3:prefix", "a", nil, true},
		{"StringNotEquals", "s3:prefix", "a", nil, true},
		{"StringNotEquals", "s3:prefix", []any{"a", "b"}, []string{"b"}, false},
		{"StringLike", "s3:prefix", "v1/*/x", []string{"v1/a/b/x"}, true},
		{"StringLike", "s3:prefix", "v?", []string{"v1"}, true},
		{"StringLike", "s3:prefix", "v1/${" + tag + "}/*", []string{"v1/h/x"}, true},
		{"StringLike", "s3:prefix", "v1/${aws:PrincipalTag/other}/*", []string{"v1/h/x"}, false},
		{"StringNotLike", "s3:prefix", "v1/*", []string{"v2/"}, true},
		{"ArnLike", "aws:SourceArn", "arn:aws:sns:*:1:x*", []string{"arn:aws:sns:r:1:xyz"}, true},
		{"ArnLike", "aws:SourceArn", "arn:aws:sns:*:2:x", []string{"arn:aws:sns:r:1:x"}, false},
		{"ArnNotEquals", "aws:SourceArn", "arn:aws:sns:r:1:x", nil, true},
		{"Bool", "aws:SecureTransport", "false", []string{"false"}, true},
		{"Bool", "s3:ObjectCreationOperation", "false", nil, false},
		{"Null", "s3:if-none-match", "true", nil, true},
		{"Null", "s3:if-none-match", "false", []string{"*"}, true},
		{"Null", "s3:if-none-match", "false", nil, false},
		{"NumericLessThan", "s3:object-lock-remaining-retention-days", "10", []string{"9"}, true},
		{"NumericGreaterThan", "s3:object-lock-remaining-retention-days", "10", []string{"9"}, false},
		{"NumericGreaterThan", "s3:object-lock-remaining-retention-days", "10", nil, false},
		{"NumericLessThanEquals", "s3:object-lock-remaining-retention-days", "10", []string{"10"}, true},
		{"ForAllValues:StringEquals", "aws:TagKeys", []any{"a", "b"}, []string{"a"}, true},
		{"ForAllValues:StringEquals", "aws:TagKeys", []any{"a", "b"}, []string{"a", "c"}, false},
		{"ForAllValues:StringEquals", "aws:TagKeys", []any{"a"}, nil, true},
		{"ForAnyValue:StringEquals", "aws:TagKeys", []any{"a"}, []string{"a", "c"}, true},
		{"ForAnyValue:StringEquals", "aws:TagKeys", []any{"a"}, nil, false},
	} {
		p, err := iam.Parse("p", document("Allow", "s3:PutObject", "*", map[string]any{c.operator: map[string]any{c.key: c.want}}))
		if err != nil {
			t.Errorf("%s %s: %v", c.operator, c.key, err)
			continue
		}
		got, err := (&iam.Account{ID: account}).Decide(iam.Request{
			Principal: iam.Principal{ARN: "arn:aws:iam::123456789012:role/r", Tags: map[string]string{"holdfast-host": "h"}, Policies: []*iam.Policy{p}},
			Action:    "s3:PutObject", Resource: "arn:aws:s3:::b/x", Context: keyed{c.key: c.have},
		})
		if err != nil || got.Allowed != c.holds {
			t.Errorf("%s of %s %v for %v: %v, %v", c.operator, c.key, c.want, c.have, got.Allowed, err)
		}
	}
}

// TestDenialWins and a value of several keys needs an operator for sets.
func TestDenialWins(t *testing.T) {
	allow, err := iam.Parse("a", document("Allow", "s3:PutObject", "*", nil))
	if err != nil {
		t.Fatal(err)
	}
	deny, err := iam.Parse("d", document("Deny", "s3:*", "*", nil))
	if err != nil {
		t.Fatal(err)
	}
	a := &iam.Account{ID: account}
	r := iam.Request{Action: "s3:PutObject", Resource: "arn:aws:s3:::b/x", Principal: iam.Principal{ARN: "arn:aws:iam::123456789012:role/r"}}
	r.Principal.Policies = []*iam.Policy{allow, deny}
	if got, err := a.Decide(r); err != nil || got.Allowed || !strings.Contains(got.Reason, "d/S") {
		t.Errorf("%+v, %v", got, err)
	}
	several, err := iam.Parse("s", document("Allow", "s3:PutObject", "*", map[string]any{"StringEquals": map[string]any{"aws:TagKeys": "a"}}))
	if err != nil {
		t.Fatal(err)
	}
	r.Principal.Policies, r.Context = []*iam.Policy{several}, keyed{"aws:TagKeys": {"a", "b"}}
	if _, err := a.Decide(r); err == nil {
		t.Error("several values passed an operator for one")
	}
}
