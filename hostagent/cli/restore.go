package cli

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/repository"
)

const restoreLong = `Restore a snapshot (the newest without @N or --at), or only the PATHs of it: directories with all they hold, or files.

--to DIR restores to another place: one directory becomes DIR itself, one file goes into DIR, several keep their whole
paths below DIR. --in-place restores over the original. --map PATH=DIR sends one root or path to a place of its own.

An identity file that is in use on this host is never restored over: backups leave it out.

Only what differs is written, beside what is there, and renamed when it is complete: each file that was there has its
old or its new content, at any time. A directory that was not there can be entered by nobody else before all in it is
complete. A restore that was interrupted is finished by doing it again. --delete also removes what the snapshot does
not have; what its backup was told to leave out or could not read, what the policy excludes now, --keep, other file
systems, and this program's own files stay. --dry-run shows what would be done.

--to and --map refuse a place that is, lies in or contains the repository, the state directory or the identity.

Without root, owners and devices can not be restored; the rest is, with one warning. Exit code 3 if something could not
be restored.

A source of kind sqlite is restored to any moment of which the repository knows: the newest, or that of --at. --to FILE makes
a new file and replaces none; a DIR gets the database under its own name. Nothing is put in its place before integrity_check,
foreign_key_check and the queries of the policy have passed; --checks says which.

In place, the policy's stop hook runs, then the database and all that stands beside it (-wal, -shm, -journal) is exchanged so
that nobody can open one with what belongs to the other, the start hook runs, and the health hook tells whether all is well.
What was there is kept beside as a safety copy, and put back where anything fails. With --at or @N the application runs on
while the database is built and checked. It is refused while another process has the database open. A restore that was killed
is settled by the next one.

Dumps of PostgreSQL databases (mode logical) are of their own moments and of no other. --to-database NAME restores one beside what
is there; --in-place restores all of the snapshot, or the DATABASEs that are named instead of PATHs: into new databases first,
which the policy's queries must pass; then the stop hook runs, old and new databases exchange their names in one step, start and
health hooks run. The old databases are kept under other names, and take their places again where anything fails. --to DIR
restores the dumps as files. --to-database also takes one DATABASE, or with --table the rows of some tables, out of a cluster (mode
physical), as of any moment: a server recovers beside, and what is wanted is dumped from there.

` + clusterHelp

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore SOURCE[@N] [PATH...] {--to DIR|FILE | --in-place}",
		Short: "Restore a snapshot, or parts of it",
		Long:  restoreLong,
		Example: `  holdfast restore etc --to /tmp/etc
  holdfast restore etc@42 /etc/ssh --to /tmp/ssh
  holdfast restore etc --at "2026-01-31 09:30" --in-place --dry-run
  holdfast restore app --in-place --delete
  holdfast restore governance-sqlite --at "2026-01-31 09:30:05" --to /tmp/governance.db
  holdfast restore governance-sqlite --at latest --in-place
  holdfast restore governance-db --at "2026-01-31 09:30:05" --to /var/lib/postgresql/15/recovered
  holdfast restore governance-db --at "2026-01-31 09:30:05" --in-place
  holdfast restore governance-dump governance_production --to-database governance_recovery
  holdfast restore governance-dump@41 governance_production --in-place`,
		GroupID: groupUse,
		Args:    arguments(1, -1, "SOURCE[@N] and the PATHs to restore"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), f, args)
		},
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.StringVar(&f.to, "to", "", "restore to this `DIR`, a database to this file")
	p.BoolVar(&f.inPlace, "in-place", false, "restore over the original")
	p.StringArrayVar(&f.maps, "map", nil, "send one root or path to its own place: `PATH=DIR` (repeatable)")
	p.StringVar(&f.at, "at", "", atHelp)
	p.BoolVar(&f.remove, "delete", false, "remove what the snapshot does not have")
	p.StringArrayVar(&f.keep, "keep", nil, "with --delete, never remove what fits the `PATTERN` (repeatable)")
	p.BoolVar(&f.dryRun, "dry-run", false, "change nothing, show what would be done")
	p.BoolVar(&f.compare, "verify", false, "compare content even where size and time are equal")
	p.BoolVar(&f.byName, "owners-by-name", false, "set owners by name where this host knows it, not by id")
	p.BoolVar(&f.showIt, "list", false, "print each thing that is done")
	p.StringSliceVar(&f.checks, "checks", nil, "what a database must pass, a `LIST` of integrity, quick, foreign-keys, queries, amcheck; or none (default: as the policy says)")
	p.StringVar(&f.toDatabase, "to-database", "", "restore a dump, or one DATABASE out of a cluster, into a new database, `NAME`, beside what is there")
	p.StringArrayVar(&f.tables, "table", nil, "with --to-database, only the rows of `TABLE` or SCHEMA.TABLE; * and ? fit (repeatable)")
	p.StringArrayVar(&f.schemas, "schema", nil, "with --to-database, only the rows of the tables of this `SCHEMA` (repeatable)")
	p.StringVar(&f.service, "service", "", "with --to-database, and dumps in place: into this `SERVICE` of pg_service.conf (default: the policy's)")
	p.BoolVar(&f.globals, "globals", false, "make roles and tablespaces first that are missing")
	p.BoolVar(&f.noOwner, "no-owner", false, "what dumps restore belongs to who restores it; no rights are granted")
	p.IntVar(&f.jobs, "jobs", 0, "`N` processes of pg_restore (default: one for each processor, at most 4)")
	p.BoolVar(&f.force, "force", false, "with --in-place, also while another process has the database open")
	a.alsoFlag(cmd)
	f.clusterFlags.register(p)
	return cmd
}

func (a *app) restore(ctx context.Context, f restoreFlags, args []string) error {
	options, err := f.options(args[1:])
	if err != nil {
		return err
	}
	own, err := a.ownPlaces()
	if err != nil {
		return err
	}
	if err := checkPlaces(options, own); err != nil {
		return err
	}
	options.Keep = keepPlaces(own)
	if f.at == latest {
		f.at = ""
	}
	if err := a.settle(f, args[0]); err != nil {
		return err
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	if err := a.alsoRead(repo); err != nil {
		return err
	}
	m, err := a.find(ctx, repo, args[0], "")
	if err != nil {
		return err
	}
	if err := f.fits(a.name(m.ID()), m.Manifest); err != nil {
		return err
	}
	if restore := a.restoreOf(m.Manifest, f); restore != nil {
		return restore(ctx, repo, m, f, args)
	}
	switch {
	case f.at == "":
	case isDump(m.Manifest):
		m, err = a.dumpAt(ctx, repo, m.ID().Source, args[0], f.at)
	default:
		m, err = a.find(ctx, repo, args[0], f.at)
	}
	if err != nil {
		return err
	}
	for _, p := range args[1:] {
		if !path.IsAbs(p) {
			return relativePath(p)
		}
	}
	return a.restoreFiles(ctx, repo, m, f, options, own)
}

// restoreFiles restores a snapshot of trees. own are the places of this program, which stay as they are.
func (a *app) restoreFiles(
	ctx context.Context, repo *repository.Repository, m *repository.Stored, f restoreFlags, options restorer.Options, own []ownPlace,
) error {
	snap, err := a.openJudged(ctx, repo, m)
	if err != nil {
		return err
	}
	if options.Delete {
		protected, err := a.protect(ctx, snap, f.keep)
		if err != nil {
			return err
		}
		options.Protect = protected.covers
	}
	to, err := targetsOf(ctx, snap, options)
	if err != nil {
		return err
	}
	meter := a.meter()
	result := restoreResult{Snapshot: m.ID().String(), DryRun: f.dryRun, Actions: []actionLine{}, name: a.name(m.ID()), place: to.place}
	if result.Unlisted, err = unlisted(ctx, snap, to.selected); err != nil {
		return err
	}
	if f.dryRun || f.showIt {
		options.OnAction = func(done restorer.Action) {
			if a.flags.json {
				result.Actions = append(result.Actions, actionLine{done.Operation, done.Path, to.of(done.Path), done.Bytes})
				return
			}
			meter.Clear()
			fmt.Fprintf(a.stdio.Out, "%-8s %s\n", done.Operation, printable(to.of(done.Path)))
		}
	}
	began := a.now()
	err = meter.Run("restore "+m.Source, func() error {
		var err error
		options.Temp = a.tempPath()
		result.Result, err = restorer.Restore(ctx, a.withoutIdentity(snap, to, own), options, meter)
		return err
	})
	result.Seconds = a.now().Sub(began).Seconds()
	if len(options.Select) == 0 && !f.dryRun && ctx.Err() == nil {
		a.measure(repo, m, began, result.Result, err)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", a.name(m.ID()), err)
	}
	return a.printRestore(result)
}

// openJudged opens the content of a snapshot while it looks up what a person should know before restoring it: to a store
// that is far away both take several round trips.
func (a *app) openJudged(ctx context.Context, repo *repository.Repository, m *repository.Stored) (*repository.Snapshot, error) {
	var snap *repository.Snapshot
	var fault error
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		if snap, fault = openContent(ctx, repo, m); fault == nil {
			_, _ = snap.Root(ctx) // kept; who needs it meets the error
		}
	}()
	err := a.judge(ctx, repo, m)
	<-opened
	if err != nil {
		return nil, err
	}
	return snap, fault
}

// measure notes how long a restore of a whole source took, for the objective of its time. A restore that found
// everything in place already measures nothing.
func (a *app) measure(repo *repository.Repository, m *repository.Stored, began time.Time, r *restorer.Result, err error) {
	done := compliance.Restore{Time: began.UTC(), Took: a.now().Sub(began), Bytes: int64(min(m.Counts.Bytes, 1<<62))}
	switch {
	case err != nil:
		done.Failed = err.Error()
	case r.Failed > 0:
		done.Failed = count(r.Failed, "thing", "things") + " could not be restored"
	case r.Written < r.Bytes/2:
		return
	}
	if err := state.Open(a.statePath(), repo.ID()).SetLastRestore(m.ID().Source, done); err != nil {
		a.warn("%v", err)
	}
}
