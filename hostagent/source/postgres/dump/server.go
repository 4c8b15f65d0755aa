package dump

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Marker begins the comment of databases that a restore has made or set apart; they are not dumped unless they are named.
const Marker = "holdfast:"

// Index says what the dumps of a snapshot are.
type Index struct {
	Format    int        `json:"format"`    // 1
	Server    string     `json:"server"`    // version of the server: "15.18 (Debian 15.18-0+deb12u1)"
	Major     int        `json:"major"`     // of it
	Program   string     `json:"pg_dump"`   // version of pg_dump
	Globals   string     `json:"globals"`   // path of the SQL of roles and tablespaces; empty: not dumped
	Passwords bool       `json:"passwords"` // hashes of passwords are among the globals
	Databases []Database `json:"databases"`
}

// Database is a dump, and what of the database is not in it.
type Database struct {
	Path    string    `json:"path"`    // of the dump
	Started time.Time `json:"started"` // before pg_dump began: it has all that was committed until then
	Bytes   uint64    `json:"bytes"`   // of the dump
	Entries int       `json:"entries"` // in its table of contents

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

// Format is the version of the index.
const Format = 1

// maxIndex is the longest index that is read, in bytes.
const maxIndex = 64 << 20

// ParseIndex reads an index strictly.
func ParseIndex(b []byte) (*Index, error) {
	if len(b) > maxIndex {
		return nil, fmt.Errorf("read %s: %w: %d bytes", IndexPath, snapshot.ErrFormat, len(b))
	}
	x := &Index{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", IndexPath, snapshot.ErrFormat, err)
	}
	if d.More() {
		return nil, fmt.Errorf("read %s: %w: something follows it", IndexPath, snapshot.ErrFormat)
	}
	if x.Format != Format {
		return nil, fmt.Errorf("read %s: %w: format %d; a newer holdfast may be needed", IndexPath, snapshot.ErrFormat, x.Format)
	}
	seen := map[string]bool{}
	for _, db := range x.Databases {
		if db.Name == "" || seen[db.Name] || db.Path != PathOf(db.Name) {
			return nil, fmt.Errorf("read %s: %w: database %q at %q", IndexPath, snapshot.ErrFormat, db.Name, db.Path)
		}
		seen[db.Name] = true
	}
	if x.Globals != "" && x.Globals != GlobalsPath {
		return nil, fmt.Errorf("read %s: %w: globals at %q", IndexPath, snapshot.ErrFormat, x.Globals)
	}
	return x, nil
}

// Marshal writes the index.
func (x *Index) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", IndexPath, err)
	}
	return append(b, '\n'), nil
}

// Find returns a database of the index.
func (x *Index) Find(name string) (Database, bool) {
	i := slices.IndexFunc(x.Databases, func(d Database) bool { return d.Name == name })
	if i < 0 {
		return Database{}, false
	}
	return x.Databases[i], true
}

// Names are the names of the databases.
func (x *Index) Names() []string {
	var out []string
	for _, d := range x.Databases {
		out = append(out, d.Name)
	}
	return out
}

// server is what is asked of the server before the dumps.
type server struct {
	Version   string     `json:"version"`
	Number    int        `json:"number"` // 150018
	Database  string     `json:"database"`
	Superuser bool       `json:"superuser"`
	Databases []Database `json:"databases"`
	Ours      []string   `json:"ours"`
}

// describe asks for all databases that can be connected to. Columns that some versions lack are read through jsonb.
const describe = `SELECT jsonb_build_object(
  'version', current_setting('server_version'), 'number', current_setting('server_version_num')::int,
  'database', current_database(), 'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'ours', COALESCE((SELECT jsonb_agg(datname ORDER BY datname) FROM pg_database d WHERE shobj_description(d.oid, 'pg_database') LIKE 'holdfast:%'), '[]'),
  'databases', COALESCE((SELECT jsonb_agg(jsonb_build_object(
    'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
    'collate', d.datcollate, 'ctype', d.datctype,
    'provider', COALESCE(to_jsonb(d)->>'datlocprovider', ''),
    'locale', COALESCE(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''),
    'rules', COALESCE(to_jsonb(d)->>'daticurules', ''),
    'tablespace', t.spcname, 'limit', d.datconnlimit,
    'comment', COALESCE(shobj_description(d.oid, 'pg_database'), ''),
    'grants', (SELECT CASE WHEN d.datacl IS NULL THEN NULL ELSE COALESCE(jsonb_agg(jsonb_build_object(
        'grantee', CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
        'privilege', a.privilege_type, 'grantable', a.is_grantable) ORDER BY a.grantee, a.privilege_type), '[]') END
      FROM aclexplode(d.datacl) a),
    'settings', (SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'role', CASE WHEN s.setrole = 0 THEN '' ELSE pg_get_userbyid(s.setrole) END, 'value', c) ORDER BY s.setrole, n), '[]')
      FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY u(c, n) WHERE s.setdatabase = d.oid),
    'size', CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
      THEN pg_database_size(d.oid) ELSE 0 END) ORDER BY d.datname)
    FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
    WHERE d.datallowconn AND NOT d.datistemplate), '[]'))`

var errAnswer = errors.New("the server gave no usable answer")

// look asks the server what there is.
func look(ctx context.Context, connect func(context.Context, string) (*pgconn.PgConn, error)) (*server, error) {
	conn, err := connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.Exec(ctx, describe).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("ask for the databases: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return nil, fmt.Errorf("ask for the databases: %w", errAnswer)
	}
	s := &server{}
	if err := json.Unmarshal(results[0].Rows[0][0], s); err != nil {
		return nil, fmt.Errorf("ask for the databases: %w: %w", errAnswer, err)
	}
	return s, nil
}

// major is the server's major version.
func (s *server) major() int { return s.Number / 10000 }

// chosen are the databases that are dumped, and those that were asked for and are not there.
func (s *server) chosen(names []string) (all []Database, missing []string) {
	if len(names) == 0 {
		for _, d := range s.Databases {
			if !slices.Contains(s.Ours, d.Name) {
				all = append(all, d)
			}
		}
		return all, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(s.Databases, func(d Database) bool { return d.Name == name })
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		all = append(all, s.Databases[i])
	}
	return all, missing
}
