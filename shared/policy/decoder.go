package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder walks the syntax tree of a policy file and collects everything that is wrong with it.
type decoder struct {
	errs Errors
	path []string
	// positions has the token of every value that check looks at again, by path.
	positions map[string]*token.Token
}

// field is one key of a mapping and what reads its value.
type field struct {
	name string
	read func(ast.Node)
}

func (d *decoder) here() string { return strings.Join(d.path, ".") }

func (d *decoder) fail(tok *token.Token, hint, format string, args ...any) {
	e := &Error{Path: d.here(), Text: fmt.Sprintf(format, args...), Hint: hint}
	if tok != nil && tok.Position != nil {
		e.Line, e.Column = tok.Position.Line, tok.Position.Column
	}
	d.errs = append(d.errs, e)
}

// failAt reports an error at a value that was read before.
func (d *decoder) failAt(path, hint, format string, args ...any) {
	saved := d.path
	d.path = strings.Split(path, ".")
	d.fail(d.positions[path], hint, format, args...)
	d.path = saved
}

// within runs fn one level deeper.
func (d *decoder) within(name string, tok *token.Token, fn func()) {
	d.path = append(d.path, name)
	d.positions[d.here()] = tok
	fn()
	d.path = d.path[:len(d.path)-1]
}

// plain refuses what YAML has and a policy does not use.
func (d *decoder) plain(n ast.Node) bool {
	switch n := n.(type) {
	case nil:
		d.fail(nil, "", "a value is missing")
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		d.fail(n.GetToken(), "write the value out", "anchors, aliases and merge keys are not used in policies")
	case *ast.TagNode:
		d.fail(n.GetToken(), "", "tags (!…) are not used in policies")
	default:
		return true
	}
	return false
}

// pairs returns the key-value pairs of a mapping.
func (d *decoder) pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	if !d.plain(n) {
		return nil, false
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	d.fail(n.GetToken(), "", "want a mapping (key: value), found %s", describe(n))
	return nil, false
}

// key returns the text of a mapping's key.
func (d *decoder) key(kv *ast.MappingValueNode) (string, *token.Token, bool) {
	if kv == nil || kv.Key == nil {
		d.fail(nil, "", "a key is missing")
		return "", nil, false
	}
	tok := kv.Key.GetToken()
	switch k := kv.Key.(type) {
	case *ast.StringNode:
		return k.Value, tok, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		// A host may be called 42 or null.
		return strings.TrimSpace(tok.Value), tok, true
	}
	d.fail(tok, "", "want a plain word as key")
	return "", nil, false
}

// each reads a mapping whose keys are names of the user. An unusable or second key is reported and left out.
func (d *decoder) each(n ast.Node, read func(name string, tok *token.Token, value ast.Node)) {
	kvs, ok := d.pairs(n)
	if !ok {
		return
	}
	lines := map[string]int{}
	for _, kv := range kvs {
		name, tok, ok := d.key(kv)
		if !ok {
			continue
		}
		if line, twice := lines[name]; twice {
			d.fail(tok, "", "%q is given twice (first in line %d)", name, line)
			continue
		}
		lines[name] = tok.Position.Line
		d.within(name, tok, func() { read(name, tok, kv.Value) })
	}
}

// mapping reads a mapping with known keys and reports whether it was one.
func (d *decoder) mapping(n ast.Node, fields ...field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	d.each(n, func(name string, tok *token.Token, value ast.Node) {
		for _, f := range fields {
			if f.name == name {
				f.read(value)
				return
			}
		}
		key := d.path[len(d.path)-1]
		d.path = d.path[:len(d.path)-1]
		hint := "known here: " + strings.Join(names, ", ")
		if near := nearest(name, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		d.fail(tok, hint, "unknown key %q", name)
		d.path = append(d.path, key)
	})
}

// list reads a list; read gets each element.
func (d *decoder) list(n ast.Node, read func(i int, value ast.Node)) {
	if !d.plain(n) {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(n.GetToken(), "write [a, b] or one “- a” per line", "want a list, found %s", describe(n))
		return
	}
	for i, v := range seq.Values {
		var tok *token.Token
		if v != nil {
			tok = v.GetToken()
		}
		d.within(strconv.Itoa(i), tok, func() { read(i, v) })
	}
}

// text returns a string value. Numbers and the like must be quoted, except where loose.
func (d *decoder) text(n ast.Node, loose bool) (string, *token.Token, bool) {
	if !d.plain(n) {
		return "", nil, false
	}
	tok := n.GetToken()
	switch v := n.(type) {
	case *ast.StringNode:
		return d.clean(tok, v.Value)
	case *ast.LiteralNode:
		if v.Value != nil {
			return d.clean(tok, strings.TrimSuffix(v.Value.Value, "\n"))
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		if loose && d.decimal(n) {
			return strings.TrimSpace(tok.Value), tok, true
		}
		if !loose {
			d.fail(tok, "put it in quotes", "want text, found %s", describe(n))
		}
		return "", nil, false
	}
	d.fail(tok, "", "want text, found %s", describe(n))
	return "", nil, false
}

// decimal refuses whole numbers that YAML's versions read differently (010, 0x10, 1_000).
func (d *decoder) decimal(n ast.Node) bool {
	if _, integer := n.(*ast.IntegerNode); !integer {
		return true
	}
	tok := n.GetToken()
	digits := strings.TrimPrefix(strings.TrimSpace(tok.Value), "-")
	if digits == "0" || (strings.Trim(digits, "0123456789") == "" && !strings.HasPrefix(digits, "0")) {
		return true
	}
	d.fail(tok, "", "write the number %s with decimal digits only", shorten(tok.Value))
	return false
}

func (d *decoder) clean(tok *token.Token, s string) (string, *token.Token, bool) {
	if strings.ContainsRune(s, 0) {
		d.fail(tok, "", "text contains a zero byte")
		return "", nil, false
	}
	return s, tok, true
}

// The readers of values. Each stores into dst only what it could read.

func (d *decoder) str(dst *string, check func(string) error) func(ast.Node) {
	return func(n ast.Node) { d.parsed(n, false, func(s string) error { return store(dst, s, check) }) }
}

func store(dst *string, s string, check func(string) error) error {
	if check != nil {
		if err := check(s); err != nil {
			return err
		}
	}
	*dst = s
	return nil
}

// parsed hands a scalar's text to parse and reports its error at the value.
func (d *decoder) parsed(n ast.Node, loose bool, parse func(string) error) {
	s, tok, ok := d.text(n, loose)
	if !ok {
		return
	}
	if err := parse(s); err != nil {
		d.fail(tok, "", "%v", err)
	}
}

func (d *decoder) strs(dst *[]string, check func(string) error) func(ast.Node) {
	return func(n ast.Node) {
		seen := map[string]bool{}
		d.list(n, func(_ int, v ast.Node) {
			d.parsed(v, false, func(s string) error {
				if check != nil {
					if err := check(s); err != nil {
						return err
					}
				}
				if seen[s] {
					return fmt.Errorf("%q is given twice", s)
				}
				seen[s] = true
				*dst = append(*dst, s)
				return nil
			})
		})
	}
}

func (d *decoder) boolean(dst *bool) func(ast.Node) {
	return func(n ast.Node) {
		if !d.plain(n) {
			return
		}
		if b, ok := n.(*ast.BoolNode); ok {
			*dst = b.Value
			return
		}
		d.fail(n.GetToken(), "", "want true or false, found %s", describe(n))
	}
}

func (d *decoder) count(dst *int, least int) func(ast.Node) {
	return func(n ast.Node) {
		if !d.plain(n) {
			return
		}
		tok := n.GetToken()
		if _, ok := n.(*ast.IntegerNode); !ok {
			d.fail(tok, "", "want a whole number, found %s", describe(n))
			return
		}
		if !d.decimal(n) {
			return
		}
		const most = 100_000
		v, err := strconv.Atoi(strings.TrimSpace(tok.Value))
		if err != nil || v < least || v > most {
			d.fail(tok, "", "want a whole number from %d to %d, found %s", least, most, tok.Value)
			return
		}
		*dst = v
	}
}

func (d *decoder) duration(dst *Duration, least Duration) func(ast.Node) {
	return func(n ast.Node) {
		d.parsed(n, true, func(s string) error {
			v, err := ParseDuration(s)
			if err == nil && v < least {
				err = fmt.Errorf("duration %q: want at least %s", s, least)
			}
			if err == nil {
				*dst = v
			}
			return err
		})
	}
}

func (d *decoder) size(dst *Size) func(ast.Node) {
	return func(n ast.Node) {
		d.parsed(n, true, func(s string) error {
			v, err := ParseSize(s)
			if err == nil && v == 0 {
				err = fmt.Errorf("size %q: want more than zero bytes", s)
			}
			if err == nil {
				*dst = v
			}
			return err
		})
	}
}

func (d *decoder) cron(dst *Cron) func(ast.Node) {
	return func(n ast.Node) {
		d.parsed(n, false, func(s string) (err error) {
			c, err := ParseCron(s)
			if err == nil {
				*dst = c
			}
			return err
		})
	}
}

func (d *decoder) windows(dst *[]Window) func(ast.Node) {
	return func(n ast.Node) {
		d.list(n, func(_ int, v ast.Node) {
			d.parsed(v, false, func(s string) error {
				w, err := ParseWindow(s)
				if err == nil {
					*dst = append(*dst, w)
				}
				return err
			})
		})
	}
}

func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + shorten(n.GetToken().Value)
	case *ast.BoolNode:
		return "the truth value " + n.GetToken().Value
	case *ast.StringNode:
		return fmt.Sprintf("the text %q", shorten(n.GetToken().Value))
	case *ast.LiteralNode:
		return "a block of text"
	}
	return "something else"
}

func shorten(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
