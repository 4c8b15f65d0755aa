package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// maxDetails is how many damaged things are named.
const maxDetails = 20

// thing is a table or an index, and the query that looks through it.
type thing struct{ name, sql string }

// amcheck looks through all tables and B-tree indexes of all databases.
func (p *prover) amcheck(ctx context.Context, all []string) (problem string, details []string, err error) {
	damaged, looked := 0, 0
	for _, database := range all {
		var n, bad int
		var words []string
		err := p.in(ctx, database, func(c *pgconn.PgConn) (err error) {
			n, bad, words, err = p.look(ctx, c, database)
			return err
		})
		if err != nil {
			return "", nil, err
		}
		looked, damaged = looked+n, damaged+bad
		details = append(details, words...)
	}
	if damaged > 0 {
		return fmt.Sprintf("%d of %d tables and indexes are damaged", damaged, looked), details[:min(len(details), maxDetails)], nil
	}
	return "", nil, nil
}

// look looks through one database.
func (p *prover) look(ctx context.Context, c *pgconn.PgConn, database string) (looked, damaged int, details []string, err error) {
	state, err := column(ctx, c, `SELECT CASE WHEN installed_version IS NOT NULL THEN 'here' ELSE 'available' END FROM pg_available_extensions WHERE name = 'amcheck'`)
	if err != nil {
		return 0, 0, nil, err
	}
	if len(state) == 0 {
		if len(p.report.Notes) == 0 {
			p.report.Notes = append(p.report.Notes, "the extension amcheck is not installed on this host: tables and indexes were not looked through (Debian has it in the server's package, Red Hat in postgresql-contrib)")
		}
		return 0, 0, nil, nil
	}
	if state[0] != "here" {
		if _, err := c.Exec(ctx, "CREATE EXTENSION amcheck").ReadAll(); err != nil {
			return 0, 0, nil, fmt.Errorf("make the extension amcheck in %s: %w", database, err)
		}
		defer func() {
			_, e := c.Exec(context.WithoutCancel(ctx), "DROP EXTENSION amcheck").ReadAll()
			if err == nil && e != nil {
				err = fmt.Errorf("drop the extension amcheck in %s: %w", database, e)
			}
		}()
	}
	things, err := p.things(ctx, c)
	if err != nil {
		return 0, 0, nil, err
	}
	damaged, details, err = p.lookAt(ctx, database, things)
	return len(things), damaged, details, err
}

// things are what can be looked through: valid B-tree indexes, and from 14 on tables.
func (p *prover) things(ctx context.Context, c *pgconn.PgConn) ([]thing, error) {
	schema, err := column(ctx, c, `SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'amcheck'`)
	if err != nil || len(schema) != 1 {
		return nil, errors.Join(err, errors.New("the extension amcheck is not there"))
	}
	heap, err := column(ctx, c, `SELECT count(*) FROM pg_proc WHERE proname = 'verify_heapam'`)
	if err != nil {
		return nil, err
	}
	query := `SELECT c.oid::regclass::text, 'SELECT ` + strings.ReplaceAll(schema[0], "'", "''") + `.bt_index_check(' || c.oid || '::regclass)', pg_relation_size(c.oid) AS size
		FROM pg_index i JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam
		WHERE a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't' AND c.relkind = 'i'`
	if heap[0] != "0" {
		query += ` UNION ALL SELECT c.oid::regclass::text, 'SELECT format(''block %s: %s'', blkno, msg) FROM ` + strings.ReplaceAll(schema[0], "'", "''") +
			`.verify_heapam(' || c.oid || '::regclass, on_error_stop := true)', pg_relation_size(c.oid)
			FROM pg_class c WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't' AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'heap')`
	}
	results, err := c.Exec(ctx, query+" ORDER BY size DESC").ReadAll()
	if err != nil {
		return nil, err
	}
	var out []thing
	for _, row := range results[0].Rows {
		out = append(out, thing{string(row[0]), string(row[1])})
	}
	return out, nil
}

// lookAt looks at things, several at the same time.
func (p *prover) lookAt(ctx context.Context, database string, things []thing) (damaged int, details []string, err error) {
	queue := make(chan thing)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		for _, t := range things {
			select {
			case queue <- t:
			case <-gctx.Done():
				return nil
			}
		}
		return nil
	})
	var mu sync.Mutex
	for range min(p.options.Workers, max(len(things), 1)) {
		g.Go(func() error {
			return p.in(gctx, database, func(c *pgconn.PgConn) error {
				for t := range queue {
					words, err := found(gctx, c, t)
					if err != nil {
						return err
					}
					if words == "" {
						continue
					}
					mu.Lock()
					damaged++
					if len(details) < maxDetails {
						details = append(details, fmt.Sprintf("%s: %s: %s", database, t.name, words))
					}
					mu.Unlock()
				}
				return nil
			})
		})
	}
	err = g.Wait()
	return damaged, details, err
}

// found is what is wrong with a thing; empty: nothing is. That the server has no room or no memory, or that somebody ended
// what it did (classes 53 and 57 of SQLSTATE), is no verdict.
func found(ctx context.Context, c *pgconn.PgConn, t thing) (string, error) {
	words, err := column(ctx, c, t.sql)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && !c.IsClosed() && !strings.HasPrefix(answer.Code, "53") && !strings.HasPrefix(answer.Code, "57") {
		text := answer.Message
		if answer.Detail != "" {
			text += ": " + answer.Detail
		}
		return text, nil
	}
	return strings.Join(words, "; "), err
}
