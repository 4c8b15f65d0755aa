package files

import (
	"errors"
	"fmt"
	"strings"
)

// glob is a pattern for one component of a path: bytes, not characters, are matched, as in git.
type glob []token

type token struct {
	kind tokenKind
	b    byte
	set  *[4]uint64 // bit b says whether byte b is in the set
}

type tokenKind byte

const (
	exact tokenKind = iota
	one
	many
	class
)

func parseGlob(s string) (glob, error) {
	var g glob
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case '*':
			if n := len(g); n == 0 || g[n-1].kind != many {
				g = append(g, token{kind: many})
			}
			i++
		case '?':
			g = append(g, token{kind: one})
			i++
		case '[':
			set, n, err := parseClass(s[i+1:])
			if err != nil {
				return nil, err
			}
			g = append(g, token{kind: class, set: set})
			i += n + 1
		case '\\':
			if i+1 == len(s) {
				return nil, errors.New(`ends in '\' with nothing after it`)
			}
			g = append(g, token{b: s[i+1]})
			i += 2
		default:
			g = append(g, token{b: c})
			i++
		}
	}
	return g, nil
}

// parseClass parses what follows a '[' and returns how many bytes it took.
func parseClass(s string) (*[4]uint64, int, error) {
	set := new([4]uint64)
	i := 0
	negated := strings.HasPrefix(s, "!") || strings.HasPrefix(s, "^")
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(s) {
			return nil, 0, errors.New("'[' without ']'")
		}
		if s[i] == ']' && !first {
			break
		}
		n, err := parseClassItem(s[i:], set)
		if err != nil {
			return nil, 0, err
		}
		i += n
	}
	if negated {
		for k := range set {
			set[k] = ^set[k]
		}
	}
	return set, i + 1, nil
}

// parseClassItem adds one byte, range or named class to set.
func parseClassItem(s string, set *[4]uint64) (int, error) {
	if rest, ok := strings.CutPrefix(s, "[:"); ok {
		if name, _, ok := strings.Cut(rest, ":]"); ok {
			in, ok := namedClass(name)
			if !ok {
				return 0, fmt.Errorf("unknown class of characters [:%s:]", name)
			}
			for b := range 256 {
				if in(byte(b)) {
					addByte(set, byte(b))
				}
			}
			return len(name) + 4, nil
		}
	}
	low, n, err := classByte(s)
	if err != nil {
		return 0, err
	}
	if len(s) < n+2 || s[n] != '-' || s[n+1] == ']' {
		addByte(set, low)
		return n, nil
	}
	high, m, err := classByte(s[n+1:])
	if err != nil {
		return 0, err
	}
	if high < low {
		return 0, fmt.Errorf("range %q runs backwards", s[:n+1+m])
	}
	for b := int(low); b <= int(high); b++ {
		addByte(set, byte(b))
	}
	return n + 1 + m, nil
}

func classByte(s string) (byte, int, error) {
	if s[0] != '\\' {
		return s[0], 1, nil
	}
	if len(s) == 1 {
		return 0, 0, errors.New("'[' without ']'")
	}
	return s[1], 2, nil
}

func addByte(set *[4]uint64, b byte) { set[b>>6] |= 1 << (b & 63) }

// namedClass returns what POSIX classes hold in the C locale.
func namedClass(name string) (func(byte) bool, bool) {
	ranges, ok := map[string]string{
		"alpha": "AZaz", "digit": "09", "alnum": "09AZaz", "lower": "az", "upper": "AZ", "blank": "\t\t  ", "space": "\t\r  ",
		"cntrl": "\x00\x1f\x7f\x7f", "graph": "!~", "print": " ~", "punct": "!/:@[`{~", "xdigit": "09AFaf",
	}[name]
	return func(b byte) bool {
		for i := 0; i < len(ranges); i += 2 {
			if ranges[i] <= b && b <= ranges[i+1] {
				return true
			}
		}
		return false
	}, ok
}

// literal returns the one text that the pattern fits, if there is only one.
func (g glob) literal() (string, bool) {
	text := make([]byte, len(g))
	for i, t := range g {
		if t.kind != exact {
			return "", false
		}
		text[i] = t.b
	}
	return string(text), true
}

func (t *token) fits(b byte) bool {
	return t.kind == one || t.kind == exact && t.b == b || t.kind == class && t.set[b>>6]&(1<<(b&63)) != 0
}

// fits matches a whole component. Only the last '*' is ever tried again.
func (g glob) fits(name string) bool {
	gi, ni := 0, 0
	retry, retryAt := -1, 0
	for {
		switch {
		case gi == len(g) && ni == len(name):
			return true
		case gi < len(g) && g[gi].kind == many:
			gi++
			retry, retryAt = gi, ni
			continue
		case gi < len(g) && ni < len(name) && g[gi].fits(name[ni]):
			gi, ni = gi+1, ni+1
			continue
		}
		if retry < 0 || retryAt >= len(name) {
			return false
		}
		retryAt++
		gi, ni = retry, retryAt
	}
}
