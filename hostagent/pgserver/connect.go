package pgserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// databases are those that nearly every cluster has.
var databases = []string{"postgres", "template1"}

// defaultSuperuser is what the first superuser is called in most clusters.
const defaultSuperuser = "postgres"

// errNoSuperuser says that nobody was let in who may do everything.
var errNoSuperuser = errors.New("no superuser of the cluster that may log in is known")

// Connect opens a session as a superuser: of the name, or, where it is empty, as postgres, as whom the server runs as, or as
// one that the cluster's own files name. database may be empty for one that is there anyway. Settings of roles and databases
// that would end what is done there count for nothing.
func (s *Server) Connect(ctx context.Context, database, superuser string) (*pgconn.PgConn, error) {
	places := databases
	if database != "" {
		places = []string{database}
	}
	var last error
	for _, name := range s.superusers(superuser) {
		for _, db := range places {
			c, err := dial(ctx, s.Socket, db, name)
			if err != nil {
				last = err
				if !elsewhere(err) {
					return nil, err
				}
				continue
			}
			if c.ParameterStatus("is_superuser") == "on" || superuser != "" {
				s.super.Store(&name)
				return c, nil
			}
			_ = c.Close(ctx) // it may not do what is needed
			last = errors.Join(last, fmt.Errorf("role %s: %w", name, errNoSuperuser))
		}
	}
	return nil, last
}

// superusers are the roles that are tried, in order.
func (s *Server) superusers(named string) []string {
	if named != "" {
		return []string{named}
	}
	var out []string
	if known := s.super.Load(); known != nil {
		out = append(out, *known)
	}
	out = append(out, defaultSuperuser, s.options.Account.Name())
	out = append(out, rolesIn(s.options.Dir)...)
	seen := map[string]bool{}
	return slices.DeleteFunc(out, func(name string) bool {
		was := seen[name]
		seen[name] = true
		return was
	})
}

// elsewhere reports whether another role or another database may be let in where this one was not: there is no such role or
// database, it may not log in, or is closed.
func elsewhere(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && slices.Contains([]string{"3D000", "28000", "55000", "42501"}, answer.Code)
}

// Superuser is the role that was let in last; postgres where none was.
func (s *Server) Superuser() string {
	if known := s.super.Load(); known != nil {
		return *known
	}
	return defaultSuperuser
}

// Conninfo are the settings of a connection for programs, as the superuser who was let in.
func (s *Server) Conninfo() string {
	return fmt.Sprintf("host=%s port=%s user=%s", quoted(s.Socket), Port, quoted(s.Superuser()))
}

// quoted writes a value of a connection string.
func quoted(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(v) + "'"
}

func dial(ctx context.Context, socket, database, user string) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s user=%s sslmode=disable passfile=/dev/null connect_timeout=30 application_name=holdfast",
		quoted(socket), Port, quoted(database), quoted(user)))
	if err != nil {
		return nil, err
	}
	config.RuntimeParams = map[string]string{
		"application_name": "holdfast", "client_encoding": "UTF8",
		// Of whatever role, database or postgresql.auto.conf.
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "default_transaction_read_only": "off",
	}
	return pgconn.ConnectConfig(ctx, config)
}

// Row runs a query that gives one row, as text.
func Row(ctx context.Context, c *pgconn.PgConn, sql string) ([]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, fmt.Errorf("%q gives no row", sql)
	}
	var out []string
	for _, v := range results[0].Rows[0] {
		out = append(out, string(v))
	}
	return out, nil
}
