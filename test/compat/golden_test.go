package compat_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// golden is the directory of the repository that was written when version 1 of the format was frozen, with its identities
// and what must come out of it.
const golden = "golden"

// expected is golden/expected.json: what was put into the golden repository, noted when it was.
type expected struct {
	Snapshots map[string][]node `json:"snapshots"` // by host/source@number; of those that are there
	States    []state           `json:"states"`    // after records of logs
	Moments   []moment          `json:"moments"`
	Records   []string          `json:"records"` // lines of the reader's command records
}

// node is an entry of a tree, as the reader's command entries prints it.
type node map[string]any

// state is what a snapshot and the records up to one of them make.
type state struct {
	Snapshot string            `json:"snapshot"`
	Stream   string            `json:"stream"`
	Epoch    uint64            `json:"epoch"`
	Sequence uint64            `json:"sequence"`
	Database string            `json:"database,omitempty"` // SHA-256 of the file
	WAL      map[string]string `json:"wal,omitempty"`      // SHA-256 of each segment, as far as it goes, and of histories
}

func (s state) String() string {
	return fmt.Sprintf("%s, record %d of epoch %d of %s", s.Snapshot, s.Sequence, s.Epoch, s.Stream)
}

// moment is a time, and the database at it.
type moment struct {
	Source   string    `json:"source"`
	At       time.Time `json:"at"`
	Database string    `json:"database"`
}

func readExpected(t *testing.T) expected {
	t.Helper()
	var e expected
	b, err := os.ReadFile(filepath.Join(golden, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e expected) names() []string { return slices.Sorted(maps.Keys(e.Snapshots)) }

// String is the one form in which nodes are compared.
func (n node) String() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any(n)); err != nil {
		panic(err)
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

func text(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// path is what the node is called.
func (n node) path() string {
	b, _ := base64.StdEncoding.DecodeString(n["path"].(string))
	return string(b)
}

// nodesOf describes a tree that was read from a file system and lies at root in a snapshot.
func nodesOf(root string, nodes []trees.Node) []node {
	type inode struct{ device, inode uint64 }
	first := map[inode]string{}
	all := slices.Clone(nodes)
	slices.SortFunc(all, func(a, b trees.Node) int { return snapshot.ComparePaths(below(root, a.Path), below(root, b.Path)) })
	var out []node
	for i := range all {
		x := &all[i]
		path := below(root, x.Path)
		n := describe(path, typeOf(x.Type()), x.Mode&0o7777, x.UID, x.GID, x.MTime.Sec, uint32(x.MTime.Nsec)) //nolint:gosec // below 10⁹
		switch x.Type() {
		case unix.S_IFREG:
			n["size"], n["sha256"] = x.Size, fmt.Sprintf("%x", x.Hash)
		case unix.S_IFLNK:
			n["target"] = text(x.Target)
		case unix.S_IFCHR, unix.S_IFBLK:
			n["rdev"] = []uint32{unix.Major(x.Rdev), unix.Minor(x.Rdev)}
		}
		if len(x.Xattrs) > 0 {
			xattrs := map[string]string{}
			for name, value := range x.Xattrs {
				xattrs[text(name)] = text(value)
			}
			n["xattrs"] = xattrs
		}
		if x.Type() != unix.S_IFDIR && x.Links > 1 {
			key := inode{x.Device, x.Inode}
			if _, ok := first[key]; !ok {
				first[key] = path
			}
			n["linked"] = text(first[key])
		}
		out = append(out, n)
	}
	return out
}

func below(root, path string) string {
	if path == "." {
		return root
	}
	return filepath.Join(root, path)
}

func typeOf(mode uint32) snapshot.Type {
	return map[uint32]snapshot.Type{
		unix.S_IFREG: snapshot.File, unix.S_IFDIR: snapshot.Directory, unix.S_IFLNK: snapshot.Symlink, unix.S_IFIFO: snapshot.FIFO,
		unix.S_IFSOCK: snapshot.Socket, unix.S_IFCHR: snapshot.CharDevice, unix.S_IFBLK: snapshot.Device,
	}[mode]
}

func describe(path string, kind snapshot.Type, mode, uid, gid uint32, sec int64, nsec uint32) node {
	return node{
		"path": text(path), "type": string(rune(kind)), "mode": mode, "uid": uid, "gid": gid, "mtime": fmt.Sprintf("%d.%09d", sec, nsec),
	}
}

// nodeOf describes an entry of a snapshot; hash is that of a file's content.
func nodeOf(e *snapshot.Entry, hash string, first map[[2]uint64]string) node {
	n := describe(e.Path, e.Type, e.Mode, e.UID, e.GID, e.MTime.Sec, e.MTime.Nsec)
	switch e.Type {
	case snapshot.File:
		n["size"], n["sha256"] = e.Size, hash
	case snapshot.Symlink:
		n["target"] = text(e.Target)
	case snapshot.CharDevice, snapshot.Device:
		n["rdev"] = []uint32{e.Major, e.Minor}
	}
	if len(e.Xattrs) > 0 {
		xattrs := map[string]string{}
		for _, x := range e.Xattrs {
			xattrs[text(x.Name)] = text(string(x.Value))
		}
		n["xattrs"] = xattrs
	}
	if e.Linked {
		key := [2]uint64{e.Device, e.Inode}
		if _, ok := first[key]; !ok {
			first[key] = e.Path
		}
		n["linked"] = text(first[key])
	}
	return n
}

// differences compares two lists of nodes.
func differences(want, got []node) []string {
	var out []string
	index := map[string]string{}
	for _, n := range got {
		index[n["path"].(string)] = n.String()
	}
	for _, n := range want {
		have, ok := index[n["path"].(string)]
		if !ok || have != n.String() {
			out = append(out, fmt.Sprintf("%q is\n%s\nwant\n%s", n.path(), have, n))
		}
	}
	if len(want) != len(got) {
		out = append(out, fmt.Sprintf("%d entries, want %d", len(got), len(want)))
	}
	return out
}
