// Package postgres proves a restored PostgreSQL cluster whose server runs: [Prove] looks through its tables and indexes with
// amcheck, where the server has that extension, asks the policy's queries, and reads every row by a dump.
//
// It is for servers that this program has started on what it has restored, never for production's: the extension is made
// and dropped again, and what is looked at is locked against changes meanwhile.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/hostagent/proof/query"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// The names of steps. Those of queries go on with a number from 1: "query 1".
const (
	StepConnect = "connect"
	StepAmcheck = "amcheck"
	StepDump    = "dump"
	stepQuery   = "query"
)

// Options say what is proven.
type Options struct {
	// Connect opens a session of a superuser in a database; empty: in one that every cluster has.
	Connect  func(ctx context.Context, database string) (*pgconn.PgConn, error)
	Amcheck  bool           // tables and indexes of all databases, where the server has the extension
	Checks   []policy.Check // queries, and what they must answer
	Database string         // in which queries are asked that name none; empty: the only one that is no template's and not postgres
	// Dump reads all of a database, as a dump does; nil: none is made.
	Dump func(ctx context.Context, database string) error
	// Workers look at tables at the same time; 0: 2.
	Workers int
	Began   func(step string)
}

// prover is one proof on its way.
type prover struct {
	options Options
	report  *proof.Report
}

// Prove checks the cluster, all steps also when one fails. The error says that the proof could not be made: the context
// ended, or the server does not answer.
func Prove(ctx context.Context, o Options) (*proof.Report, error) {
	if o.Workers <= 0 {
		o.Workers = 2
	}
	p := &prover{options: o, report: &proof.Report{}}
	var all []string
	err := p.step(ctx, StepConnect, func(ctx context.Context) (_ string, _ []string, err error) {
		all, err = p.databases(ctx)
		return "", nil, err
	})
	if err == nil && o.Amcheck {
		err = p.step(ctx, StepAmcheck, func(ctx context.Context) (string, []string, error) { return p.amcheck(ctx, all) })
	}
	for i := range o.Checks {
		if err != nil {
			break
		}
		err = p.step(ctx, fmt.Sprintf("%s %d", stepQuery, i+1), func(ctx context.Context) (string, []string, error) {
			return p.ask(ctx, o.Checks[i], all)
		})
	}
	if err == nil && o.Dump != nil {
		err = p.step(ctx, StepDump, func(ctx context.Context) (string, []string, error) { return p.dump(ctx, all) })
	}
	if err != nil {
		return p.report, fmt.Errorf("prove the restored cluster: %w", err)
	}
	return p.report, nil
}

// step runs one check and notes how it went.
func (p *prover) step(ctx context.Context, name string, check func(context.Context) (problem string, details []string, err error)) error {
	if p.options.Began != nil {
		p.options.Began(name)
	}
	began := time.Now()
	problem, details, err := check(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.report.Steps = append(p.report.Steps, proof.Step{Name: name, Took: time.Since(began), Problem: problem, Details: details})
	return nil
}

// databases are those that can be connected to.
func (p *prover) databases(ctx context.Context) (out []string, err error) {
	err = p.in(ctx, "", func(c *pgconn.PgConn) error {
		out, err = column(ctx, c, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid")
		return err
	})
	return out, err
}

// in runs something in a database.
func (p *prover) in(ctx context.Context, database string, do func(*pgconn.PgConn) error) error {
	c, err := p.options.Connect(ctx, database)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close(context.WithoutCancel(ctx)))
}

// column is the first column of all rows.
func column(ctx context.Context, c *pgconn.PgConn, sql string) ([]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range results {
		for _, row := range r.Rows {
			out = append(out, string(row[0]))
		}
	}
	return out, nil
}

// ask asks a query of the policy.
func (p *prover) ask(ctx context.Context, check policy.Check, all []string) (problem string, details []string, err error) {
	database := check.Database
	if database == "" {
		database = p.options.Database
	}
	if database == "" {
		if database, err = only(all); err != nil {
			return err.Error(), nil, nil //nolint:nilerr // it is what is wrong with the policy
		}
	}
	err = p.in(ctx, database, func(c *pgconn.PgConn) error {
		problem, details, err = query.Ask(ctx, c, check, 0)
		return err
	})
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "3D000" {
		return "the database that it is asked in is not there", []string{answer.Message}, nil
	}
	return problem, details, err
}

// only is the database that an application has, where it is plain which that is.
func only(all []string) (string, error) {
	var own []string
	for _, d := range all {
		if d != "postgres" && d != "template0" && d != "template1" {
			own = append(own, d)
		}
	}
	switch len(own) {
	case 0:
		return "postgres", nil
	case 1:
		return own[0], nil
	}
	return "", fmt.Errorf("the cluster has %d databases: say in the policy's check which one is asked", len(own))
}

// dump reads every row of all databases.
func (p *prover) dump(ctx context.Context, all []string) (problem string, details []string, err error) {
	for _, d := range all {
		if err := p.options.Dump(ctx, d); err != nil {
			if ctx.Err() != nil {
				return "", nil, ctx.Err()
			}
			details = append(details, fmt.Sprintf("%s: %v", d, err))
		}
	}
	if n := len(details); n > 0 {
		return fmt.Sprintf("%d of %d databases can not be dumped", n, len(all)), details, nil
	}
	return "", nil, nil
}
