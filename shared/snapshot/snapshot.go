// Package snapshot has the nouns of a snapshot and their bytes: names of sources and snapshots, refs, tree entries,
// maps, pack lists and manifests, as docs/format.md specifies them. It does no I/O and knows no keys.
//
// What parses re-encodes to the same bytes.
package snapshot

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ErrFormat says that bytes are not what docs/format.md specifies.
var ErrFormat = errors.New("not in the repository format")

// Source names one thing that is backed up on one host.
type Source struct {
	Host string
	Name string
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ParseSource parses "host/source".
func ParseSource(s string) (Source, error) {
	host, name, ok := strings.Cut(s, "/")
	src := Source{Host: host, Name: name}
	if !ok {
		return Source{}, fmt.Errorf("source %q: want host/source", s)
	}
	return src, src.Check()
}

// Check reports a name that the format does not allow.
func (s Source) Check() error {
	switch {
	case !namePattern.MatchString(s.Host) || s.Host == "access" || s.Host == "repository.json":
		return fmt.Errorf("host name %q: want letters, digits, '.', '_', '-' (at most 63, not beginning with a sign; not \"access\")", s.Host)
	case !namePattern.MatchString(s.Name) || s.Name == "policy":
		return fmt.Errorf("source name %q: want letters, digits, '.', '_', '-' (at most 63, not beginning with a sign; not \"policy\")", s.Name)
	}
	return nil
}

func (s Source) String() string { return s.Host + "/" + s.Name }

// ID names one snapshot: host/source@sequence.
type ID struct {
	Source
	Sequence uint64 // from 1
}

func (id ID) String() string {
	return id.Source.String() + "@" + strconv.FormatUint(id.Sequence, 10)
}

// ChainID names a chain: 16 random bytes.
type ChainID [16]byte

func (c ChainID) String() string { return hex.EncodeToString(c[:]) }

// RepositoryID names a repository: 16 random bytes.
type RepositoryID [16]byte

func (r RepositoryID) String() string { return hex.EncodeToString(r[:]) }

// Hash is a SHA-256, a chunk id or a pack id.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// FileID is the keyed hash of a whole file's content.
type FileID [16]byte

// Kind tells what a chunk holds; see docs/format.md, "Packs".
type Kind byte

// The kinds of chunks.
const (
	Content Kind = 'd'
	Map     Kind = 'm'
	Tree    Kind = 't'
	Root    Kind = 'r'
	Report  Kind = 'x'
	Index   Kind = 'i'
	Log     Kind = 'l' // records of a log; only in objects below log/
)

// Limits of the format.
const (
	MaxChunk      = 16 << 20 // plain bytes of one chunk
	MaxPack       = 64 << 20 // bytes of one pack
	MaxPackChunks = 1 << 20
	PackTarget    = 16 << 20 // a pack is written when it reaches this size
	MapSpan       = 8 << 20  // bytes of a file that one map covers; files over this size use maps
)

// Ref says where a chunk is: everything that is needed to fetch, open and check it.
type Ref struct {
	Pack   uint64 // pack number within the chain, from 1
	Offset uint32 // bytes from the start of the pack
	Sealed uint32 // bytes in the pack, with the tag
	Plain  uint32 // bytes of the chunk itself
	ID     Hash   // chunk id
}

// Extent is a run of a file's bytes: a hole, or part of a chunk.
type Extent struct {
	Hole   bool
	Ref    Ref    // not for holes
	Offset uint32 // bytes into the plain chunk
	Length uint64 // bytes
}

// Range is an inclusive range of pack numbers.
type Range struct{ First, Last uint64 }

// MapRef points to a map chunk, which lists the extents of one span of a file.
type MapRef struct {
	Ref    Ref
	Length uint64  // bytes of the file covered
	Packs  []Range // packs that the map's extents use; ascending, not touching
}

// Type is the type of a tree entry.
type Type byte

// The types of entries.
const (
	File       Type = 'f'
	Directory  Type = 'd'
	Symlink    Type = 'l'
	FIFO       Type = 'p'
	Socket     Type = 's'
	CharDevice Type = 'c'
	Device     Type = 'b' // block device
)

// Time is a point in time as file systems keep it.
type Time struct {
	Sec  int64
	Nsec uint32 // < 10⁹
}

// Xattr is one extended attribute; POSIX ACLs are among them.
type Xattr struct {
	Name  string
	Value []byte
}

// Entry is one entry of a tree. Paths are absolute byte strings; see docs/format.md, "Trees".
type Entry struct {
	Path          string
	Type          Type
	Mode          uint32 // permission bits, set-uid, set-gid, sticky (07777)
	UID, GID      uint32
	User, Group   string // empty: unknown
	MTime, CTime  Time
	Device, Inode uint64
	Target        string // symlink
	Major, Minor  uint32 // devices
	Xattrs        []Xattr
	LacksXattrs   bool // not all of its extended attributes could be read
	Linked        bool // the file had several names; entries with the same Device and Inode are one file
	NotConsistent bool // captured while a database may have been writing to it
	Unreadable    bool // content could not be read; Size is 0
	Changed       bool // changed while it was read
	Size          uint64
	HasFileID     bool
	FileID        FileID
	Extents       []Extent // content, if Maps is empty
	Maps          []MapRef // content of files over MapSpan
}

// DataBytes is at most how much data, without holes, a file has. A map without packs covers only holes.
func (e *Entry) DataBytes() uint64 {
	var n uint64
	for i := range e.Extents {
		if !e.Extents[i].Hole {
			n += e.Extents[i].Length
		}
	}
	for i := range e.Maps {
		if len(e.Maps[i].Packs) > 0 {
			n += e.Maps[i].Length
		}
	}
	return n
}

// ComparePaths orders paths as trees do: '/' before every other byte. It returns -1, 0 or 1.
func ComparePaths(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	switch {
	case len(a) < len(b):
		return -1
	case len(a) > len(b):
		return 1
	}
	return 0
}
