package objstore

import (
	"context"
	"slices"
	"strings"
)

// Prefixes calls fn with each distinct next path component under prefix (empty, or ending in '/') that has objects
// below it, without the slash, in ascending order. A store that implements [Lister] answers by its own means; any
// other is listed whole.
func Prefixes(ctx context.Context, s Store, prefix string, fn func(name string) error) error {
	if l, ok := s.(Lister); ok {
		return l.Prefixes(ctx, prefix, fn)
	}
	if err := CheckLevel(prefix); err != nil {
		return err
	}
	var names []string
	err := s.List(ctx, prefix, func(i Info) error {
		name, _, below := strings.Cut(i.Key[len(prefix):], "/")
		// Keys of one directory follow each other.
		if below && (len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return EachName(names, fn)
}

// EachName calls fn with each of names in ascending order, and sorts names for it.
func EachName(names []string, fn func(name string) error) error {
	// Keys are ordered with their slash ("a-b/" before "a/"), names without.
	slices.Sort(names)
	for _, n := range names {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}
