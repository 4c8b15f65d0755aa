package dump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// server is what is asked of the server before the dumps.
type server struct {
	Version   string             `json:"version"`
	Number    int                `json:"number"` // 150018
	Database  string             `json:"database"`
	Superuser bool               `json:"superuser"`
	Databases []logical.Database `json:"databases"`
	Ours      []string           `json:"ours"`
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

// Databases are the databases of a server that can be connected to, with what they are made with, and its major version.
// Errors: those of connect and of the connection.
func Databases(ctx context.Context, connect func(context.Context, string) (*pgconn.PgConn, error)) (list []logical.Database, major int, err error) {
	s, err := look(ctx, connect)
	if err != nil {
		return nil, 0, err
	}
	return s.Databases, s.major(), nil
}

// major is the server's major version.
func (s *server) major() int { return s.Number / 10000 }

// chosen are the databases that are dumped, and those that were asked for and are not there.
func (s *server) chosen(names []string) (all []logical.Database, missing []string) {
	if len(names) == 0 {
		for _, d := range s.Databases {
			if !slices.Contains(s.Ours, d.Name) {
				all = append(all, d)
			}
		}
		return all, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(s.Databases, func(d logical.Database) bool { return d.Name == name })
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		all = append(all, s.Databases[i])
	}
	return all, missing
}
