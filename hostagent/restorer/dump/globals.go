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
	g := &globals{conn: conn, result: &GlobalsResult{}, passed: map[bool]map[string]bool{}}
	for tablespace, sql := range map[bool]string{false: "SELECT rolname FROM pg_roles", true: "SELECT spcname FROM pg_tablespace"} {
		got, err := rows(ctx, conn, sql)
		if err != nil {
			return nil, err
		}
		g.passed[tablespace] = map[string]bool{}
		for _, row := range got {
			g.passed[tablespace][row[0]] = true
		}
	}
	for _, s := range list {
		if name := s.Makes + s.Of; name != "" && g.passed[s.Tablespace][name] {
			continue
		}
		if err := g.run(ctx, s); err != nil {
			return g.result, err
		}
	}
	return g.result, nil
}

// globals is one run of [Globals].
type globals struct {
	conn   *pgconn.PgConn
	result *GlobalsResult
	passed map[bool]map[string]bool // roles, and tablespaces, that were there, or can't be made
}

// run runs one statement.
func (g *globals) run(ctx context.Context, s logical.Statement) error {
	err := execute(ctx, g.conn, s.Text)
	var refused *pgconn.PgError
	switch {
	case err == nil && s.Makes == "":
	case err == nil && s.Tablespace:
		g.result.Tablespaces = append(g.result.Tablespaces, s.Makes)
	case err == nil:
		g.result.Roles = append(g.result.Roles, s.Makes)
	case !errors.As(err, &refused) || ctx.Err() != nil:
		return err
	case s.Makes != "" && !s.Tablespace:
		return fmt.Errorf("make role %s: %s (SQLSTATE %s)", s.Makes, refused.Message, refused.Code)
	default:
		if s.Makes != "" {
			g.passed[s.Tablespace][s.Makes] = true
		}
		// Its text may hold the hash of a password.
		g.result.Warnings = append(g.result.Warnings, fmt.Sprintf("%s: %s", about(s), refused.Message))
	}
	return nil
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
