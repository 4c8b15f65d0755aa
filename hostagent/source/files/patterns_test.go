package files

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patternPaths are looked at with each list of patternCases. Those that end in '/' are directories.
var patternPaths = []string{
	"/a", "/b", "/ab", "/a.txt", "/a.log", "/abc/", "/abc/a", "/abc/b.log", "/abc/def/", "/abc/def/a", "/abc/def/ghi/", "/abc/def/ghi/b.log",
	"/logs/", "/logs/a.gz", "/logs/old/", "/logs/old/a.gz", "/x/", "/x/logs/", "/x/logs/a.gz", "/x/logs/b", "/cache", "/x/cache/", "/x/cache/f",
	"/#a", "/!a", "/a b", "/a ", "/[a]", "/a*b", "/a?", "/a\\b", "/-", "/]", "/^a", "/A", "/Z", "/0", "/é", "/x/a-b", "/.hidden", "/.config/", "/.config/x",
	"/deep/", "/deep/a/", "/deep/a/b/", "/deep/a/b/c/", "/deep/a/b/c/end", "/deep/end", "/deep/a/end",
}

var patternCases = [][]string{
	{},
	{"a"},
	{"/a"},
	{"a*"},
	{"*"},
	{"?"},
	{"??"},
	{"*.log"},
	{"/*.log"},
	{"a.*"},
	{"logs/"},
	{"/logs/"},
	{"logs"},
	{"cache/"},
	{"cache"},
	{"*", "!*.log"},
	{"*", "!*/", "!*.log"},
	{"*.gz", "!a.gz"},
	{"!a.gz", "*.gz"},
	{"/x/*", "!/x/logs/"},
	{"/x/", "!/x/logs/"},
	{"/x/**", "!/x/logs/"},
	{"**"},
	{"**/"},
	{"/**"},
	{"**/a"},
	{"**/logs"},
	{"**/logs/**"},
	{"/abc/**"},
	{"/abc/**/"},
	{"/abc/**/b.log"},
	{"/**/b.log"},
	{"/deep/**/end"},
	{"/deep/*/end"},
	{"/deep/**/b/**/end"},
	{"/deep/**/**/end"},
	{"/deep/a**b"},
	{"a**"},
	{"**a"},
	{"/abc/*"},
	{"/*/a"},
	{"/*/*/a.gz"},
	{"/abc/def/"},
	{"#a"},
	{`\#a`},
	{`\!a`},
	{"!a"},
	{"a "},
	{`a\ `},
	{`a\ b`},
	{"a b"},
	{`\a`},
	{`a\*b`},
	{`a\\b`},
	{`\[a]`},
	{`a\?`},
	{"[a]"},
	{"[ab]"},
	{"[a-z]"},
	{"[A-Z]"},
	{"[!a]"},
	{"[^a]"},
	{"[]]"},
	{"[]a]"},
	{"[!]]"},
	{"[-a]"},
	{"[a-]"},
	{"[[:alpha:]]"},
	{"[[:digit:]]"},
	{"[[:upper:]0]"},
	{"[![:lower:]]"},
	{"[[:punct:]]"},
	{`[\]]`},
	{`[\^]a`},
	{"[^^]a"},
	{"a[.]txt"},
	{"[a-b]*"},
	{"é"},
	{"??"},
	{"[é][é]"},
	{"[x]/[l]ogs"},
	{"", "# a comment", "a"},
	{".*"},
	{"/.*"},
	{".config/*"},
	{"*/"},
	{"/*/"},
	{"!*", "a"},
	{"a", "!a", "a"},
	{"a", "!/abc/a"},
	{"/abc/def", "!/abc/def/a"},
	{"[[:xdigit:]]"},
	{"[[:space:]]"},
	{"a[[:blank:]]b"},
	{"[[:alnum:]]"},
	{"[[:graph:]]"},
	{"[[:print:]]"},
	{"[[:cntrl:]]"},
	{"**.gz"},
	{"*a*b*"},
}

// TestPatternsAreThoseOfGit compares with git. A '/' in the middle is the one difference: git then takes the pattern for an
// absolute path, so git is asked for "**/" before it.
func TestPatternsAreThoseOfGit(t *testing.T) {
	dir := tempDir(t)
	for _, p := range patternPaths {
		if isDir := strings.HasSuffix(p, "/"); isDir {
			if err := os.MkdirAll(dir+p, 0o700); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, dir+p, "")
		}
	}
	git := func(args ...string) *exec.Cmd {
		c := exec.Command("git", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME="+dir)
		return c
	}
	if out, err := git("init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	total := 0
	for _, lines := range patternCases {
		var ignore strings.Builder
		for _, line := range lines {
			body, not := strings.CutPrefix(line, "!")
			if i := strings.Index(strings.TrimSuffix(body, "/"), "/"); i > 0 {
				body = "**/" + body
			}
			if not {
				body = "!" + body
			}
			ignore.WriteString(body + "\n")
		}
		if err := os.WriteFile(filepath.Join(dir, ".git", "info", "exclude"), []byte(ignore.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		var in bytes.Buffer
		for _, p := range patternPaths {
			in.WriteString(strings.TrimSuffix(p[1:], "/") + "\x00")
		}
		cmd := git("check-ignore", "--stdin", "-z", "--no-index")
		cmd.Stdin = &in
		out, _ := cmd.Output() // exit code 1: nothing is ignored
		total += bytes.Count(out, []byte{0})
		ignored := map[string]bool{}
		for _, p := range strings.Split(string(out), "\x00") {
			ignored["/"+p] = true
		}
		p, err := ParsePatterns(lines)
		if err != nil {
			t.Errorf("%q: %v", lines, err)
			continue
		}
		for _, path := range patternPaths {
			name := strings.TrimSuffix(path, "/")
			if got, want := p.Match("/", name, name != path), ignored[name]; got != want {
				t.Errorf("patterns %q, path %q: left out %v, git says %v", lines, path, got, want)
			}
		}
	}
	if total < 500 {
		t.Errorf("git ignored only %d paths: it did not see the patterns", total)
	}
}

func TestPatternsAtEveryDepth(t *testing.T) {
	p, err := ParsePatterns([]string{"logs/*.gz", "target/debug/", "!keep/logs/*.gz"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/logs/a.gz": true, "/srv/app/logs/a.gz": true, "/srv/logs/x/a.gz": false, "/srv/keep/logs/a.gz": false,
		"/r/target/debug": true, "/r/target/debug/x": true, "/r/target": false, "relative": false, "/": false, "": false,
	} {
		if got := p.Match("/", path, strings.HasSuffix(path, "debug")); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
	if (*Patterns)(nil).Match("/", "/a", false) {
		t.Error("no patterns leave something out")
	}
}

// TestPatternsAboveTheRoot has roots in directories that patterns fit: a capture takes them all the same.
func TestPatternsAboveTheRoot(t *testing.T) {
	p, err := ParsePatterns([]string{"tmp", "/srv/app", "*.log"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		root, path string
		want       bool
	}{
		{"/tmp/x", "/tmp/x", false},
		{"/tmp/x", "/tmp/x/a", false},
		{"/tmp/x", "/tmp/x/tmp", true},
		{"/tmp/x", "/tmp/x/tmp/a", true},
		{"/tmp/x", "/tmp/x/a.log/b", true},
		{"/tmp", "/tmp/a", false},
		{"/srv/app/data", "/srv/app/data/a", false},
		{"/srv", "/srv/app/data/a", true},
		{"/", "/tmp/a", true},
		{"/other", "/tmp/a", true},
	} {
		if got := p.Match(c.root, c.path, false); got != c.want {
			t.Errorf("%s below %s: %v", c.path, c.root, got)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, line := range []string{
		"/", "!", "//", "!/", "a//b", "/./a", "a/../b", "[a", "a[", "[]", "[!]", "[z-a]", "[[:nothing:]]", `a\`, `[\`, "a\x00b", "[a/b]", "../a",
	} {
		if _, err := ParsePatterns([]string{"ok", line}); err == nil || !strings.HasPrefix(err.Error(), "pattern 2 ") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestPatternsTakeNoExponentialTime(t *testing.T) {
	start := time.Now()
	p, err := ParsePatterns([]string{"/" + strings.Repeat("**/a*b*c*d*/", 40) + "end", strings.Repeat("*a", 100) + "b"})
	if err != nil {
		t.Fatal(err)
	}
	p.Match("/", "/"+strings.Repeat("abcabcdabcdabcd/", 500)+strings.Repeat("a", 5000), false)
	if d := time.Since(start); d > 2*time.Minute {
		t.Errorf("took %v", d)
	}
}

func FuzzPatterns(f *testing.F) {
	for _, lines := range patternCases {
		f.Add(strings.Join(lines, "\n"), "/abc/def/a", true)
	}
	f.Fuzz(func(t *testing.T, text, path string, isDir bool) {
		p, err := ParsePatterns(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		out := p.Match("/", path, isDir)
		if p.Match("/", path, isDir) != out {
			t.Error("two answers")
		}
		// What is in a directory that is left out is left out.
		if out && strings.HasPrefix(path, "/") && isDir && !p.Match("/", path+"/x", false) {
			t.Errorf("%q is left out, and %q is not", path, path+"/x")
		}
	})
}
