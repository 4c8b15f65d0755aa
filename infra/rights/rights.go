// Package rights has every IAM policy of the deployment, one file for agents, one for functions, one for what guards
// buckets, keys, queues and topics. They are written by hand, statement by statement: what the CDK grants is wider than
// what is needed. The package is pure, so that test/iam can also evaluate it without a synthesis.
//
// No statement allows an action by wildcard. Resources have a wildcard only behind a name of ours, or where AWS offers
// nothing else; test/iam lists those one by one.
package rights

import "encoding/json"

// The effects of statements.
const (
	Allow = "Allow"
	Deny  = "Deny"
)

// Conditions is operator → key → value or values.
type Conditions map[string]map[string]any

// Statement is one statement of a policy.
type Statement struct {
	Sid       string     `json:"Sid"`
	Effect    string     `json:"Effect"`
	Principal any        `json:"Principal,omitempty"`
	Action    []string   `json:"Action"`
	Resource  []string   `json:"Resource,omitempty"`
	Condition Conditions `json:"Condition,omitempty"`
}

// Document is a policy.
type Document []Statement

// Version is the version of IAM's language; policy variables need this one.
const Version = "2012-10-17"

// JSON returns the document as what encoding/json makes of it, which the CDK takes.
func (d Document) JSON() (map[string]any, error) {
	text, err := json.Marshal(map[string]any{"Version": Version, "Statement": []Statement(d)})
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, err
	}
	return out, nil
}

// Service is a service as a principal.
func Service(name string) map[string]any { return map[string]any{"Service": name} }

// Everybody is any principal; only for statements that deny, or whose condition names who.
func Everybody() map[string]any { return map[string]any{"AWS": "*"} }

// below appends suffixes to a prefix.
func below(prefix string, suffixes ...string) []string {
	out := make([]string, 0, len(suffixes))
	for _, s := range suffixes {
		out = append(out, prefix+s)
	}
	return out
}

// Trust lets a service assume a role for this account only.
func Trust(service, account string) Document {
	return Document{{
		Sid: "Service", Effect: Allow, Principal: Service(service), Action: []string{"sts:AssumeRole"},
		Condition: Conditions{"StringEquals": {"aws:SourceAccount": account}},
	}}
}

// TrustPlain lets a service assume a role, for services that do not say on whose behalf.
func TrustPlain(service string) Document {
	return Document{{Sid: "Service", Effect: Allow, Principal: Service(service), Action: []string{"sts:AssumeRole"}}}
}
