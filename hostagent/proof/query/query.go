// Package query asks a restored PostgreSQL database the queries of a policy, and says whether it answers as expected: [Ask].
package query

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// DefaultTime is how long one query of the policy may take.
const DefaultTime = 5 * time.Minute

// Object ids of types whose text is not that of a value of their kind: src/include/catalog/pg_type.dat.
const (
	oidBool   = 16
	oidInt8   = 20
	oidInt2   = 21
	oidInt4   = 23
	oidFloat4 = 700
	oidFloat8 = 701
)

// cancelled is the SQLSTATE of a statement that took too long, or that somebody ended: query_canceled.
const cancelled = "57014"

// Ask asks one query, in a transaction that may only read and is rolled back. limit is the most that it may take; 0:
// DefaultTime. problem is empty if the answer is as expected; it holds no text and no value of the database, which details
// may. The error says that there is no answer to judge: the connection broke, or the context ended.
func Ask(ctx context.Context, conn *pgconn.PgConn, check policy.Check, limit time.Duration) (problem string, details []string, err error) {
	if limit <= 0 {
		limit = DefaultTime
	}
	want, err := proof.Expect(check.Expect)
	if err != nil {
		return "", nil, err
	}
	begin := fmt.Sprintf("BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = 0", limit.Milliseconds())
	if _, err := conn.Exec(ctx, begin).ReadAll(); err != nil {
		return "", nil, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if _, rerr := conn.Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll(); rerr != nil && err == nil && problem == "" {
			err = fmt.Errorf("roll back: %w", rerr)
		}
	}()
	answer, rows, err := first(ctx, conn, check.Query)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Severity != "FATAL" && ctx.Err() == nil:
		if refused.Code == cancelled {
			return fmt.Sprintf("no answer within %s", limit), nil, nil
		}
		return fmt.Sprintf("the query failed (SQLSTATE %s)", refused.Code), []string{refused.Message}, nil
	case err != nil:
		return "", nil, err
	case rows == 0:
		return "the query gave no row, expected " + check.Expect, nil, nil
	case !want.Met(spelled(answer, check.Expect)):
		return "the answer is not as expected: " + check.Expect, []string{fmt.Sprintf("the answer is %v", shown(answer))}, nil
	}
	return "", nil, nil
}

// spelled is a truth value as the expectation spells such: by a word or a letter, or else by a number.
func spelled(answer any, expect string) any {
	truth, ok := answer.(bool)
	if !ok {
		return answer
	}
	word := strings.ToLower(strings.Trim(expect, "=!<> '\""))
	for _, words := range [][2]string{{"true", "false"}, {"t", "f"}} {
		if word == words[0] || word == words[1] {
			if truth {
				return words[0]
			}
			return words[1]
		}
	}
	return answer
}

func shown(answer any) any {
	if answer == nil {
		return "NULL"
	}
	return answer
}

// first is the first column of the first row; rows is 0 or 1.
func first(ctx context.Context, conn *pgconn.PgConn, sql string) (answer any, rows int, err error) {
	// The extended protocol takes one statement: a query can't end the transaction that holds it.
	reader := conn.ExecParams(ctx, sql, nil, nil, nil, nil)
	for reader.NextRow() {
		if rows > 0 {
			continue
		}
		fields, values := reader.FieldDescriptions(), reader.Values()
		if rows = 1; len(values) > 0 && values[0] != nil {
			answer = value(fields[0].DataTypeOID, string(values[0]))
		}
	}
	if _, err := reader.Close(); err != nil {
		return nil, 0, err
	}
	return answer, rows, nil
}

// value is a value of the kinds that expectations know.
func value(oid uint32, text string) any {
	switch oid {
	case oidBool:
		return text == "t"
	case oidInt2, oidInt4, oidInt8:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case oidFloat4, oidFloat8:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	}
	return text
}
