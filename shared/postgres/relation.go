package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// Tablespaces that every cluster has.
const (
	DefaultTablespace = 1663
	GlobalTablespace  = 1664
)

// Relation is what a file of a data directory is of: a segment of a fork of a table or an index.
type Relation struct {
	Tablespace uint32 // oid
	Database   uint32 // oid; 0: shared by all
	Filenode   uint32
	Fork       string // "": the main one; fsm, vm, init
	Segment    uint32 // 0 is the first
	Temporary  bool   // gone after a restart
}

// ParseRelation tells from the path of a file, relative to the data directory, what it is of; false: it is no file of a
// relation.
func ParseRelation(path string) (Relation, bool) {
	parts := strings.Split(path, "/")
	var r Relation
	var ok bool
	switch {
	case len(parts) == 2 && parts[0] == "global":
		r.Tablespace = GlobalTablespace
	case len(parts) == 3 && parts[0] == "base":
		r.Tablespace = DefaultTablespace
		if r.Database, ok = oid(parts[1]); !ok {
			return Relation{}, false
		}
	case len(parts) == 5 && parts[0] == "pg_tblspc" && strings.HasPrefix(parts[2], "PG_"):
		if r.Tablespace, ok = oid(parts[1]); !ok {
			return Relation{}, false
		}
		if r.Database, ok = oid(parts[3]); !ok {
			return Relation{}, false
		}
	default:
		return Relation{}, false
	}
	if !r.file(parts[len(parts)-1]) {
		return Relation{}, false
	}
	return r, true
}

// file parses the name of the file: t3_16384_fsm.1 is segment 1 of a fork of a temporary relation.
func (r *Relation) file(name string) bool {
	var ok bool
	if strings.HasPrefix(name, "t") {
		backend, rest, found := strings.Cut(name[1:], "_")
		if _, ok = oid(backend); !ok || !found {
			return false
		}
		name, r.Temporary = rest, true
	}
	name, segment, found := strings.Cut(name, ".")
	if found {
		if r.Segment, ok = oid(segment); !ok {
			return false
		}
	}
	name, fork, found := strings.Cut(name, "_")
	if found {
		if fork != "fsm" && fork != "vm" && fork != "init" {
			return false
		}
		r.Fork = fork
	}
	r.Filenode, ok = oid(name)
	return ok
}

// oid parses a number as PostgreSQL writes it in names: without zeros before it, from 1.
func oid(s string) (uint32, bool) {
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil
}

// FirstBlock is the number of the file's first page within the fork; pages is how many are in one file:
// [Control.RelationSegment], usually [RelationSegment].
func (r Relation) FirstBlock(pages uint32) uint32 { return r.Segment * pages }

func (r Relation) String() string {
	s := fmt.Sprintf("relation file %d", r.Filenode)
	if r.Fork != "" {
		s += " (" + r.Fork + ")"
	}
	if r.Database == 0 {
		return s + " of all databases"
	}
	return s + fmt.Sprintf(" of database %d", r.Database)
}
