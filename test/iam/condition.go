package iam

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Operator is a condition operator taken apart.
type Operator struct {
	Name     string // without prefix and suffix
	Each     string // ForAllValues, ForAnyValue or empty
	IfExists bool
}

// compare tells whether one value of the request fits one of the policy.
type compare func(want, have string, context map[string][]string) (bool, error)

// operators are those that the evaluator knows; negated ones hold where no value fits, also where there is none.
// Source: "IAM JSON policy elements: Condition operators".
func operators() map[string]struct {
	fits    compare
	negated bool
} {
	type op = struct {
		fits    compare
		negated bool
	}
	return map[string]op{
		"StringEquals": {equal, false}, "StringNotEquals": {equal, true},
		"StringLike": {wild, false}, "StringNotLike": {wild, true},
		"ArnEquals": {arn, false}, "ArnLike": {arn, false}, "ArnNotEquals": {arn, true}, "ArnNotLike": {arn, true},
		"Bool":                     {boolean, false},
		"NumericEquals":            {number(func(have, want float64) bool { return have == want }), false},
		"NumericLessThan":          {number(func(have, want float64) bool { return have < want }), false},
		"NumericLessThanEquals":    {number(func(have, want float64) bool { return have <= want }), false},
		"NumericGreaterThan":       {number(func(have, want float64) bool { return have > want }), false},
		"NumericGreaterThanEquals": {number(func(have, want float64) bool { return have >= want }), false},
	}
}

func parseOperator(text string) (Operator, error) {
	o := Operator{Name: text}
	if each, name, found := strings.Cut(text, ":"); found {
		if each != "ForAllValues" && each != "ForAnyValue" {
			return o, fmt.Errorf("operator %q is not known to the evaluator", text)
		}
		o.Each, o.Name = each, name
	}
	if o.Name == "Null" && o.Each == "" {
		return o, nil
	}
	o.Name, o.IfExists = strings.CutSuffix(o.Name, "IfExists")
	if _, ok := operators()[o.Name]; !ok {
		return o, fmt.Errorf("operator %q is not known to the evaluator", text)
	}
	return o, nil
}

// expandEqual expands variables and compares without wildcards.
func equal(want, have string, context map[string][]string) (bool, error) {
	expanded, _, ok := expand(want, context)
	return ok && string(expanded) == have, nil
}

func wild(want, have string, context map[string][]string) (bool, error) {
	return matches(want, have, context), nil
}

// arn compares part by part, each with wildcards; a star never passes a colon before the resource.
func arn(want, have string, context map[string][]string) (bool, error) {
	w, h := strings.SplitN(want, ":", 6), strings.SplitN(have, ":", 6)
	if len(w) != 6 || len(h) != 6 {
		return false, fmt.Errorf("compare ARN %q with %q: not ARNs", want, have)
	}
	for i := range w {
		if !matches(w[i], h[i], context) {
			return false, nil
		}
	}
	return true, nil
}

func boolean(want, have string, _ map[string][]string) (bool, error) {
	for _, v := range []string{want, have} {
		if v != "true" && v != "false" {
			return false, fmt.Errorf("%q is neither true nor false", v)
		}
	}
	return want == have, nil
}

func number(fits func(have, want float64) bool) compare {
	return func(want, have string, _ map[string][]string) (bool, error) {
		w, err := strconv.ParseFloat(want, 64)
		if err != nil {
			return false, fmt.Errorf("%q is no number", want)
		}
		h, err := strconv.ParseFloat(have, 64)
		if err != nil {
			return false, fmt.Errorf("%q is no number", have)
		}
		return fits(h, w), nil
	}
}

// holds evaluates a condition.
func (c Condition) holds(context map[string][]string) (bool, error) {
	have := lookup(context, c.Key)
	if c.Operator.Name == "Null" {
		if len(c.Values) != 1 || c.Values[0] != "true" && c.Values[0] != "false" {
			return false, fmt.Errorf("null of %s: want true or false", c.Key)
		}
		return (len(have) == 0) == (c.Values[0] == "true"), nil
	}
	op := operators()[c.Operator.Name]
	if len(have) == 0 {
		return c.Operator.Each == "ForAllValues" || c.Operator.IfExists || op.negated && c.Operator.Each == "", nil
	}
	if len(have) > 1 && c.Operator.Each == "" {
		return false, fmt.Errorf("%s has several values: the operator %s needs ForAllValues or ForAnyValue", c.Key, c.Operator.Name)
	}
	one := func(h string) (bool, error) {
		for _, w := range c.Values {
			fits, err := op.fits(w, h, context)
			if err != nil {
				return false, fmt.Errorf("condition on %s: %w", c.Key, err)
			}
			if fits {
				return !op.negated, nil
			}
		}
		return op.negated, nil
	}
	results := make([]bool, 0, len(have))
	for _, h := range have {
		r, err := one(h)
		if err != nil {
			return false, err
		}
		results = append(results, r)
	}
	if c.Operator.Each == "ForAnyValue" {
		return slices.Contains(results, true), nil
	}
	return !slices.Contains(results, false), nil
}
