package snapshot

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	good := []string{"/", "/a", "/a/b", "/...", "/.a", "/a.", "/..a", "/\xff", "/ ", "/a\nb", "/" + strings.Repeat("x", MaxPath-1)}
	bad := []string{
		"", "a", "a/b", "//", "/a/", "/a//b", "/.", "/..", "/./a", "/../a", "/a/..", "/a/.", "/a/../b", "\x00", "/\x00", "/a\x00/b",
		"/" + strings.Repeat("x", MaxPath),
	}
	for _, p := range good {
		if err := CheckPath(p); err != nil {
			t.Error(err)
		}
	}
	for _, p := range bad {
		if CheckPath(p) == nil {
			t.Errorf("path %q passes", brief(p))
		}
	}
}

func TestParentWithin(t *testing.T) {
	for path, want := range map[string]string{"/": "/", "/a": "/", "/a/b": "/a", "/a/b/c": "/a/b"} {
		if got := Parent(path); got != want {
			t.Errorf("parent of %q is %q", path, got)
		}
	}
	for _, c := range []struct {
		dir, path string
		want      bool
	}{
		{"/", "/", true},
		{"/", "/a", true},
		{"/a", "/a", true},
		{"/a", "/a/b", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"/a", "/", false},
		{"/a", "/b", false},
	} {
		if got := Within(c.dir, c.path); got != c.want {
			t.Errorf("%q within %q: %v", c.path, c.dir, got)
		}
	}
}

// TestComparePaths checks the order against its meaning: component by component, a directory before what it holds.
func TestComparePaths(t *testing.T) {
	const letters = "ab\x01\xff"
	random := func() string {
		var p strings.Builder
		for range 1 + rand.IntN(3) {
			p.WriteByte('/')
			for range 1 + rand.IntN(2) {
				p.WriteByte(letters[rand.IntN(len(letters))])
			}
		}
		return p.String()
	}
	for range 20_000 {
		a, b := random(), random()
		want := slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
		if got := ComparePaths(a, b); got != want {
			t.Fatalf("compare %q, %q: %d, want %d", a, b, got, want)
		}
	}
}
