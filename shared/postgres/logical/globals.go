package logical

import (
	"fmt"
	"strings"
)

// Statement is a statement of SQL, and what it is about, as far as restores of roles and tablespaces care.
type Statement struct {
	Text       string // without the semicolon
	Makes      string // role or tablespace that it creates; empty: none
	Of         string // role or tablespace that it alters or comments; empty: none
	Tablespace bool   // Makes and Of are tablespaces
}

// Statements splits the SQL that pg_dumpall writes of roles and tablespaces. Lines that begin with a backslash are for psql
// and left out, as are comments and settings (SET …). The error says where a quotation has no end.
func Statements(script string) ([]Statement, error) {
	var out []Statement
	line, start := 1, 0
	var b strings.Builder
	flush := func() {
		if s, ok := statement(strings.TrimSpace(b.String())); ok {
			out = append(out, s)
		}
		b.Reset()
	}
	for i := 0; i < len(script); {
		rest := script[i:]
		n := 1
		switch {
		case (i == 0 || script[i-1] == '\n') && strings.TrimSpace(b.String()) == "" && rest[0] == '\\':
			n = untilLine(rest)
			line++
			i += n
			continue
		case strings.HasPrefix(rest, "--"):
			i += untilLine(rest)
			line++
			b.WriteByte('\n')
			continue
		case rest[0] == ';':
			flush()
			i++
			continue
		case rest[0] == '\'', rest[0] == '"':
			n = quoted(rest, rest[0], rest[0] == '\'' && escapes(script[:i]))
		case rest[0] == '$':
			n = dollars(rest)
		}
		if start = line; n == 0 {
			return nil, fmt.Errorf("line %d: the quotation has no end", start)
		}
		b.WriteString(rest[:n])
		line += strings.Count(rest[:n], "\n")
		i += n
	}
	flush()
	return out, nil
}

// untilLine is the length of the line.
func untilLine(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i + 1
	}
	return len(s)
}

// escapes reports whether a text that begins after before is an E'…' text, in which a backslash escapes.
func escapes(before string) bool {
	n := len(before)
	if n == 0 || before[n-1] != 'E' && before[n-1] != 'e' {
		return false
	}
	return n == 1 || !isName(before[n-2])
}

func isName(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// quoted is the length of a quotation; 0: it has no end.
func quoted(s string, quote byte, backslash bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case backslash && s[i] == '\\':
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return 0
}

// dollars is the length of a $tag$…$tag$ text, or 1 where it is just a dollar; 0: it has no end.
func dollars(s string) int {
	end := 1
	for end < len(s) && isName(s[end]) && s[end] != '$' {
		end++
	}
	if end >= len(s) || s[end] != '$' || end > 1 && s[1] >= '0' && s[1] <= '9' {
		return 1
	}
	tag := s[:end+1]
	if i := strings.Index(s[len(tag):], tag); i >= 0 {
		return 2*len(tag) + i
	}
	return 0
}

// statement finds out what a statement is about; false: it is none that counts.
func statement(text string) (Statement, bool) {
	s := Statement{Text: text}
	words := strings.Fields(text)
	if len(words) == 0 || strings.EqualFold(words[0], "SET") {
		return s, false
	}
	for _, form := range []struct {
		words      string
		makes      bool
		tablespace bool
	}{
		{"CREATE ROLE", true, false},
		{"CREATE TABLESPACE", true, true},
		{"ALTER ROLE", false, false},
		{"ALTER TABLESPACE", false, true},
		{"COMMENT ON ROLE", false, false},
		{"COMMENT ON TABLESPACE", false, true},
	} {
		rest, ok := strings.CutPrefix(text, form.words+" ")
		if !ok {
			continue
		}
		s.Tablespace = form.tablespace
		if name := firstName(rest); form.makes {
			s.Makes = name
		} else {
			s.Of = name
		}
	}
	return s, true
}

// firstName is the name with which a text begins.
func firstName(s string) string {
	if strings.HasPrefix(s, `"`) {
		if n := quoted(s, '"', false); n > 1 {
			return strings.ReplaceAll(s[1:n-1], `""`, `"`)
		}
		return ""
	}
	end := 0
	for end < len(s) && isName(s[end]) {
		end++
	}
	return strings.ToLower(s[:end])
}
