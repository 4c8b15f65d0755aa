// Package iam evaluates IAM policies: those of identities and of resources, as far as the deployment's templates use
// the language. Use [Load] to read synthesized templates and [Account.Decide] to ask about a request.
//
// It is strict where AWS is lenient: an action, an operator or a condition key that it does not know is an error, since
// a policy with a spelling mistake is accepted by AWS and does nothing. What it knows is in vocabulary.go, with the
// source of each entry.
package iam

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Policy is a policy document with its lists normalized.
type Policy struct {
	Name       string // for messages
	Statements []Statement
}

// Statement is one statement.
type Statement struct {
	Sid        string
	Allow      bool
	Principals map[string][]string // type (AWS, Service) → names; nil: an identity's policy
	Actions    []string
	Resources  []string
	Conditions []Condition
}

// Condition is one key under one operator.
type Condition struct {
	Operator Operator
	Key      string
	Values   []string
}

// Parse reads a policy document, already resolved. Every action, operator and key is checked.
func Parse(name string, document any) (*Policy, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var raw struct {
		Version   string           `json:"Version"`
		Statement []map[string]any `json:"Statement"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("policy %s: %w", name, err)
	}
	if raw.Version != "2012-10-17" {
		return nil, fmt.Errorf("policy %s: version %q has no policy variables", name, raw.Version)
	}
	p := &Policy{Name: name}
	for i, r := range raw.Statement {
		s, err := statement(r)
		if err != nil {
			return nil, fmt.Errorf("policy %s, statement %d (%v): %w", name, i+1, r["Sid"], err)
		}
		p.Statements = append(p.Statements, *s)
	}
	return p, nil
}

func statement(raw map[string]any) (*Statement, error) {
	known := []string{"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
	for _, k := range slices.Sorted(maps.Keys(raw)) {
		if !slices.Contains(known, k) {
			return nil, fmt.Errorf("element %s is not known to the evaluator", k)
		}
	}
	s := &Statement{}
	s.Sid, _ = raw["Sid"].(string)
	switch raw["Effect"] {
	case "Allow":
		s.Allow = true
	case "Deny":
	default:
		return nil, fmt.Errorf("effect %v", raw["Effect"])
	}
	s.Actions, s.Resources = list(raw["Action"]), list(raw["Resource"])
	for _, a := range s.Actions {
		if err := checkAction(a, s.Allow); err != nil {
			return nil, err
		}
	}
	switch p := raw["Principal"].(type) {
	case nil:
	case string:
		s.Principals = map[string][]string{"AWS": {p}}
	case map[string]any:
		s.Principals = map[string][]string{}
		for kind, names := range p {
			if kind != "AWS" && kind != "Service" {
				return nil, fmt.Errorf("principals of type %s are not known to the evaluator", kind)
			}
			s.Principals[kind] = list(names)
		}
	default:
		return nil, fmt.Errorf("principal %v", p)
	}
	conditions, _ := raw["Condition"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		operator, err := parseOperator(name)
		if err != nil {
			return nil, err
		}
		keys, ok := conditions[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("condition %s: not a map", name)
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if err := checkKey(key); err != nil {
				return nil, err
			}
			s.Conditions = append(s.Conditions, Condition{Operator: operator, Key: key, Values: list(keys[key])})
		}
	}
	return s, nil
}

// list makes a list of what may be one value or several.
func list(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	}
	return []string{fmt.Sprint(v)}
}

// variable is ${key} in a pattern.
func variables(pattern string) ([]string, error) {
	var out []string
	for rest := pattern; ; {
		_, after, found := strings.Cut(rest, "${")
		if !found {
			return out, nil
		}
		key, tail, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("%q: variable without end", pattern)
		}
		if err := checkKey(key); err != nil {
			return nil, err
		}
		out, rest = append(out, key), tail
	}
}

// expand puts the request's values in the place of variables. What comes from a request is taken as it is: a tag "*"
// is a star, not every host. ok is false if a variable has no value, in which case nothing matches.
func expand(pattern string, context map[string][]string) (expanded []rune, literal []bool, ok bool) {
	put := func(s string, isLiteral bool) {
		for _, r := range s {
			expanded, literal = append(expanded, r), append(literal, isLiteral)
		}
	}
	rest := pattern
	for {
		before, after, found := strings.Cut(rest, "${")
		put(before, false)
		if !found {
			return expanded, literal, true
		}
		key, tail, _ := strings.Cut(after, "}")
		values := lookup(context, key)
		if len(values) != 1 {
			return nil, nil, false
		}
		put(values[0], true)
		rest = tail
	}
}

// like matches with * and ?, where those of the pattern are not literal.
func like(pattern []rune, literal []bool, text []rune) bool {
	if len(pattern) == 0 {
		return len(text) == 0
	}
	if pattern[0] == '*' && !literal[0] {
		for i := 0; i <= len(text); i++ {
			if like(pattern[1:], literal[1:], text[i:]) {
				return true
			}
		}
		return false
	}
	if len(text) == 0 || pattern[0] != text[0] && (pattern[0] != '?' || literal[0]) {
		return false
	}
	return like(pattern[1:], literal[1:], text[1:])
}

func matches(pattern, text string, context map[string][]string) bool {
	expanded, literal, ok := expand(pattern, context)
	return ok && like(expanded, literal, []rune(text))
}

// lookup finds a key's values; names of keys have no case, but what follows a slash (a tag's key) has.
func lookup(context map[string][]string, key string) []string {
	if v, ok := context[key]; ok {
		return v
	}
	name, tag, _ := strings.Cut(key, "/")
	for k, v := range context {
		n, t, _ := strings.Cut(k, "/")
		if strings.EqualFold(n, name) && t == tag {
			return v
		}
	}
	return nil
}
