package dump

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// GlobalsResult is what [Globals] did.
type GlobalsResult struct {
	Roles       []string // that were made
	Tablespaces []string
	Warnings    []string // what the server refused
}

// Globals runs the SQL that pg_dumpall writes of roles and tablespaces, as far as it concerns those that are missing: what is
// there stays as it is. Rights that roles grant each other are granted again. What the server refuses is a warning, but for
// a role that can't be made.
func Globals(ctx context.Context, connect func(context.Context, string) (*pgconn.PgConn, error), script string) (*GlobalsResult, error) {
	list, err := logical.Statements(script)
	if err != nil {
		return nil, fmt.Errorf("read the dump of roles: %w", err)
	}
	var conn *pgconn.PgConn
	for _, home := range maintenance {
		if conn, err = connect(ctx, home); err == nil || !noDatabase(err) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	there := map[bool]map[string]bool{}
	for tablespace, sql := range map[bool]string{false: "SELECT rolname FROM pg_roles", true: "SELECT spcname FROM pg_tablespace"} {
		got, err := rows(ctx, conn, sql)
		if err != nil {
			return nil, err
		}
		there[tablespace] = map[string]bool{}
		for _, row := range got {
			there[tablespace][row[0]] = true
		}
	}
	out := &GlobalsResult{}
	failed := map[bool]map[string]bool{false: {}, true: {}}
	for _, s := range list {
		name := s.Makes + s.Of
		if name != "" && (there[s.Tablespace][name] || failed[s.Tablespace][name]) {
			continue
		}
		err := execute(ctx, conn, s.Text)
		var refused *pgconn.PgError
		switch {
		case err == nil && s.Makes != "" && s.Tablespace:
			out.Tablespaces = append(out.Tablespaces, s.Makes)
		case err == nil && s.Makes != "":
			out.Roles = append(out.Roles, s.Makes)
		case err == nil:
		case !errors.As(err, &refused) || ctx.Err() != nil:
			return out, err
		case s.Makes != "" && !s.Tablespace:
			return out, fmt.Errorf("make role %s: %s (SQLSTATE %s)", s.Makes, refused.Message, refused.Code)
		default:
			if s.Makes != "" {
				failed[s.Tablespace][s.Makes] = true
			}
			// Its text may hold the hash of a password.
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", about(s), refused.Message))
		}
	}
	return out, nil
}

// about names a statement without its text.
func about(s logical.Statement) string {
	kind := "role"
	if s.Tablespace {
		kind = "tablespace"
	}
	if name := s.Makes + s.Of; name != "" {
		return kind + " " + name
	}
	return "a right of a role"
}
