package iam

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Principal is who asks: a role's session or a service.
type Principal struct {
	ARN      string // of the role; empty for a service
	Service  string
	Tags     map[string]string
	Policies []*Policy
}

// Request is one request.
type Request struct {
	Principal Principal
	Action    string
	Resource  string
	Context   map[string][]string // condition keys besides those of the principal
}

// Decision is the answer.
type Decision struct {
	Allowed bool
	Reason  string // the statement that decided, or that there is none
}

// Decide evaluates a request as "Policy evaluation logic" says: an explicit denial wins; then a statement of either
// policy that allows is enough within the account, but a statement of a resource that names the account as a whole only
// lets the identity's own policies decide. Keys and roles are stricter: without their policy nobody may do anything.
// From another account, both sides have to allow.
func (a *Account) Decide(r Request) (Decision, error) {
	if err := checkAction(r.Action, true); err != nil {
		return Decision{}, err
	}
	context := r.context()
	for key := range context {
		if err := checkKey(key); err != nil {
			return Decision{}, fmt.Errorf("request: %w", err)
		}
	}
	guard := a.guard(r.Resource)
	var side sides
	policies := r.Principal.Policies
	if guard != nil {
		policies = append(slices.Clone(policies), guard)
	}
	for _, p := range policies {
		for _, s := range p.Statements {
			fits, err := s.matches(r, context, p == guard)
			if err != nil {
				return Decision{}, fmt.Errorf("policy %s, statement %s: %w", p.Name, s.Sid, err)
			}
			where := p.Name + "/" + s.Sid
			switch {
			case !fits:
			case !s.Allow:
				return Decision{Reason: "denied by " + where}, nil
			case p != guard:
				side.identity = where
			case s.names(root(r.Principal)):
				side.account = where
			default:
				side.resource = where
			}
		}
	}
	return a.join(r, side), nil
}

// sides has the statements that allow: of the identity, of the resource for the one who asks, and of the resource for
// the asker's account as a whole.
type sides struct{ identity, resource, account string }

// join tells what the sides add up to.
func (a *Account) join(r Request, s sides) Decision {
	var by string
	foreign := r.Principal.ARN != "" && !strings.Contains(r.Principal.ARN, ":"+a.ID+":")
	strict := strings.Contains(r.Resource, ":kms:") || strings.Contains(r.Resource, ":role/")
	switch {
	case foreign: // both accounts have to agree
		if s.identity != "" {
			by = cmp.Or(s.resource, s.account)
		}
	case s.resource != "":
		by = s.resource
	case !strict || s.account != "":
		by = s.identity
	}
	if by == "" {
		return Decision{Reason: "nothing allows it"}
	}
	return Decision{Allowed: true, Reason: by}
}

// root is the account of a principal as a principal.
func root(p Principal) string {
	parts := strings.SplitN(p.ARN, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return fmt.Sprintf("arn:%s:iam::%s:root", parts[1], parts[4])
}

func (r Request) context() map[string][]string {
	out := map[string][]string{"aws:SecureTransport": {"true"}}
	if r.Principal.ARN != "" {
		out["aws:PrincipalArn"] = []string{r.Principal.ARN}
		if parts := strings.SplitN(r.Principal.ARN, ":", 6); len(parts) == 6 {
			out["aws:PrincipalAccount"] = []string{parts[4]}
		}
	}
	for k, v := range r.Principal.Tags {
		out["aws:PrincipalTag/"+k] = []string{v}
	}
	for k, v := range r.Context {
		out[k] = v
		if v == nil {
			delete(out, k)
		}
	}
	return out
}

// names reports whether the statement's principals are exactly the account.
func (s Statement) names(root string) bool {
	return root != "" && slices.Contains(s.Principals["AWS"], root)
}

func (s Statement) matches(r Request, context map[string][]string, ofResource bool) (bool, error) {
	if ofResource != (s.Principals != nil) {
		return false, fmt.Errorf("a policy of a resource needs principals, and one of an identity has none")
	}
	if ofResource && !s.isFor(r) {
		return false, nil
	}
	if !slices.ContainsFunc(s.Actions, func(a string) bool {
		service, name, _ := strings.Cut(a, ":")
		asked, action, _ := strings.Cut(r.Action, ":")
		return service == asked && (name == "*" || name == action)
	}) {
		return false, nil
	}
	for _, pattern := range s.Resources {
		if _, err := variables(pattern); err != nil {
			return false, err
		}
	}
	if !slices.ContainsFunc(s.Resources, func(pattern string) bool { return matches(pattern, r.Resource, context) }) {
		return false, nil
	}
	for _, c := range s.Conditions {
		for _, v := range c.Values {
			if _, err := variables(v); err != nil {
				return false, err
			}
		}
		holds, err := c.holds(context)
		if err != nil || !holds {
			return false, err
		}
	}
	return true, nil
}

// isFor reports whether the statement of a resource is about the one who asks.
func (s Statement) isFor(r Request) bool {
	if r.Principal.Service != "" {
		return slices.Contains(s.Principals["Service"], r.Principal.Service) || slices.Contains(s.Principals["AWS"], "*")
	}
	return slices.ContainsFunc(s.Principals["AWS"], func(p string) bool {
		return p == "*" || p == r.Principal.ARN || p == root(r.Principal)
	})
}

// Denials returns the statements of a resource's policy that deny.
func (a *Account) Denials(arn string) []string {
	var out []string
	if p := a.guard(arn); p != nil {
		for _, s := range p.Statements {
			if !s.Allow {
				out = append(out, s.Sid)
			}
		}
	}
	return out
}

// Without returns the account with one statement of a resource's policy taken away.
func (a *Account) Without(arn, sid string) (*Account, error) {
	p := a.guard(arn)
	if p == nil {
		return nil, fmt.Errorf("%s has no policy", arn)
	}
	less := &Policy{Name: p.Name, Statements: slices.DeleteFunc(slices.Clone(p.Statements), func(s Statement) bool { return s.Sid == sid })}
	if len(less.Statements) == len(p.Statements) {
		return nil, fmt.Errorf("%s has no statement %s", arn, sid)
	}
	out := *a
	out.guards = maps.Clone(a.guards)
	out.guards[arn] = less
	return &out, nil
}
