// Package proof judges whether a restored database is what its owner expects: [Expect] reads an expectation of the policy
// and says whether a query's answer meets it. What was found is a [Report]. How a database of some kind is asked stands in the
// package of the kind below this one.
package proof

import (
	"cmp"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Expectation is what a query of the policy must answer.
type Expectation struct {
	operator string
	want     string
}

// Expect reads an expectation: one of = == != < <= > >= and a value, or a value alone, which means =. Quotes around the
// value, single or double, are taken off.
func Expect(text string) (Expectation, error) {
	e := Expectation{operator: "=", want: strings.TrimSpace(text)}
	for _, op := range []string{"==", "!=", "<=", ">=", "=", "<", ">"} { // longer ones first
		if rest, ok := strings.CutPrefix(e.want, op); ok {
			e.operator, e.want = op, strings.TrimSpace(rest)
			break
		}
	}
	if e.operator == "==" {
		e.operator = "="
	}
	if n := len(e.want); n >= 2 && (e.want[0] == '\'' || e.want[0] == '"') && e.want[n-1] == e.want[0] {
		e.want = e.want[1 : n-1]
	} else if n == 0 {
		return e, fmt.Errorf("expectation %q: want a value, or an operator (=, !=, <, <=, >, >=) and a value", text)
	}
	return e, nil
}

// Met reports whether an answer meets the expectation. Numbers are compared as numbers, also where the database keeps one
// as text; all else is compared as text, byte by byte. NULL meets "null" and nothing else.
func (e Expectation) Met(answer any) bool {
	if answer == nil || strings.EqualFold(e.want, "null") {
		return e.metNull(answer)
	}
	order, ordered := e.compare(answer)
	switch e.operator {
	case "=":
		return ordered && order == 0
	case "!=":
		return !ordered || order != 0
	case "<":
		return ordered && order < 0
	case "<=":
		return ordered && order <= 0
	case ">":
		return ordered && order > 0
	case ">=":
		return ordered && order >= 0
	}
	return false
}

// metNull judges where one of the two is NULL.
func (e Expectation) metNull(answer any) bool {
	wanted := strings.EqualFold(e.want, "null")
	switch e.operator {
	case "=":
		return answer == nil && wanted || answer != nil && wanted && text(answer) == e.want
	case "!=":
		return answer != nil && wanted && text(answer) != e.want
	}
	return false
}

// compare orders an answer and what is wanted; false: a number and a text that is none have no order.
func (e Expectation) compare(answer any) (int, bool) {
	have, isNumber := number(answer)
	want, wantsNumber := number(e.want)
	switch {
	case isNumber && wantsNumber:
		return have.Cmp(want), true
	case wantsNumber && !isNumber, isNumber && !wantsNumber && !isText(answer):
		return 0, false
	}
	return cmp.Compare(text(answer), e.want), true
}

func isText(answer any) bool {
	switch answer.(type) {
	case string, []byte, time.Time:
		return true
	}
	return false
}

// number is the value of an answer that is a number. 64-bit integers are exact; what has a fraction or an exponent is
// rounded as SQLite and everybody else does, so that 0.1 equals 0.1.
func number(answer any) (*big.Float, bool) {
	switch v := answer.(type) {
	case int64:
		return new(big.Float).SetPrec(64).SetInt64(v), true
	case bool:
		if v {
			return number(int64(1))
		}
		return number(int64(0))
	case float64:
		if v != v { // no order
			return nil, false
		}
		return big.NewFloat(v), true
	case string:
		v = strings.TrimSpace(v)
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return number(n)
		}
		// Not "Inf", "0x10" or "1_000", which Go takes for numbers and nobody means.
		if v == "" || strings.Trim(v, "+-.0123456789eE") != "" || strings.Trim(v[:1], "+-.0123456789") != "" {
			return nil, false
		}
		if f, err := strconv.ParseFloat(v, 64); err == nil {
			return number(f)
		}
	case []byte:
		return number(string(v))
	}
	return nil, false
}

// text is an answer as text.
func text(answer any) string {
	switch v := answer.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05") // as datetime() of SQLite writes it
	}
	return fmt.Sprint(answer)
}
