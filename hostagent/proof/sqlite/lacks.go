package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
)

// InPart is what follows the name of a step that has left out tables which this program can't check.
const InPart = " in part"

// errUnchecked says that nothing could be checked, which is nobody's fault.
var errUnchecked = errors.New("not checked")

// missingCollation is SQLITE_ERROR_MISSING_COLLSEQ: https://sqlite.org/rescode.html
const missingCollation = 257

// lacks reports whether SQLite was asked for what only the application has: collations, functions and modules that it
// registers itself.
func lacks(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Code() == missingCollation || strings.Contains(e.Error(), "no such function") || strings.Contains(e.Error(), "no such module")
}

// tables checks each table by itself, with its indexes, and notes how many can't be checked.
func (p *prover) tables(ctx context.Context) (problem string, details []string, err error) {
	names, err := p.tableNames(ctx)
	if err != nil {
		return "", nil, err
	}
	left := 0
	for _, name := range append(names, "sqlite_schema") {
		problem, found, err := p.check(ctx, "'"+strings.ReplaceAll(name, "'", "''")+"'")
		switch {
		case lacks(err):
			left++
		case err != nil:
			return "", details, err
		case problem != "":
			details = append(details, found...)
		}
	}
	p.report.Notes = append(p.report.Notes, fmt.Sprintf("%d of %d tables use collations or functions that only the application has: they were not checked", left, len(names)))
	if left == len(names) {
		return "", nil, errUnchecked
	}
	p.part = true
	if len(details) == 0 {
		return "", nil, nil
	}
	details = details[:min(len(details), maxDetails)]
	return "the database is damaged: " + atLeast(len(details), "problem"), details, nil
}

// tableNames are those of tables that have pages.
func (p *prover) tableNames(ctx context.Context) (names []string, err error) {
	rows, err := p.conn.QueryContext(ctx, "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// unchecked notes that foreign keys need what only the application has.
func (p *prover) unchecked() error {
	p.report.Notes = append(p.report.Notes, "foreign keys were not checked: that takes collations or functions that only the application has")
	return errUnchecked
}
