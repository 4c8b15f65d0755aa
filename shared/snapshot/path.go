package snapshot

import (
	"fmt"
	"strings"
)

// MaxPath is the longest path and the longest target of a symbolic link, in bytes. Linux refuses longer ones in one system
// call (4 KiB), but deeper trees can be made; the limit keeps a prefix-compressed tree from unfolding without bounds.
const MaxPath = 1<<16 - 1

// CheckPath reports what a tree does not allow as a path: paths begin with '/', have no empty, "." or ".." component, no
// zero byte and at most [MaxPath] bytes. They are bytes, not necessarily UTF-8. "/" is a path.
func CheckPath(path string) error {
	switch {
	case path == "/":
		return nil
	case path == "" || path[0] != '/':
		return fmt.Errorf("%w: path %q is not absolute", ErrFormat, brief(path))
	case len(path) > MaxPath:
		return fmt.Errorf("%w: path %q has %d bytes, over %d", ErrFormat, brief(path), len(path), MaxPath)
	}
	return checkComponents(path, 1)
}

// checkComponents checks the components of path from the one that begins at start, which must follow a '/'.
func checkComponents(path string, start int) error {
	rest := path[start:]
	for {
		end := strings.IndexByte(rest, '/')
		name := rest
		if end >= 0 {
			name = rest[:end]
		}
		if name == "" || name == "." || name == ".." {
			return fmt.Errorf("%w: path %q has the component %q", ErrFormat, brief(path), name)
		}
		if hasZero(name) {
			return fmt.Errorf("%w: path %q has a zero byte", ErrFormat, brief(path))
		}
		if end < 0 {
			return nil
		}
		rest = rest[end+1:]
	}
}

// Parent returns the directory that holds path. The parent of "/" is "/".
func Parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return "/"
	}
	return path[:i]
}

// Within reports whether path is dir or lies below it.
func Within(dir, path string) bool {
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// brief cuts a long path for messages.
func brief(path string) string {
	if len(path) > 200 {
		return path[:200] + "…"
	}
	return path
}

func hasZero(s string) bool { return strings.IndexByte(s, 0) >= 0 }
