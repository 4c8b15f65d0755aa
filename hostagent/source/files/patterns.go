package files

import (
	"errors"
	"fmt"
	"strings"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Patterns is a list of patterns that say what to leave out, as in a .gitignore file:
//
//   - empty lines and lines that begin with '#' say nothing; '\' takes the meaning from the character after it
//   - '*' stands for any characters but '/', '?' for one, '[a-z]' for one of a set, '[!a-z]' for one that is not in it
//   - a pattern that begins with '/' is an absolute path; any other fits at every depth: "cache" and "logs/*.gz" are
//     found in every directory (unlike in .gitignore, where a '/' in the middle makes a pattern absolute)
//   - '**' between slashes stands for any number of directories; "dir/**" is everything in dir but not dir itself
//   - a '/' at the end restricts the pattern to directories
//   - '!' at the beginning takes back what an earlier pattern left out; the last pattern that fits decides. What is in a
//     directory that is left out can't be taken back, as the directory is never entered
//
// Roots themselves are never left out. A nil Patterns leaves nothing out.
type Patterns struct {
	rules []rule
}

type rule struct {
	keep     bool // began with '!'
	dirOnly  bool
	baseOnly bool // one segment that is compared with the last component
	segments []segment
}

// segment is a pattern for one component of a path, or, with any, for any number of them.
type segment struct {
	any     bool
	literal bool
	text    string
	glob    glob
}

// ParsePatterns parses a list of patterns. Patterns that could never fit are errors.
func ParsePatterns(lines []string) (*Patterns, error) {
	p := &Patterns{}
	for i, line := range lines {
		r, ok, err := parseRule(line)
		if err != nil {
			return nil, fmt.Errorf("pattern %d %q: %w", i+1, line, err)
		}
		if ok {
			p.rules = append(p.rules, r)
		}
	}
	return p, nil
}

func parseRule(line string) (r rule, ok bool, err error) {
	text := trimSpaces(line)
	if text == "" || text[0] == '#' {
		return r, false, nil
	}
	if strings.IndexByte(text, 0) >= 0 {
		return r, false, errors.New("has a zero byte, which no path has")
	}
	text, r.keep = strings.CutPrefix(text, "!")
	text, r.dirOnly = strings.CutSuffix(text, "/")
	text, absolute := strings.CutPrefix(text, "/")
	if text == "" {
		return r, false, errors.New("fits nothing")
	}
	parts := strings.Split(text, "/")
	r.baseOnly = !absolute && len(parts) == 1
	if !absolute && !r.baseOnly {
		r.segments = append(r.segments, segment{any: true})
	}
	for _, part := range parts {
		s, err := parseSegment(part, r.baseOnly)
		if err != nil {
			return r, false, err
		}
		r.segments = append(r.segments, s)
	}
	return r, true, nil
}

func parseSegment(part string, baseOnly bool) (segment, error) {
	switch part {
	case "", ".", "..":
		return segment{}, fmt.Errorf("has the component %q, which no path has", part)
	case "**":
		if !baseOnly {
			return segment{any: true}, nil
		}
	}
	g, err := parseGlob(part)
	if err != nil {
		return segment{}, err
	}
	if text, ok := g.literal(); ok {
		return segment{literal: true, text: text}, nil
	}
	return segment{glob: g}, nil
}

// trimSpaces removes spaces at the end, unless there is a '\' before.
func trimSpaces(s string) string {
	for strings.HasSuffix(s, " ") {
		slashes := len(s) - 1 - len(strings.TrimRight(s[:len(s)-1], `\`))
		if slashes%2 == 1 {
			return s
		}
		s = s[:len(s)-1]
	}
	return s
}

// Match reports whether a path is left out: the path itself or a directory above it. isDir says whether the path is a
// directory. Directories above root, and root, which the path is or lies in, are not judged, for a capture never leaves
// out a root for where it lies; "/" has all judged.
func (p *Patterns) Match(root, path string, isDir bool) bool {
	if p.empty() || !strings.HasPrefix(path, "/") || path == root {
		return false
	}
	from := 1
	if root != "/" && snapshot.Within(root, path) {
		from = len(root) + 1
	}
	for i := from; i < len(path); i++ {
		if path[i] == '/' && p.excludes(path[:i], true) {
			return true
		}
	}
	return p.excludes(path, isDir)
}

func (p *Patterns) empty() bool { return p == nil || len(p.rules) == 0 }

// excludes judges the path alone.
func (p *Patterns) excludes(path string, isDir bool) bool {
	if p.empty() || path == "/" {
		return false
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(p.rules) - 1; i >= 0; i-- {
		r := &p.rules[i]
		if r.dirOnly && !isDir {
			continue
		}
		if r.baseOnly && r.segments[0].fits(base) || !r.baseOnly && fits(r.segments, path[1:]) {
			return !r.keep
		}
	}
	return false
}

func (s *segment) fits(name string) bool {
	if s.literal {
		return s.text == name
	}
	return s.glob.fits(name)
}

// fits matches a path without its first '/'. Of several "any" segments only the last one reached is ever tried again:
// what comes before it has found its earliest place already, so that time grows with the product of both lengths at most.
func fits(segments []segment, path string) bool {
	si, at, end := 0, 0, len(path)+1 // the next segment, where its component begins, where there is none any more
	retry, retryAt := -1, 0          // the segment after the last any, and where that was tried
	next := func(at int) int {
		if i := strings.IndexByte(path[at:], '/'); i >= 0 {
			return at + i + 1
		}
		return end
	}
	for {
		switch {
		case si == len(segments) && at == end:
			return true
		case si < len(segments) && segments[si].any:
			if si == len(segments)-1 {
				return at < end
			}
			si++
			retry, retryAt = si, at
			continue
		case si < len(segments) && at < end:
			if after := next(at); segments[si].fits(path[at : after-1]) {
				si, at = si+1, after
				continue
			}
		}
		if retry < 0 || retryAt >= end {
			return false
		}
		retryAt = next(retryAt)
		si, at = retry, retryAt
	}
}
