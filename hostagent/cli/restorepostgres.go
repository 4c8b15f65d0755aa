package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/pflag"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/progress"
	"github.com/btcdecoded/holdfast/hostagent/proof"
	pgproof "github.com/btcdecoded/holdfast/hostagent/proof/postgres"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// clusterHelp is the part of restore's help about clusters.
const clusterHelp = `A source of kind postgres, mode physical, is restored to any point of its log: the newest, a time (--at), an --lsn, the end of a
transaction (--xid), a restore point (--name), on the --timeline that counts or another. --exclusive ends right
before the target. What is wanted is checked against what is stored before anything is touched. @N alone is that snapshot
as it is.

The data directory is laid out, a server of the cluster's version recovers on it, alone, reached by a private socket, and is
promoted only when it is proven that the target was reached. --to DIR ends with a data directory that is stopped and ready to
be started where you want it; DIR must be empty or not there. With --pause the server stays, paused at the target, so that
you can look. Tablespaces go to where they were; --tablespace-mapping OLD=NEW sends one to another place.

In place, the new cluster is made beside the old data directory and proven; then the policy's stop hook runs, the two are
exchanged in one step, the start hook runs, and the health hook tells whether all is well. What was there stays as a safety
copy, and goes back where anything fails.`

// clusterFlags are the flags of restore that are for clusters alone.
type clusterFlags struct {
	lsn, xid, point, bin string
	timeline             uint32
	exclusive, pause     bool
	spaces, settings     []string
}

func (f *clusterFlags) register(p *pflag.FlagSet) {
	p.StringVar(&f.lsn, "lsn", "", "a cluster's state at an `LSN`, such as 16/B374D848")
	p.StringVar(&f.xid, "xid", "", "a cluster's state after transaction `N`")
	p.StringVar(&f.point, "name", "", "a cluster's state at the restore point `NAME`")
	p.Uint32Var(&f.timeline, "timeline", 0, "along timeline `N` of a cluster (default: the one that counts)")
	p.BoolVar(&f.exclusive, "exclusive", false, "right before the target, not right after")
	p.BoolVar(&f.pause, "pause", false, "leave a cluster's server running, paused at the target")
	p.StringArrayVar(&f.spaces, "tablespace-mapping", nil, "send the tablespace at OLD to NEW: `OLD=NEW` (repeatable)")
	p.StringArrayVar(&f.settings, "setting", nil, "a setting of the server while it recovers: `NAME=VALUE` (repeatable)")
	p.StringVar(&f.bin, "bin", "", "`DIR` with PostgreSQL's programs (default: as the policy says, or looked for)")
}

// set reports whether any is given.
func (f *clusterFlags) set() bool {
	return f.lsn != "" || f.xid != "" || f.point != "" || f.timeline != 0 || f.exclusive || f.pause || len(f.spaces) > 0 || len(f.settings) > 0
}

// clusterRestore is one restore of a cluster on its way.
type clusterRestore struct {
	app    *app
	flags  restoreFlags
	repo   *repository.Repository
	src    snapshot.Source
	policy *policy.Source // nil: the source is not in the policy
	want   clusterWant
	moment *clusterMoment
	report *proof.Report

	located bool // the target was found in the log
}

// restoreCluster restores a physical source of kind postgres.
func (a *app) restoreCluster(ctx context.Context, repo *repository.Repository, m *repository.Stored, f restoreFlags, args []string) error {
	r := &clusterRestore{app: a, flags: f, repo: repo, src: m.ID().Source}
	if err := r.wanted(args[0]); err != nil {
		return err
	}
	var err error
	if r.policy, err = a.policySource(r.src); err != nil {
		return err
	}
	if r.policy != nil && r.policy.Postgres == nil {
		r.policy = nil
	}
	source, err := r.open(ctx)
	if err != nil {
		return err
	}
	for _, w := range r.moment.chosen.Warnings {
		a.warn("%s: %s", r.src.Name, w)
	}
	if err := checkDatabasePaths(args[1:], source.Root); err != nil {
		return err
	}
	target, err := r.target(source.Root)
	if err != nil {
		return err
	}
	result := clusterRestored{clusterRestore: r, Target: target}
	if f.dryRun {
		return a.printCluster(result)
	}
	options, err := r.options(target)
	if err != nil {
		return err
	}
	began := a.now()
	meter := a.meter()
	options.Progress, options.Phase, options.Began = meter, meter.Phase, phases(meter)
	err = meter.Run("restore "+r.src.Name, func() (err error) {
		if f.inPlace {
			release, herr := r.hold(&options)
			defer release()
			if herr != nil {
				return herr
			}
			result.Result, err = postgres.InPlace(ctx, target, r.open, options)
		} else {
			result.Result, err = postgres.ToDir(ctx, target, r.open, options)
		}
		return err
	})
	result.Seconds = a.now().Sub(began).Seconds()
	if ctx.Err() == nil {
		a.measured(repo, r.src, began, result.bytes(), err, postgres.StepLayOut, postgres.StepRecover, postgres.StepPromote, postgres.StepProve)
	}
	if err != nil {
		a.details(r.report, err)
		return r.explain(err)
	}
	return a.printCluster(result)
}

// phases lets a meter say which step is done, but for that whose files and bytes it counts.
func phases(meter *progress.Meter) func(step string) {
	return func(step string) {
		if step == postgres.StepLayOut {
			step = ""
		}
		meter.Phase(step)
	}
}

// wanted reads which state is wanted.
func (r *clusterRestore) wanted(arg string) error {
	f := r.flags
	if f.remove || len(f.keep) > 0 || f.compare || f.byName || f.showIt || len(f.maps) > 0 || f.force {
		return hinted{
			usagef("restore %s: --delete, --keep, --verify, --owners-by-name, --list, --map and --force are not for PostgreSQL clusters", r.src.Name),
			"a cluster is restored as a whole: --to DIR or --in-place",
		}
	}
	if f.pause && f.inPlace {
		return hinted{usagef("restore: --pause goes with --to"), "look at it beside first, then restore in place"}
	}
	sel, err := selector(arg)
	if err != nil {
		return err
	}
	r.want = clusterWant{sequence: sel.Sequence, timeline: f.timeline}
	if r.want.target, err = f.clusterTarget(r.app); err != nil {
		return err
	}
	if r.want.target.Kind == postgres.Latest && sel.Sequence != 0 && f.at == "" {
		r.want.alone, r.want.target.Kind = true, postgres.Base
	}
	if f.exclusive && (r.want.target.Kind == postgres.Latest || r.want.target.Kind == postgres.Base || r.want.target.Kind == postgres.Name) {
		return usagef("restore: --exclusive goes with --at TIME, --lsn or --xid")
	}
	return r.want.target.Check()
}

// clusterTarget is what the flags say.
func (f restoreFlags) clusterTarget(a *app) (postgres.Target, error) {
	t := postgres.Target{Kind: postgres.Latest, Exclusive: f.exclusive}
	given := 0
	for _, v := range []string{f.at, f.lsn, f.xid, f.point} {
		if v != "" {
			given++
		}
	}
	if given > 1 {
		return t, usagef("restore: --at, --lsn, --xid and --name exclude each other")
	}
	var err error
	switch {
	case f.at != "":
		t.Kind = postgres.Time
		t.Time, err = parseTime(f.at, a.now())
	case f.lsn != "":
		t.Kind = postgres.LSN
		if t.LSN, err = pg.ParseLSN(f.lsn); err != nil {
			err = usagef("restore: --lsn %s: want two hexadecimal numbers as 16/B374D848", f.lsn)
		}
	case f.xid != "":
		t.Kind = postgres.XID
		if t.XID, err = strconv.ParseUint(f.xid, 10, 64); err != nil {
			err = usagef("restore: --xid %s: want a number", f.xid)
		}
	case f.point != "":
		t.Kind, t.Name = postgres.Name, f.point
	}
	return t, err
}

// open chooses and opens the state that is wanted, among what is there by now.
func (r *clusterRestore) open(ctx context.Context) (*postgres.Source, error) {
	all, err := r.app.readMoments(ctx, r.repo, r.src)
	if err != nil {
		return nil, err
	}
	if r.moment, err = all.chooseCluster(ctx, r.want); err != nil {
		return nil, err
	}
	src, err := r.moment.open(ctx, r.app)
	if err != nil {
		return nil, err
	}
	// The newest snapshot may have no log yet, and an older one lead to what is looked for.
	elsewhere := src.Log == nil && r.want.sequence == 0 && (r.want.target.Kind == postgres.XID || r.want.target.Kind == postgres.Name)
	if err := src.Fits(r.want.target); err != nil && !elsewhere {
		return nil, err
	}
	return r.locate(ctx, all, src)
}

// target is the data directory to make.
func (r *clusterRestore) target(original string) (string, error) {
	if r.flags.inPlace {
		if original == pgsource.HiddenRoot {
			return "", hinted{
				fmt.Errorf("restore %s in place: the snapshot does not say where the data directory is", r.src.Name),
				"the role that made the backup may not see it (GRANT pg_read_all_settings); --to DIR restores beside it",
			}
		}
		return original, nil
	}
	to, err := filepath.Abs(r.flags.to)
	if err != nil {
		return "", fmt.Errorf("restore to %s: %w", r.flags.to, err)
	}
	return to, nil
}

// options are those of the restorer.
func (r *clusterRestore) options(target string) (postgres.Options, error) {
	o := postgres.Options{Target: r.want.target, Pause: r.flags.pause, Temp: r.app.tempPath(), Now: r.app.now, Tablespaces: map[string]string{}}
	o.Note = func(text string) { r.app.note("%s", text) }
	r.app.serverOptions(&o, r.flags.bin, r.policy)
	r.told(&o)
	for _, m := range r.flags.spaces {
		from, to, ok := strings.Cut(m, "=")
		if !ok || !path.IsAbs(from) || !path.IsAbs(to) {
			return o, usagef("restore: --tablespace-mapping %q: want OLD=NEW, both absolute", m)
		}
		o.Tablespaces[path.Clean(from)] = path.Clean(to)
	}
	for _, s := range r.flags.settings {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return o, usagef("restore: --setting %q: want NAME=VALUE", s)
		}
		o.Settings = append(o.Settings, pgserver.Setting{Name: name, Value: value})
	}
	var err error
	if o.Fetch, err = fetchCommand(); err != nil {
		return o, err
	}
	checks, err := r.checks()
	if err != nil {
		return o, err
	}
	if checks.Amcheck || len(checks.Checks) > 0 {
		o.Prove = func(ctx context.Context, s *pgserver.Server) (err error) {
			r.report, err = r.app.proveCluster(ctx, s, checks, r.policy)
			return passes(r.report, err)
		}
	}
	if !r.flags.inPlace {
		return o, nil
	}
	o.Application, err = r.app.application(r.src, r.policy, "HOLDFAST_DATA_DIRECTORY="+target)
	o.StopFirst = r.want.target.Kind == postgres.Latest
	return o, err
}

// serverOptions says which programs are used, and as whom they run.
func (a *app) serverOptions(o *postgres.Options, bin string, p *policy.Source) {
	if p != nil && p.Postgres != nil {
		if bin == "" {
			bin = p.Postgres.Bin
		}
		o.RunAs = p.Postgres.RunAs
		if libraries := p.Postgres.Preload; len(libraries) > 0 {
			o.Settings = append(o.Settings, pgserver.Setting{Name: "shared_preload_libraries", Value: strings.Join(libraries, ", ")})
		}
	}
	o.Program = func(ctx context.Context, major int) (string, error) {
		program, err := pgbin.Server(ctx, bin, "postgres", major)
		return program.Path, err
	}
}

// fetchCommand is what restore_command runs.
func fetchCommand() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{self, walFetchName, "--plan"}, nil
}

// checks are what the new cluster must pass: what --checks says, or the policy's queries.
func (r *clusterRestore) checks() (pgproof.Options, error) {
	o := pgproof.Options{}
	words := r.flags.checks
	if len(words) == 0 {
		words = []string{checkQueries}
	}
	if err := checkWords(words, checkQueries, checkAmcheck); err != nil {
		return o, err
	}
	for _, word := range words {
		switch word {
		case checkQueries:
			if r.policy != nil {
				o.Checks = r.policy.Checks
			}
		case checkAmcheck:
			if r.flags.pause {
				return o, usagef("restore: --checks amcheck needs a server that was promoted: it goes without --pause")
			}
			o.Amcheck = true
		}
	}
	return o, nil
}

// proveCluster looks at a restored cluster.
func (a *app) proveCluster(ctx context.Context, s *pgserver.Server, o pgproof.Options, p *policy.Source) (*proof.Report, error) {
	o.Connect = func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return s.Connect(ctx, database, "")
	}
	if p != nil && p.Postgres != nil && p.Postgres.Service != "" {
		if config, err := pgsource.Config(p.Postgres.Service); err == nil && config.Database != "" && config.Database != config.User {
			o.Database = config.Database
		}
	}
	return pgproof.Prove(ctx, o)
}

// explain adds to an error what its reader can do.
func (r *clusterRestore) explain(err error) error {
	e, err := failure(err)
	if e == nil {
		return err
	}
	name := r.src.Name
	switch {
	case e.Back != nil:
		return hinted{err, fmt.Sprintf("end what uses the data directory, then restore again in place: that first puts back what is in %s", e.Safety)}
	case errors.Is(err, postgres.ErrExists):
		return hinted{err, "name a directory that is empty or not there; --in-place restores over the original"}
	case errors.Is(err, postgres.ErrInUse):
		return hinted{err, "the stop hook of the policy stops the server; or stop it yourself, then restore again"}
	case errors.Is(err, postgres.ErrMoved):
		return hinted{err, hintMoved}
	case errors.Is(err, postgres.ErrRoom), errors.Is(err, postgres.ErrHost):
		return hinted{err, "make room, or restore with --to DIR, and --tablespace-mapping, to another file system"}
	case errors.Is(err, postgres.ErrLibrary):
		return hinted{err, hintLibrary}
	case errors.Is(err, postgres.ErrPreload):
		return hinted{err, "--setting shared_preload_libraries=NAME loads it during the recovery; " + hintPreload}
	case errors.Is(err, errProof):
		return hinted{err, hintProof(name)}
	case !e.Good.IsZero() && e.Good.After(r.moment.base.Finished):
		return hinted{err, hintGood(name, e.Good)}
	case errors.Is(err, postgres.ErrShort) || rottenCluster(err):
		return hinted{err, fmt.Sprintf("`holdfast verify %s` names what is damaged; `holdfast snapshots %s --points` shows what can be had", name, name)}
	}
	return err
}
