package trees

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Compare reports how tree b differs from tree a, one line for each difference; none if they are equal. It compares
// types, content, holes, permission bits, owners, mtime in nanoseconds, xattrs with ACLs, symlink targets, device numbers and which names
// are hard links of one file. A socket of a may be missing in b, as no backup can hold one.
func Compare(a, b string) []string {
	left, err := Read(a)
	if err != nil {
		return []string{fmt.Sprintf("read first tree: %v", err)}
	}
	right, err := Read(b)
	if err != nil {
		return []string{fmt.Sprintf("read second tree: %v", err)}
	}
	return CompareNodes(left, right)
}

// CompareNodes is [Compare] for trees that were read before.
func CompareNodes(a, b []Node) []string {
	var diffs []string
	left, right := byPath(a), byPath(b)
	firstA, firstB := firstNames(a), firstNames(b)
	for i := range a {
		x := &a[i]
		y, ok := right[x.Path]
		switch {
		case !ok && x.Type() == unix.S_IFSOCK:
			continue
		case !ok:
			diffs = append(diffs, fmt.Sprintf("%q: missing", x.Path))
			continue
		}
		diffs = append(diffs, compareNode(x, y)...)
		if x.Type() != unix.S_IFDIR && firstA[x.Path] != firstB[x.Path] {
			diffs = append(diffs, fmt.Sprintf("%q: linked with %q, want %q", x.Path, firstB[x.Path], firstA[x.Path]))
		}
	}
	for i := range b {
		if _, ok := left[b[i].Path]; !ok {
			diffs = append(diffs, fmt.Sprintf("%q: not in the first tree", b[i].Path))
		}
	}
	return diffs
}

func byPath(nodes []Node) map[string]*Node {
	m := make(map[string]*Node, len(nodes))
	for i := range nodes {
		m[nodes[i].Path] = &nodes[i]
	}
	return m
}

// firstNames maps each path to the first path of the same inode.
func firstNames(nodes []Node) map[string]string {
	type inode struct{ device, inode uint64 }
	first, names := map[inode]string{}, make(map[string]string, len(nodes))
	for i := range nodes {
		key := inode{nodes[i].Device, nodes[i].Inode}
		if _, ok := first[key]; !ok {
			first[key] = nodes[i].Path
		}
		names[nodes[i].Path] = first[key]
	}
	return names
}

func compareNode(x, y *Node) []string {
	var diffs []string
	differ := func(what string, got, want any) {
		diffs = append(diffs, fmt.Sprintf("%q: %s %v, want %v", x.Path, what, got, want))
	}
	if x.Type() != y.Type() {
		differ("type", fmt.Sprintf("%o", y.Type()), fmt.Sprintf("%o", x.Type()))
		return diffs
	}
	if x.Mode != y.Mode && x.Type() != unix.S_IFLNK {
		differ("mode", fmt.Sprintf("%o", y.Mode&0o7777), fmt.Sprintf("%o", x.Mode&0o7777))
	}
	if x.UID != y.UID || x.GID != y.GID {
		differ("owner", fmt.Sprintf("%d:%d", y.UID, y.GID), fmt.Sprintf("%d:%d", x.UID, x.GID))
	}
	if x.MTime != y.MTime {
		differ("mtime", y.MTime, x.MTime)
	}
	if x.Target != y.Target {
		differ("target", y.Target, x.Target)
	}
	if x.Rdev != y.Rdev {
		differ("device", y.Rdev, x.Rdev)
	}
	if x.Size != y.Size {
		differ("size", y.Size, x.Size)
	} else if x.Hash != y.Hash {
		differ("content", fmt.Sprintf("%x", y.Hash), fmt.Sprintf("%x", x.Hash))
	}
	if !slices.Equal(x.Segments, y.Segments) {
		differ("segments", y.Segments, x.Segments)
	}
	if !maps.Equal(x.Xattrs, y.Xattrs) {
		differ("xattrs", fmt.Sprintf("%q", y.Xattrs), fmt.Sprintf("%q", x.Xattrs))
	}
	return diffs
}
