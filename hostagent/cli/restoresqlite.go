package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/proof"
	sqliteproof "github.com/btcdecoded/holdfast/hostagent/proof/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// latest is what --at takes for the newest state.
const latest = "latest"

// databaseRestore is one restore of a database on its way.
type databaseRestore struct {
	app    *app
	flags  restoreFlags
	repo   *repository.Repository
	want   recovery.Selector
	src    snapshot.Source
	policy *policy.Source // nil: the source is not in the policy
	moment *moment
	report *proof.Report
}

// restoreDatabase restores a source of kind sqlite.
func (a *app) restoreDatabase(ctx context.Context, repo *repository.Repository, m *repository.Stored, f restoreFlags, args []string) error {
	r := &databaseRestore{app: a, flags: f, repo: repo, src: m.ID().Source}
	if err := r.wanted(args[0]); err != nil {
		return err
	}
	var err error
	if r.policy, err = a.policySource(r.src); err != nil {
		return err
	}
	if r.policy != nil && r.policy.SQLite == nil {
		r.policy = nil
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	for _, w := range r.moment.chosen.Warnings {
		a.warn("%s: %s", r.src.Name, w)
	}
	source, err := r.moment.open(ctx)
	if err != nil {
		return err
	}
	if err := checkDatabasePaths(args[1:], source.Entry.Path); err != nil {
		return err
	}
	target, err := r.target(source.Entry.Path)
	if err != nil {
		return err
	}
	result := databaseRestored{moment: r.moment, Target: target, DryRun: f.dryRun, InPlace: f.inPlace, name: a.name(r.moment.base.ID()), expected: source.Entry.Size}
	if f.dryRun {
		return a.printDatabase(result)
	}
	options, err := r.options()
	if err != nil {
		return err
	}
	began := a.now()
	meter := a.meter()
	options.Progress = meter
	options.Began = meter.Current
	err = meter.Run("restore "+r.src.Name, func() (err error) {
		if f.inPlace {
			result.Result, err = sqlite.InPlace(ctx, target, r.opener(), options)
		} else {
			result.Result, err = sqlite.ToFile(ctx, target, r.opener(), options)
		}
		return err
	})
	result.moment, result.report, result.name = r.moment, r.report, a.name(r.moment.base.ID()) // the newest one was chosen again
	result.Seconds = a.now().Sub(began).Seconds()
	if ctx.Err() == nil {
		a.measured(repo, r.src, began, result.bytes(), err, sqlite.StepBuild, sqlite.StepProve)
	}
	if err != nil {
		a.details(r.report, err)
		return r.explain(err)
	}
	return a.printDatabase(result)
}

// wanted reads which state is wanted.
func (r *databaseRestore) wanted(arg string) error {
	f := r.flags
	switch {
	case f.remove, len(f.keep) > 0, f.compare, f.byName, f.showIt, len(f.maps) > 0:
		return hinted{usagef("restore %s: --delete, --keep, --verify, --owners-by-name, --list and --map are for files", r.src.Name), "a database is restored as a whole: --to FILE or --in-place"}
	case f.force && !f.inPlace:
		return usagef("restore: --force belongs to --in-place")
	}
	sel, err := selector(arg)
	if err != nil {
		return err
	}
	r.want.Sequence = sel.Sequence
	if f.at != "" {
		r.want.At, err = parseTime(f.at, r.app.now())
		r.app.warnFuture(r.want.At, "state")
	}
	return err
}

// choose finds the state that is wanted among what is there by now.
func (r *databaseRestore) choose(ctx context.Context) error {
	all, err := r.app.readMoments(ctx, r.repo, r.src)
	if err != nil {
		return err
	}
	r.moment, err = all.choose(ctx, r.want)
	return err
}

// newest reports whether the newest state is wanted, whatever that is by now.
func (r *databaseRestore) newest() bool { return r.want == recovery.Selector{} }

// opener opens the chosen state. The newest one is chosen once more in a restore in place: the application is stopped by
// then, and what it committed last is asked for.
func (r *databaseRestore) opener() sqlite.Opener {
	return func(ctx context.Context) (*sqlite.Source, error) {
		if r.flags.inPlace && r.newest() {
			r.complete(ctx)
			if err := r.choose(ctx); err != nil {
				return nil, err
			}
		}
		return r.moment.open(ctx)
	}
}

// checkDatabasePaths refuses paths that are not that of the database.
func checkDatabasePaths(paths []string, only string) error {
	for _, p := range paths {
		if path.Clean(p) != only {
			return hinted{usagef("restore: %s is not in the snapshot", printable(p)), "a database is restored as a whole: leave the PATH out"}
		}
	}
	return nil
}

// target is the file to write. A directory gets the database under its own name.
func (r *databaseRestore) target(original string) (string, error) {
	if r.flags.inPlace {
		if r.policy != nil && r.policy.SQLite.Path != "" && r.policy.SQLite.Path != original {
			r.app.warn("the policy has the database at %s, the snapshot at %s: it goes to where the policy has it", printable(r.policy.SQLite.Path), printable(original))
			return r.policy.SQLite.Path, nil
		}
		return original, nil
	}
	to, err := filepath.Abs(r.flags.to)
	if err != nil {
		return "", fmt.Errorf("restore to %s: %w", r.flags.to, err)
	}
	if st, err := os.Stat(to); strings.HasSuffix(r.flags.to, "/") || err == nil && st.IsDir() {
		to = filepath.Join(to, filepath.Base(original))
	}
	return to, nil
}

// options are those of the restorer.
func (r *databaseRestore) options() (sqlite.Options, error) {
	o := sqlite.Options{Now: r.app.now, Force: r.flags.force}
	checks, err := r.checks()
	if err != nil {
		return o, err
	}
	if checks.Integrity != "" || checks.ForeignKeys || len(checks.Checks) > 0 {
		o.Prove = func(ctx context.Context, path string) (err error) {
			r.report, err = sqliteproof.Prove(ctx, path, checks)
			return passes(r.report, err)
		}
	}
	if !r.flags.inPlace {
		return o, nil
	}
	at := ""
	if r.policy != nil {
		at = r.policy.SQLite.Path
	}
	o.Application, err = r.app.application(r.src, r.policy, "HOLDFAST_DATABASE="+at)
	o.StopFirst = r.newest()
	return o, err
}

// checks are what the new database must pass: what --checks says, or the policy.
func (r *databaseRestore) checks() (sqliteproof.Options, error) {
	words := r.flags.checks
	if len(words) == 0 {
		return policyChecks(r.policy), nil
	}
	var o sqliteproof.Options
	if err := checkWords(words, checkIntegrity, checkQuick, checkForeignKeys, checkQueries); err != nil {
		return o, err
	}
	for _, word := range words {
		switch word {
		case checkIntegrity:
			o.Integrity = sqliteproof.IntegrityCheck
		case checkQuick:
			o.Integrity = sqliteproof.QuickCheck
		case checkForeignKeys:
			o.ForeignKeys = true
		case checkQueries:
			o.Checks = policyChecks(r.policy).Checks
		}
	}
	if slices.Contains(words, checkIntegrity) && slices.Contains(words, checkQuick) {
		return o, usagef("restore: --checks: integrity looks at all that quick does; name one")
	}
	return o, nil
}

// policyChecks are what a restored copy of a source must pass by the policy; p may be nil.
func policyChecks(p *policy.Source) sqliteproof.Options {
	o := sqliteproof.Options{Integrity: sqliteproof.IntegrityCheck, ForeignKeys: true}
	if p == nil || p.SQLite == nil {
		return o
	}
	if p.SQLite.QuickCheck {
		o.Integrity = sqliteproof.QuickCheck
	}
	if c := p.SQLite.ForeignKeyCheck; c != nil {
		o.ForeignKeys = *c
	}
	o.Checks = p.Checks
	return o
}

// explain adds to an error what its reader can do.
func (r *databaseRestore) explain(err error) error {
	e, err := failure(err)
	if e == nil {
		return err
	}
	name := r.src.Name
	switch {
	case e.Back != nil:
		return hinted{err, fmt.Sprintf("end what has the database open, then restore again in place: that first puts back what is in %s", e.Safety)}
	case !e.Good.IsZero():
		return hinted{err, hintGood(name, e.Good)}
	case errors.Is(err, sqlite.ErrExists):
		return hinted{err, "name a file that is not there; --in-place restores over the original"}
	case errors.Is(err, sqlite.ErrFull):
		return hinted{err, "make room there, or restore with --to FILE to another file system"}
	case errors.Is(err, sqlite.ErrInUse):
		return hinted{err, "the stop hook of the policy ends what has it open; --force goes on all the same, and whoever has it open then keeps what was there before"}
	case errors.Is(err, sqlite.ErrMoved):
		return hinted{err, hintMoved}
	case errors.Is(err, errProof):
		return hinted{err, hintProof(name)}
	}
	return err
}
