package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/dump"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	source "github.com/btcdecoded/holdfast/hostagent/source/postgres/dump"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// restoreOut restores one database out of a cluster's snapshot and log into a running server, or of it the rows of some
// tables: a server recovers on a scratch directory, and what is wanted is dumped from there.
func (a *app) restoreOut(ctx context.Context, repo *repository.Repository, m *repository.Stored, f restoreFlags, args []string) error {
	r := &clusterRestore{app: a, flags: f, repo: repo, src: m.ID().Source}
	selection := dump.Selection{Tables: f.tables, Schemas: f.schemas}
	if err := errors.Join(r.wanted(args[0]), selection.Check()); err != nil {
		return err
	}
	if len(args) > 2 || f.globals || f.pause || len(f.checks) > 0 {
		return usagef("restore %s: --to-database takes one DATABASE out of a cluster; --globals, --pause and --checks don't go with that", r.src.Name)
	}
	o := outOf{app: a, flags: f}
	var err error
	if o.server, r.policy, err = a.dumpServer(r.src, f.service); err != nil {
		return err
	}
	if o.database, err = o.name(args[1:]); err != nil {
		return err
	}
	if _, err := r.open(ctx); err != nil {
		return err
	}
	for _, w := range r.moment.chosen.Warnings {
		a.warn("%s: %s", r.src.Name, w)
	}
	id := r.moment.base.ID()
	result := dumpRestored{
		Moment: r.moment.chosen.Reached, name: a.name(id), id: id, DryRun: f.dryRun, Cluster: true,
		Planned: []dump.Restored{{Database: o.database, Name: f.toDatabase}},
	}
	if f.dryRun {
		return a.printDumps(result)
	}
	if len(f.tables)+len(f.schemas) > 0 {
		o.options.Select = &selection
	}
	began := a.now()
	err = o.run(ctx, r)
	result.Result, result.Expected, result.Seconds = o.result, o.size, a.now().Sub(began).Seconds()
	var failed *dump.StepError
	switch {
	case errors.As(err, &failed):
		return explainDump(failed, r.src.Name)
	case err != nil:
		return r.explain(err)
	}
	return a.printDumps(result)
}

// outOf is a restore of one database out of a cluster.
type outOf struct {
	app      *app
	flags    restoreFlags
	server   string // connection of the one that gets it
	database string
	options  dump.Options
	result   *dump.Result
	size     uint64 // of the database, bytes
}

// name is the database that is wanted: the one that is named, or that of the service.
func (o *outOf) name(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	config, err := pgsource.Config(o.server)
	if err != nil {
		return "", err
	}
	if config.Database == "" {
		return "", usagef("restore: say which DATABASE is restored")
	}
	return config.Database, nil
}

func (o *outOf) run(ctx context.Context, r *clusterRestore) error {
	a := o.app
	meter := a.meter()
	c := postgres.Options{Target: r.want.target, Progress: meter, Now: a.now, Began: meter.Current, Temp: a.tempPath()}
	c.Note = func(text string) { a.note("%s", text) }
	a.serverOptions(&c, o.flags.bin, r.policy)
	var err error
	if c.Fetch, err = fetchCommand(); err != nil {
		return err
	}
	scratch := filepath.Join(a.statePath(), scratchDir)
	if err := a.passable(scratch); err != nil {
		return err
	}
	o.options.Connection, o.options.Jobs, o.options.Temp, o.options.NoOwner = o.server, max(1, o.flags.jobs), a.tempPath(), o.flags.noOwner
	o.options.Source, o.options.Now, o.options.Note, o.options.Began = r.moment.base.ID().String(), a.now, c.Note, meter.Current
	o.options.Bin = o.flags.bin
	if r.policy != nil && o.options.Bin == "" {
		o.options.Bin = r.policy.Postgres.Bin
	}
	if o.options.Connect, err = connector(o.server); err != nil {
		return err
	}
	// Who can't have it in the end should not wait for it.
	if err := dump.Free(ctx, o.flags.toDatabase, o.options); err != nil {
		return err
	}
	c.Prove = func(ctx context.Context, s *pgserver.Server) error { return o.take(ctx, s, r) }
	return meter.Run("restore "+r.src.Name, func() error {
		_, err := postgres.Scratch(ctx, scratch, func(ctx context.Context) (*postgres.Source, error) { return r.moment.open(ctx, a) }, c)
		return err
	})
}

// take takes the database from the server that has recovered.
func (o *outOf) take(ctx context.Context, s *pgserver.Server, r *clusterRestore) error {
	connect := func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return s.Connect(ctx, database, "")
	}
	all, major, err := source.Databases(ctx, connect)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(d logical.Database) bool { return d.Name == o.database })
	if i < 0 {
		var names []string
		for _, d := range all {
			names = append(names, printable(d.Name))
		}
		return hinted{fmt.Errorf("the cluster had no database %s then", o.database), "it had " + strings.Join(names, ", ")}
	}
	program, err := pgbin.Client(ctx, o.options.Bin, "pg_dump", major)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, "")
	if err != nil {
		return err
	}
	row, err := pgserver.Row(ctx, conn, "SELECT current_user")
	_ = conn.Close(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	settings := fmt.Sprintf("host=%s port=%s user=%s", pgbin.Quote(s.Socket), pgserver.Port, pgbin.Quote(row[0]))
	d := dump.Dump{Database: all[i], Reader: program.Major}
	d.Started, o.size = r.moment.chosen.Reached, all[i].Size
	d.Write = func(ctx context.Context, w io.Writer) error {
		run, err := pgbin.Start(ctx, program.Path, "--format=custom", "--compress=0", "--no-password", "--dbname="+pgbin.Conninfo(settings, o.database))
		if err != nil {
			return err
		}
		defer run.Stop()
		if _, err := io.Copy(w, run); err != nil {
			return err
		}
		return run.Wait()
	}
	o.result, err = dump.Beside(ctx, d, o.flags.toDatabase, o.options)
	return err
}
