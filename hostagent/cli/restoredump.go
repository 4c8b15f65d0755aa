package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/proof/query"
	"github.com/btcdecoded/holdfast/hostagent/restorer/dump"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxJobs is how many processes restore a dump where nobody says a number.
const maxJobs = 4

// dumpRestore is a restore of dumps.
type dumpRestore struct {
	app    *app
	repo   *repository.Repository
	stored *repository.Stored
	flags  restoreFlags
	source *policy.Source // what the policy says of the source on this host; nil: nothing
	snap   *repository.Snapshot
	index  *logical.Index
	chosen []logical.Database
	server string // its connection
}

// restoreDumps restores dumps of databases into a server, or as files.
func (a *app) restoreDumps(ctx context.Context, repo *repository.Repository, m *repository.Stored, f restoreFlags, args []string) error {
	if f.at != "" {
		var err error
		if m, err = a.dumpAt(ctx, repo, m.ID().Source, args[0], f.at); err != nil {
			return err
		}
	}
	r := &dumpRestore{app: a, repo: repo, stored: m, flags: f}
	if err := r.usage(); err != nil {
		return err
	}
	var err error
	if r.snap, err = a.openJudged(ctx, repo, m); err != nil {
		return err
	}
	if r.index, err = dumpIndex(ctx, r.snap); err != nil {
		return err
	}
	if err := r.choose(args[1:]); err != nil {
		return err
	}
	if r.server, r.source, err = a.dumpServer(m.ID().Source, f.service); err != nil {
		return err
	}
	return r.run(ctx)
}

// usage refuses flags that are for other things.
func (r *dumpRestore) usage() error {
	f, name := r.flags, r.stored.Source
	switch {
	case f.remove, len(f.keep) > 0, f.compare, f.byName, f.showIt, len(f.maps) > 0, f.force:
		return usagef("restore %s: --delete, --keep, --verify, --owners-by-name, --list, --map and --force are not for dumps of databases", name)
	case f.jobs < 0:
		return usagef("restore %s: --jobs %d: want 1 or more", name, f.jobs)
	case f.inPlace && len(f.tables)+len(f.schemas) > 0:
		return hinted{
			usagef("restore %s: --table and --schema restore beside: what else is in the database refers to its tables", name),
			"--to-database NAME makes a new database with their rows; copy from there what is missing",
		}
	}
	for _, word := range f.checks {
		if word != checkQueries && word != checkNone || len(f.checks) > 1 {
			return usagef("restore %s: --checks %s: a dump is checked by queries, or by none", name, word)
		}
	}
	return (&dump.Selection{Tables: f.tables, Schemas: f.schemas}).Check()
}

// choose finds the databases that arguments name, by name or by path.
func (r *dumpRestore) choose(args []string) error {
	for _, arg := range args {
		i := slices.IndexFunc(r.index.Databases, func(d logical.Database) bool { return d.Name == arg || d.Path == path.Clean(arg) })
		if i < 0 {
			return hinted{usagef("restore %s: there is no dump of %s in it", r.app.name(r.stored.ID()), printable(arg)), r.has()}
		}
		r.chosen = append(r.chosen, r.index.Databases[i])
	}
	if len(args) == 0 {
		r.chosen = slices.Clone(r.index.Databases)
		if r.flags.inPlace && len(r.chosen) > 1 {
			// The database from which others are made is restored when it is asked for.
			r.chosen = slices.DeleteFunc(r.chosen, func(d logical.Database) bool { return d.Name == "postgres" })
		}
	}
	if r.flags.toDatabase != "" && len(r.chosen) != 1 {
		return hinted{usagef("restore %s: --to-database makes one database: say which one is restored", r.app.name(r.stored.ID())), r.has()}
	}
	if len(r.chosen) == 0 {
		return fmt.Errorf("restore %s: it has no dumps", r.app.name(r.stored.ID()))
	}
	return nil
}

func (r *dumpRestore) has() string {
	var names []string
	for _, name := range r.index.Names() {
		names = append(names, printable(name))
	}
	return "it has dumps of " + strings.Join(names, ", ")
}

// dumpServer finds out into which server databases of a source are restored: that of --service, or of the policy. source is
// what this host's policy says of it; nil: nothing.
func (a *app) dumpServer(src snapshot.Source, service string) (server string, source *policy.Source, err error) {
	p, err := a.loadPolicy()
	if err != nil {
		return "", nil, err
	}
	own, err := a.host()
	if err != nil {
		return "", nil, err
	}
	if p != nil && own == src.Host {
		if s, err := p.Lookup(own, src.Name); err == nil && s.Postgres != nil {
			source, server = s, s.Postgres.Service
		}
	}
	if service != "" {
		server = service
	}
	if server == "" {
		return "", nil, hinted{
			usagef("restore %s: to which server?", src.Name),
			"no policy of this host has the source: --service NAME names an entry of pg_service.conf; --to DIR restores to files",
		}
	}
	if err := pgbin.CheckConnection(server); err != nil {
		return "", nil, usageError{err}
	}
	return server, source, nil
}

func (r *dumpRestore) run(ctx context.Context) error {
	result := dumpRestored{Moment: r.chosen[0].Started, name: r.app.name(r.stored.ID()), id: r.stored.ID(), DryRun: r.flags.dryRun, InPlace: r.flags.inPlace}
	for _, d := range r.chosen {
		to := d.Name
		if r.flags.toDatabase != "" {
			to = r.flags.toDatabase
		}
		result.Planned = append(result.Planned, dump.Restored{Database: d.Name, Name: to})
		result.Expected += d.Bytes
	}
	if r.flags.dryRun {
		return r.app.printDumps(result)
	}
	began := r.app.now()
	meter := r.app.meter()
	options, err := r.options(ctx)
	if err != nil {
		return err
	}
	options.Progress, options.Began = meter, meter.Current
	options.Note = func(text string) {
		meter.Clear()
		r.app.note("%s", text)
	}
	err = meter.Run("restore "+r.stored.Source, func() (err error) {
		if r.flags.globals {
			if err := r.globals(ctx, &options, &result); err != nil {
				return err
			}
		}
		meter.Total(0, result.Expected)
		if r.flags.toDatabase != "" {
			result.Result, err = dump.Beside(ctx, r.dumps()[0], r.flags.toDatabase, options)
		} else {
			result.Result, err = dump.InPlace(ctx, r.dumps(), options)
		}
		return err
	})
	result.Seconds = r.app.now().Sub(began).Seconds()
	if ctx.Err() == nil && options.Select == nil {
		r.app.measured(r.repo, r.stored.ID().Source, began, result.bytes(), err, dump.StepProve, dump.StepRestore)
	}
	if err != nil {
		return explainDump(err, r.stored.Source)
	}
	return r.app.printDumps(result)
}

// dumps are the chosen ones, to be read from the repository.
func (r *dumpRestore) dumps() []dump.Dump { return dumpsOf(r.snap, r.index, r.chosen) }

func dumpsOf(snap *repository.Snapshot, index *logical.Index, chosen []logical.Database) []dump.Dump {
	var out []dump.Dump
	for _, d := range chosen {
		out = append(out, dump.Dump{Database: d, Reader: index.Wanted, Write: func(ctx context.Context, w io.Writer) error {
			e, err := snap.Lookup(ctx, d.Path)
			if err != nil {
				return missing(err)
			}
			return writeContent(ctx, snap, e, w)
		}})
	}
	return out
}

// globals makes roles that are missing.
func (r *dumpRestore) globals(ctx context.Context, o *dump.Options, result *dumpRestored) error {
	if r.index.Globals == "" {
		return fmt.Errorf("restore %s: it has no roles", r.app.name(r.stored.ID()))
	}
	script, err := readText(ctx, r.snap, r.index.Globals)
	if err != nil {
		return err
	}
	made, err := dump.Globals(ctx, o.Connect, script)
	if err != nil {
		return hinted{fmt.Errorf("restore roles: %w", err), "roles are made by a superuser: --service NAME"}
	}
	result.Roles = made.Roles
	for _, w := range made.Warnings {
		r.app.warn("%s", w)
	}
	if len(made.Roles) > 0 && !r.index.Passwords {
		r.app.warn("the roles that were made have no passwords: the backup could not read them")
	}
	return nil
}

// readText is a file of a snapshot.
func readText(ctx context.Context, snap *repository.Snapshot, path string) (string, error) {
	e, err := snap.Lookup(ctx, path)
	if err != nil {
		return "", missing(err)
	}
	var b strings.Builder
	err = writeContent(ctx, snap, e, &b)
	return b.String(), err
}

// options are those of the restorer.
func (r *dumpRestore) options(context.Context) (dump.Options, error) {
	a := r.app
	o := dump.Options{
		Connection: r.server, Jobs: r.flags.jobs, Temp: a.tempPath(), NoOwner: r.flags.noOwner, Source: r.stored.ID().String(), Now: a.now,
	}
	if o.Jobs == 0 {
		o.Jobs = min(maxJobs, runtime.NumCPU())
	}
	if len(r.flags.tables)+len(r.flags.schemas) > 0 {
		o.Select = &dump.Selection{Tables: r.flags.tables, Schemas: r.flags.schemas}
	}
	var err error
	if o.Connect, err = connector(r.server); err != nil {
		return o, err
	}
	if r.flags.inPlace {
		var names []string
		for _, d := range r.chosen {
			names = append(names, d.Name)
		}
		if o.Application, err = a.application(r.stored.ID().Source, r.source, "HOLDFAST_DATABASE="+strings.Join(names, " ")); err != nil {
			return o, err
		}
	}
	if r.source == nil {
		return o, nil
	}
	o.Bin = r.source.Postgres.Bin
	if len(r.source.Checks) > 0 && !slices.Contains(r.flags.checks, checkNone) {
		o.Prove = func(ctx context.Context, database, here string) error {
			return askDump(ctx, o, r.source.Checks, r.index.Default, database, here)
		}
	}
	return o, nil
}

// askDump asks a restored database, which is called here, the queries that are for it.
func askDump(ctx context.Context, o dump.Options, checks []policy.Check, fallback, database, here string) error {
	conn, err := o.Connect(ctx, here)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var problems []string
	for i, c := range checks {
		if c.Database != database && (c.Database != "" || fallback != database) {
			continue
		}
		problem, _, err := query.Ask(ctx, conn, c, 0)
		if err != nil {
			return fmt.Errorf("query %d: %w", i+1, err)
		}
		if problem != "" {
			problems = append(problems, fmt.Sprintf("query %d: %s", i+1, problem))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: %s", errProof, strings.Join(problems, "; "))
	}
	return nil
}

// explainDump adds to an error of a restore of dumps what its reader can do.
func explainDump(err error, source string) error {
	var e *dump.StepError
	if !errors.As(err, &e) {
		return err
	}
	_, err = failure(err)
	switch {
	case e.Back != nil:
		return hinted{err, "the old databases are called " + e.Safety + " now: ALTER DATABASE … RENAME TO … puts them back"}
	case errors.Is(err, dump.ErrExists):
		return hinted{err, "--to-database makes a new database: name one that is not there"}
	case errors.Is(err, dump.ErrNoTable):
		return hinted{err, "`holdfast cat " + source + " DATABASE | pg_restore --list` shows what is in a dump"}
	case errors.Is(err, errProof):
		return hinted{err, fmt.Sprintf("nothing was changed; `holdfast snapshots %s` shows other dumps, --checks none restores without asking", source)}
	case e.Hint() != "":
		return hinted{err, e.Hint()}
	}
	return err
}

// dumpAt finds the snapshot of dumps of a time. A dump is of its own moment and of no other.
func (a *app) dumpAt(ctx context.Context, repo *repository.Repository, src snapshot.Source, arg, at string) (*repository.Stored, error) {
	when, err := parseTime(at, a.now())
	if err != nil {
		return nil, err
	}
	if sel, err := selector(arg); err != nil || sel.Sequence != 0 || sel.Latest {
		return nil, errors.Join(err, usagef("%s: the snapshot is chosen by its number or by --at, not by both", arg))
	}
	all, err := observe.Manifests(ctx, repo, src)
	var bad *repository.BadManifestError
	if err != nil && !errors.As(err, &bad) {
		return nil, err
	}
	var before, after *repository.Stored
	for _, m := range all {
		switch first, last := m.Started.Truncate(time.Second), m.Finished; {
		case !when.Before(first) && !when.After(last):
			return m, nil
		case when.After(last) && (before == nil || m.Started.After(before.Started)):
			before = m
		case when.Before(first) && (after == nil || m.Started.Before(after.Started)):
			after = m
		}
	}
	var near []string
	for _, m := range []*repository.Stored{before, after} {
		if m != nil {
			near = append(near, fmt.Sprintf("%s (%s@%d)", exact(m.Started.Truncate(time.Second)), src.Name, m.Sequence))
		}
	}
	if len(near) == 0 {
		return nil, fmt.Errorf("source %s: %w", src, repository.ErrNoSnapshot)
	}
	return nil, hinted{
		fmt.Errorf("source %s at %s: nothing was dumped then; the nearest dumps are of %s", src, exact(when), strings.Join(near, " and ")),
		fmt.Sprintf("`holdfast snapshots %s` shows all times; other moments can be restored of a source of mode physical with continuous WAL", src.Name),
	}
}

// dumpPaths are paths of a snapshot of dumps; names of databases become those of their dumps, and nothing the only one.
func dumpPaths(ctx context.Context, snap *repository.Snapshot, args []string) ([]string, error) {
	index, err := dumpIndex(ctx, snap)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 && len(index.Databases) == 1 {
		return []string{index.Databases[0].Path}, nil
	}
	out := slices.Clone(args)
	for i, arg := range out {
		if d, ok := index.Find(arg); ok {
			out[i] = d.Path
		}
	}
	return out, nil
}
