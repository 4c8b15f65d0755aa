// Package sqlite proves a restored SQLite database: [Prove] asks SQLite itself whether it is whole, and the policy's queries
// whether it holds what it should.
//
// The database is opened as a file that nobody changes (immutable): nothing is written to it or beside it, and no lock is
// taken. So it is only for files that this program has restored, and that nobody else has open; never for an application's.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"modernc.org/sqlite" // the driver, and the limits of a connection

	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// DefaultQueryTime is how long one query of the policy may take.
const DefaultQueryTime = 5 * time.Minute

// The names of steps. Those of queries go on with a number from 1: "query 1".
const (
	IntegrityCheck  = "integrity_check"
	QuickCheck      = "quick_check"
	ForeignKeyCheck = "foreign_key_check"
	queryStep       = "query"
)

// Options say what is proven.
type Options struct {
	Integrity   string         // IntegrityCheck, QuickCheck or empty for neither
	ForeignKeys bool           // ForeignKeyCheck as well
	Checks      []policy.Check // queries, and what they must answer
	QueryTime   time.Duration  // most that one query may take; 0: DefaultQueryTime
	Began       func(step string)
}

// maxDetails is how much SQLite is asked for, of what is wrong.
const maxDetails = 20

// Prove checks the database at path, all steps also when one fails, but for the queries where the database is damaged. An
// error says that the proof could not be made: the context ended, or the file can not be read. A file that is no database
// is damaged, and no error.
func Prove(ctx context.Context, path string, o Options) (*proof.Report, error) {
	conn, done, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer done()
	p := &prover{conn: conn, options: o, report: &proof.Report{}}
	var whole bool
	if o.Integrity != "" {
		whole, err = p.step(ctx, o.Integrity, p.integrity)
	} else {
		// Something must show that this is a database at all.
		whole, err = p.step(ctx, "schema", p.schema)
	}
	if err == nil && o.ForeignKeys && whole {
		_, err = p.step(ctx, ForeignKeyCheck, p.foreignKeys)
	}
	for i := range o.Checks {
		if err != nil || !whole {
			break
		}
		_, err = p.step(ctx, fmt.Sprintf("%s %d", queryStep, i+1), func(ctx context.Context) (string, []string, error) {
			return p.query(ctx, o.Checks[i])
		})
	}
	if err != nil {
		return p.report, fmt.Errorf("prove %s: %w", path, err)
	}
	return p.report, nil
}

// open opens a database file for reading only.
func open(ctx context.Context, path string) (*sql.Conn, func(), error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("prove %s: %w", path, err)
	}
	name := url.URL{Scheme: "file", Path: abs}
	settings := url.Values{"immutable": {"1"}, "mode": {"ro"}, "_pragma": {
		"query_only(1)",
		"trusted_schema(0)", // what stands in a schema must not call functions with effects
		"cell_size_check(1)",
		"temp_store(1)", // sorting goes to files
	}}
	name.RawQuery = settings.Encode()
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, nil, fmt.Errorf("prove %s: %w", path, err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("prove %s: open it: %w", path, err), db.Close())
	}
	done := func() { _ = errors.Join(conn.Close(), db.Close()) } // only read
	// In KiB: memory is bounded whatever the database's size. It reads the schema; one that is damaged is for the checks.
	_, _ = conn.ExecContext(ctx, "PRAGMA cache_size=-16384")
	// A query of a policy answers from the restored database alone.
	if _, err := sqlite.Limit(conn, limitAttached, 0); err != nil {
		done()
		return nil, nil, fmt.Errorf("prove %s: %w", path, err)
	}
	return conn, done, nil
}

// limitAttached is SQLITE_LIMIT_ATTACHED: https://sqlite.org/c3ref/c_limit_attached.html
const limitAttached = 7

// prover is one proof on its way.
type prover struct {
	conn    *sql.Conn
	options Options
	report  *proof.Report
	part    bool // the check that runs has left out what can't be checked here
}

// step runs one check and notes how it went. An error of the context ends the proof; any other is what is wrong.
func (p *prover) step(ctx context.Context, name string, check func(context.Context) (problem string, details []string, err error)) (passed bool, err error) {
	if p.options.Began != nil {
		p.options.Began(name)
	}
	began := time.Now()
	problem, details, err := check(ctx)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, errUnchecked):
		return true, nil // a note says so
	case p.part:
		name, p.part = name+InPart, false
	}
	if err != nil {
		problem, details = failure(err), append(details, err.Error())
	}
	p.report.Steps = append(p.report.Steps, proof.Step{Name: name, Took: time.Since(began), Problem: problem, Details: details})
	return problem == "", nil
}

// failure names an error by its code: texts of SQLite repeat parts of queries and of the schema.
func failure(err error) string {
	var e *sqlite.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "took too long"
	case errors.As(err, &e):
		return fmt.Sprintf("SQLite ended it with code %d", e.Code())
	}
	return "could not be made"
}

func (p *prover) schema(ctx context.Context) (string, []string, error) {
	var n int64
	err := p.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n)
	return "", nil, err
}

// integrity runs integrity_check or quick_check. Where that needs what only the application has, it runs for each table by
// itself: those that do without are checked.
func (p *prover) integrity(ctx context.Context) (string, []string, error) {
	problem, details, err := p.check(ctx, fmt.Sprint(maxDetails))
	if !lacks(err) {
		return problem, details, err
	}
	return p.tables(ctx)
}

// check runs integrity_check or quick_check, of a table or up to a number of problems: one row "ok", or a row for each thing
// that is wrong.
func (p *prover) check(ctx context.Context, argument string) (string, []string, error) {
	rows, err := p.conn.QueryContext(ctx, fmt.Sprintf("PRAGMA %s(%s)", p.options.Integrity, argument))
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = rows.Close() }()
	var details []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return "", details, err
		}
		details = append(details, text)
	}
	if err := rows.Err(); err != nil {
		return "", details, err
	}
	switch {
	case len(details) == 1 && details[0] == "ok":
		return "", nil, nil
	case len(details) == 0:
		return "no answer", nil, nil
	}
	return "the database is damaged: " + atLeast(len(details), "problem"), details, nil
}

// foreignKeys runs foreign_key_check: a row for each row that refers to one that is not there.
func (p *prover) foreignKeys(ctx context.Context) (string, []string, error) {
	rows, err := p.conn.QueryContext(ctx, "PRAGMA foreign_key_check")
	if lacks(err) {
		return "", nil, p.unchecked()
	}
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = rows.Close() }()
	var details []string
	for rows.Next() && len(details) < maxDetails {
		var table, parent string
		var rowid sql.NullInt64 // none in tables WITHOUT ROWID
		var index int64
		if err := rows.Scan(&table, &rowid, &parent, &index); err != nil {
			return "", details, err
		}
		details = append(details, fmt.Sprintf("a row of %s refers to one of %s that is not there", table, parent))
	}
	if err := rows.Err(); lacks(err) {
		return "", nil, p.unchecked()
	} else if err != nil {
		return "", details, err
	}
	if len(details) == 0 {
		return "", nil, nil
	}
	return atLeast(len(details), "row") + " with a foreign key that leads nowhere", details, nil
}

// atLeast counts what SQLite was not asked to list further than maxDetails.
func atLeast(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case n >= maxDetails:
		return fmt.Sprintf("at least %d %ss", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// query asks one query of the policy. The first column of the first row is its answer.
func (p *prover) query(ctx context.Context, check policy.Check) (string, []string, error) {
	want, err := proof.Expect(check.Expect)
	if err != nil {
		return "", nil, err
	}
	limit := p.options.QueryTime
	if limit <= 0 {
		limit = DefaultQueryTime
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rows, err := p.conn.QueryContext(limited, check.Query)
	if err != nil {
		return "", nil, timed(limited, err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return "", nil, err
	}
	if len(columns) == 0 || !rows.Next() {
		if err := rows.Err(); err != nil {
			return "", nil, timed(limited, err)
		}
		return "answers with no row", nil, nil
	}
	answer := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range into {
		into[i] = &answer[i]
	}
	if err := rows.Scan(into...); err != nil {
		return "", nil, timed(limited, err)
	}
	if !want.Met(answer[0]) {
		return "does not answer as expected", []string{fmt.Sprintf("the answer is %v", shown(answer[0]))}, nil
	}
	return "", nil, nil
}

// shown is an answer for people.
func shown(answer any) any {
	switch v := answer.(type) {
	case nil:
		return "NULL"
	case []byte:
		return fmt.Sprintf("%d bytes", len(v))
	}
	return answer
}

// timed tells the end of a query's time from other ends: SQLite only says that it was interrupted.
func timed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return err
}
