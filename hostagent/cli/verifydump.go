package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/dump"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// verifyDumps tries a restore of dumps: all of them into an empty server that is made for it and removed again, where the
// queries of the policy are asked. Its error says that there is no verdict.
func (a *app) verifyDumps(ctx context.Context, repo *repository.Repository, id snapshot.ID, scratch string) (*restoredSnapshot, error) {
	arg := id.Source.String()
	if id.Sequence != 0 {
		arg = id.String()
	}
	m, err := a.find(ctx, repo, arg, "")
	if err != nil {
		return nil, err
	}
	source, err := a.policySource(m.ID().Source)
	if err != nil {
		return nil, err
	}
	began := a.now()
	snap, err := openContent(ctx, repo, m)
	if err != nil {
		return nil, err
	}
	d := &dumpDrill{app: a, snap: snap, source: source}
	meter := a.meter()
	err = meter.Run("verify "+id.Source.Name, func() error { return d.run(ctx, scratch, meter) })
	r := a.tried(m, began)
	var step *dump.StepError
	switch {
	case err == nil:
		r.Reached = d.chosen[0].Started
	case ctx.Err() != nil || !dumpVerdict(err):
		var with interface{ Hint() string }
		if errors.As(err, &with) && with.Hint() != "" {
			err = hinted{err, with.Hint()}
		}
		return nil, err
	case errors.As(err, &step):
		r.Problems = append(r.Problems, d.problem(step))
		r.details = append(r.details, step.Err.Error())
	default:
		r.Problems = append(r.Problems, cause(err))
	}
	if d.result != nil {
		r.Bytes = d.result.Bytes
		for i, s := range d.result.Steps {
			one := record.Step{Name: s.Name, Result: record.Pass, Seconds: s.Took.Seconds()}
			if err != nil && i == len(d.result.Steps)-1 {
				one.Result = record.Fail
			}
			r.Steps = append(r.Steps, one)
		}
		for _, w := range d.result.Warnings {
			a.warn("%s", w)
		}
	}
	r.Pass = len(r.Problems) == 0
	return r, nil
}

// dumpVerdict reports whether an error says something of the dump, and not of the store, or of what this host lacks.
func dumpVerdict(err error) bool {
	var program *pgbin.Error
	var refused *pgconn.PgError
	switch {
	case strings.Contains(err.Error(), "is not available") && strings.Contains(err.Error(), "extension"):
		return false
	case errors.As(err, &program), errors.As(err, &refused), errors.Is(err, errProof), errors.Is(err, dump.ErrSize), errors.Is(err, logical.ErrIndex):
		return true
	}
	return rotten(err)
}

// dumpDrill is one restore of dumps into an empty server.
type dumpDrill struct {
	app    *app
	snap   *repository.Snapshot
	source *policy.Source // nil: the policy does not have it
	chosen []logical.Database
	result *dump.Result
}

// problem is what failed, without texts of the database: receipts hold it.
func (d *dumpDrill) problem(e *dump.StepError) string {
	if errors.Is(e, errProof) {
		return cause(e.Err)
	}
	i := slices.IndexFunc(d.chosen, func(c logical.Database) bool { return c.Name == e.Database })
	return fmt.Sprintf("%s of dump %d failed", e.Step, i+1)
}

func (d *dumpDrill) run(ctx context.Context, scratch string, progress interface {
	dump.Progress
	Current(what string)
},
) (err error) {
	index, err := dumpIndex(ctx, d.snap)
	if err != nil {
		return err
	}
	d.chosen = slices.DeleteFunc(slices.Clone(index.Databases), func(c logical.Database) bool { return c.Name == "postgres" })
	if len(d.chosen) == 0 {
		return errors.New("it has no dump of a database but postgres")
	}
	bin, user := "", ""
	var checks []policy.Check
	if d.source != nil && d.source.Postgres != nil {
		bin, user, checks = d.source.Postgres.Bin, d.source.Postgres.RunAs, d.source.Checks
	}
	account, err := pgserver.Choose(user, "", pgserver.Account{})
	if err != nil {
		return err
	}
	if err := d.app.passable(scratch); err != nil {
		return err
	}
	progress.Current("an empty server")
	dirs := []string{scratch, filepath.Join(os.TempDir(), "holdfast-scratch")}
	server, err := pgserver.StartEmpty(ctx, dirs, bin, index.Major, account)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	o := dump.Options{
		Connection: server.Conninfo(), Bin: bin, Jobs: min(maxJobs, runtime.NumCPU()), Temp: d.app.tempPath(), Source: d.snap.Manifest().ID().String(),
		Now: d.app.now, Progress: progress, Began: progress.Current, Note: func(text string) { d.app.note("%s", text) },
		Connect: func(ctx context.Context, database string) (*pgconn.PgConn, error) {
			return server.Connect(ctx, database, "")
		},
	}
	if index.Globals == "" {
		o.NoOwner = true // the roles are not known
	} else {
		script, err := readText(ctx, d.snap, index.Globals)
		if err != nil {
			return err
		}
		if _, err := dump.Globals(ctx, o.Connect, script); err != nil {
			return &dump.StepError{Failure: steps.Failure{Step: dump.StepRestore, Err: err}}
		}
	}
	if len(checks) > 0 {
		o.Prove = func(ctx context.Context, database, here string) error {
			return askDump(ctx, o, checks, index.Default, database, here)
		}
	}
	d.result, err = dump.Scratch(ctx, dumpsOf(d.snap, index, d.chosen), o)
	return err
}
