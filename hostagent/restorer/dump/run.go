package dump

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

const (
	// newPrefix begins the names of databases that are being restored; eight hexadecimal digits follow.
	newPrefix = "holdfast_new_"
	// lockKey is that of the advisory lock which a restore holds.
	lockKey = 0x686f6c6466617374
	// lockTime is how long it is waited for.
	lockTime = 2 * time.Second
)

// maintenance are the databases from which others are made and renamed, the first that can be connected to. It must not be one
// that is restored.
var maintenance = []string{"postgres", "template1"}

// run is one restore.
type run struct {
	Options
	course steps.Course
	result *Result
	conn   *pgconn.PgConn // of a maintenance database; holds the lock
	home   string         // that database
	target logical.Target
	super  bool
	self   string          // the role
	roles  map[string]bool // that exist
	made   []string        // databases that are ours and not in their place: dropped in the end
	apart  bool            // the databases are made beside production, and must not subscribe to anything
}

// begin connects, takes the lock and cleans up.
func begin(ctx context.Context, o Options) (*run, error) {
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Connect = patient(o.Connect)
	r := &run{Options: o, result: &Result{}}
	r.course = steps.Course{Began: o.Began, Fault: o.fault, Called: called()}
	err := r.course.Do(StepPrepare, func() error { return r.prepare(ctx) })
	if err != nil {
		r.close(ctx)
		return nil, failed(StepPrepare, "", err)
	}
	return r, nil
}

// patient connects for work that may take its time: roles and databases have limits that are meant for applications.
func patient(connect func(context.Context, string) (*pgconn.PgConn, error)) func(context.Context, string) (*pgconn.PgConn, error) {
	return func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		conn, err := connect(ctx, database)
		if err != nil {
			return nil, err
		}
		err = execute(ctx, conn, "SET statement_timeout = 0", "SET lock_timeout = 0", "SET idle_in_transaction_session_timeout = 0", "SET default_transaction_read_only = off")
		if err != nil {
			return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
		return conn, nil
	}
}

// called are the names that steps have had from the first in what restores of dumps say.
func called() map[string]string {
	return map[string]string{steps.Stop: StepStop, steps.Start: StepStart, steps.Health: StepHealth}
}

func (r *run) prepare(ctx context.Context) (err error) {
	for _, r.home = range maintenance {
		if r.conn, err = r.Connect(ctx, r.home); err == nil || !noDatabase(err) {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	got, err := rows(ctx, r.conn, `SELECT current_setting('server_version_num')::int / 10000, rolsuper, rolcreatedb, current_user FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return err
	}
	if len(got) != 1 {
		return errors.New("the server does not know the role")
	}
	r.super, r.self = got[0][1] == "t", got[0][3]
	if r.target.Major, err = strconv.Atoi(got[0][0]); err != nil {
		return fmt.Errorf("version of the server: %w", err)
	}
	if !r.super && got[0][2] != "t" {
		return &hintError{fmt.Errorf("%w make databases: %s", ErrRights, r.self), fmt.Sprintf("ALTER ROLE %s CREATEDB, or restore with --service NAME as a role that may", logical.Identifier(r.self))}
	}
	if got, err = rows(ctx, r.conn, "SELECT spcname FROM pg_tablespace WHERE spcname <> 'pg_default'"); err != nil {
		return err
	}
	for _, row := range got {
		r.target.Tablespaces = append(r.target.Tablespaces, row[0])
	}
	if err := r.readRoles(ctx); err != nil {
		return err
	}
	return r.clean(ctx)
}

// lock takes the lock. One that was killed a moment ago may still have it, until the server notices.
func (r *run) lock(ctx context.Context) error {
	for began := time.Now(); ; {
		got, err := rows(ctx, r.conn, "SELECT pg_try_advisory_lock("+strconv.Itoa(lockKey)+")")
		switch {
		case err != nil:
			return err
		case got[0][0] == "t":
			return nil
		case time.Since(began) > lockTime:
			return ErrBusy
		}
		time.Sleep(lockTime / 20)
	}
}

func (r *run) readRoles(ctx context.Context) error {
	got, err := rows(ctx, r.conn, "SELECT rolname FROM pg_roles")
	if err != nil {
		return err
	}
	r.roles = map[string]bool{}
	for _, row := range got {
		r.roles[row[0]] = true
	}
	return nil
}

// clean drops what restores have left that did not come to their end. Only who holds the lock makes such databases, so none
// of them belongs to a restore that is at work; one that somebody else has open stays. The server's own vacuum is nobody: it
// gives way.
func (r *run) clean(ctx context.Context) error {
	got, err := rows(ctx, r.conn, `SELECT datname FROM pg_database d WHERE datname ~ '^`+newPrefix+`[0-9a-f]{8}$'
		AND COALESCE(shobj_description(oid, 'pg_database'), '`+logical.Marker+`') LIKE '`+logical.Marker+`%'
		AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid AND COALESCE(a.backend_type, '') <> 'autovacuum worker') ORDER BY datname`)
	if err != nil {
		return err
	}
	for _, row := range got {
		if err := execute(ctx, r.conn, "DROP DATABASE IF EXISTS "+logical.Identifier(row[0])); err != nil {
			r.warn("database %s was left by a restore that did not come to its end, and can not be dropped: %v", row[0], err)
			continue
		}
		r.result.Dropped = append(r.result.Dropped, row[0])
	}
	return nil
}

func (r *run) warn(format string, args ...any) {
	r.result.Warnings = append(r.result.Warnings, fmt.Sprintf(format, args...))
}

// close drops what is not in its place, gives the lock back and completes the result.
func (r *run) close(ctx context.Context) {
	r.result.Steps = r.course.Done
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if r.conn.IsClosed() { // a context that ended has broken it
		if conn, err := r.Connect(ctx, r.home); err == nil {
			r.conn = conn
		}
	}
	for _, name := range r.made {
		if err := r.drop(ctx, name); err != nil {
			r.Note(fmt.Sprintf("database %s could not be dropped, the next restore will: %v", name, err))
		}
	}
	// The server may take its time to notice that the connection is closed.
	_ = execute(ctx, r.conn, "SELECT pg_advisory_unlock_all()")
	_ = r.conn.Close(ctx)
}

// drop drops a database of ours, and ends whoever looks at it.
func (r *run) drop(ctx context.Context, name string) error {
	_ = terminate(ctx, r.conn, []string{name})
	var err error
	for range 10 {
		if err = execute(ctx, r.conn, "DROP DATABASE IF EXISTS "+logical.Identifier(name)); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond) // a program of ours is ending
	}
	return err
}

// create makes a new database for a dump.
func (r *run) create(ctx context.Context, d *logical.Database, name string) error {
	target := r.target
	target.Owner = !r.NoOwner && r.roles[d.Owner]
	switch {
	case !r.NoOwner && !r.roles[d.Owner]:
		return &hintError{fmt.Errorf("its owner, role %s, does not exist on this server", d.Owner), "--globals makes the roles that are missing; --no-owner gives everything to who restores"}
	case d.Tablespace != "pg_default" && !slices.Contains(target.Tablespaces, d.Tablespace):
		r.warn("database %s was in tablespace %s, which this server does not have: it is in the default one now", d.Name, d.Tablespace)
	}
	statement, err := d.Create(name, target)
	if err != nil {
		return err
	}
	r.made = append(r.made, name)
	if err := execute(ctx, r.conn, statement); err != nil {
		return err
	}
	comment := fmt.Sprintf("%s being restored from %s since %s", logical.Marker, r.Source, r.Now().UTC().Format(time.RFC3339))
	return execute(ctx, r.conn, logical.Comment(name, comment))
}

// newName is a name that nobody has.
func newName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return newPrefix + hex.EncodeToString(b[:])
}

// hintError is an error with what to do about it.
type hintError struct {
	error
	hint string
}

func (e *hintError) Hint() string  { return e.hint }
func (e *hintError) Unwrap() error { return e.error }

// rows are the rows of a query, as text.
func rows(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([][]string, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	result := conn.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, result.Err
	}
	out := make([][]string, 0, len(result.Rows))
	for _, row := range result.Rows {
		one := make([]string, len(row))
		for i, v := range row {
			one[i] = string(v)
		}
		out = append(out, one)
	}
	return out, nil
}

// execute runs statements, one transaction if there are several.
func execute(ctx context.Context, conn *pgconn.PgConn, statements ...string) error {
	_, err := conn.Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return err
}

// noDatabase reports whether an error says that there is no such database (invalid_catalog_name).
func noDatabase(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "3D000"
}

// terminate ends the sessions of databases, but for this one.
func terminate(ctx context.Context, conn *pgconn.PgConn, names []string) error {
	_, err := rows(ctx, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(string_to_array($1, E'\\x01')) AND pid <> pg_backend_pid()", strings.Join(names, "\x01"))
	return err
}
