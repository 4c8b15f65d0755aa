// Package logical has what a logical backup of PostgreSQL is made of besides its dumps: where in a snapshot what is
// ([PathOf], [IndexPath], [GlobalsPath]), the [Index], and the SQL that makes a database again as it was ([Create],
// [Properties]). It does no I/O.
//
// The format of the index is part of the repository's format: docs/format.md, "Manifest".
package logical

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Root is the directory that a snapshot of dumps has.
const Root = "/postgres"

// IndexPath and GlobalsPath are where the index and the SQL of roles and tablespaces are.
const (
	IndexPath   = Root + "/databases.json"
	GlobalsPath = Root + "/globals.sql"
)

// Marker begins the comment of databases that a restore has made or set apart; they are not dumped unless they are named.
const Marker = "holdfast:"

// Format is the version of the index.
const Format = 1

// maxIndex is the longest index that is read, in bytes.
const maxIndex = 64 << 20

// ErrIndex says that an index is not what it must be.
var ErrIndex = errors.New("the index of the dumps can not be read")

// Index says what the dumps of a snapshot are.
type Index struct {
	Format    int        `json:"format"`    // 1
	Server    string     `json:"server"`    // version of the server: "15.18 (Debian 15.18-0+deb12u1)"
	Major     int        `json:"major"`     // of it
	Program   string     `json:"pg_dump"`   // version of pg_dump
	Wanted    int        `json:"reader"`    // major version of pg_restore that reads the dumps, or any later
	Globals   string     `json:"globals"`   // path of the SQL of roles and tablespaces; empty: not dumped
	Passwords bool       `json:"passwords"` // hashes of passwords are among the globals
	Default   string     `json:"default"`   // the database that the service names
	Databases []Database `json:"databases"`
}

// Database is a dump, and what of the database is not in it.
type Database struct {
	Path    string    `json:"path"`    // of the dump
	Started time.Time `json:"started"` // before pg_dump began: it has all that was committed until then
	Bytes   uint64    `json:"bytes"`   // of the dump
	Entries int       `json:"entries"` // in its table of contents
	Properties
}

// Properties are what a database is made with.
type Properties struct {
	Name       string    `json:"name"`
	Owner      string    `json:"owner"`
	Encoding   string    `json:"encoding"`
	Collate    string    `json:"collate"`
	CType      string    `json:"ctype"`
	Provider   string    `json:"provider,omitempty"` // of the locale: c, i or b; empty before PostgreSQL 15
	Locale     string    `json:"locale,omitempty"`   // of ICU or the builtin provider
	Rules      string    `json:"rules,omitempty"`    // of ICU
	Tablespace string    `json:"tablespace"`
	Limit      int       `json:"limit"` // of connections; -1: none
	Comment    string    `json:"comment,omitempty"`
	Grants     *[]Grant  `json:"grants"` // nil: those of a new database
	Settings   []Setting `json:"settings,omitempty"`
	Size       uint64    `json:"size"` // of the database on the server, bytes; 0: not known
}

// Grant is a right on a database.
type Grant struct {
	Grantee   string `json:"grantee,omitempty"` // empty: everybody
	Privilege string `json:"privilege"`         // CONNECT, TEMPORARY, CREATE
	Grantable bool   `json:"grantable,omitempty"`
}

// Setting is a setting of a database, or of a role in it: ALTER DATABASE … SET.
type Setting struct {
	Role  string `json:"role,omitempty"` // empty: of the database
	Value string `json:"value"`          // name=value
}

// PathOf is the path of a database's dump. What a path can't have is written as %XX.
func PathOf(database string) string {
	var b strings.Builder
	for i := range len(database) {
		c := database[i]
		if c == '/' || c == '%' || c < ' ' || c == 0x7f || c == '.' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return Root + "/" + b.String() + ".dump"
}

// ParseIndex reads an index strictly. Errors: ErrIndex.
func ParseIndex(b []byte) (*Index, error) {
	if len(b) > maxIndex {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrIndex, len(b))
	}
	x := &Index{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIndex, err)
	}
	switch {
	case d.More():
		return nil, fmt.Errorf("%w: something follows it", ErrIndex)
	case x.Format != Format:
		return nil, fmt.Errorf("%w: it is of format %d; a newer holdfast may be needed", ErrIndex, x.Format)
	case x.Globals != "" && x.Globals != GlobalsPath:
		return nil, fmt.Errorf("%w: globals at %q", ErrIndex, x.Globals)
	}
	seen := map[string]bool{}
	for _, db := range x.Databases {
		if db.Name == "" || seen[db.Name] || db.Path != PathOf(db.Name) || strings.ContainsRune(db.Name, 0) {
			return nil, fmt.Errorf("%w: database %q at %q", ErrIndex, db.Name, db.Path)
		}
		seen[db.Name] = true
	}
	return x, nil
}

// Marshal writes the index.
func (x *Index) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the index of the dumps: %w", err)
	}
	return append(b, '\n'), nil
}

// Find returns a database of the index.
func (x *Index) Find(name string) (Database, bool) {
	for _, d := range x.Databases {
		if d.Name == name {
			return d, true
		}
	}
	return Database{}, false
}

// Names are the names of the databases.
func (x *Index) Names() []string {
	var out []string
	for _, d := range x.Databases {
		out = append(out, d.Name)
	}
	return out
}
