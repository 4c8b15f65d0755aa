package cli

import "testing"

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.conf", "/etc/a.conf", true},
		{"*.conf", "/etc/a.conf/b", false},
		{"/etc/*", "/etc/a", true},
		{"/etc/*", "/etc/a/b", false},
		{"/*", "/etc", true},
		{"/", "/", true},
		{"/etc/**/x", "/etc/x", true},
		{"/etc/**/x", "/etc/a/b/x", true},
		{"/etc/**/x", "/etc/a/b/y", false},
		{"/etc/**/b/**/x", "/etc/a/b/c/d/x", true},
		{"/etc/**", "/etc/a/b", true},
		{"/etc/**", "/etc", false},
		{"**/x", "/x", true},
		{"**/x", "/a/b/x", true},
		{"/**", "/a/b/x", true},
		{"/**/*.go", "/a/b.go", true},
		{"ssh/*.pub", "/etc/ssh/a.pub", true},
		{"ssh/*.pub", "/ssh/a.pub", true},
		{"ssh/*.pub", "/etc/ssh/x/a.pub", false},
		{"a/**/b", "/x/a/y/z/b", true},
	} {
		if got := fits(tt.pattern, tt.path); got != tt.want {
			t.Errorf("%s, %s: %v", tt.pattern, tt.path, got)
		}
	}
}
