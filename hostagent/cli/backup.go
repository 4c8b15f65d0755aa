package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/source/files"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/dump"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const backupLong = `Back up sources of the policy (all of this host's without arguments), or the directory trees named by --files, the
SQLite database named by --sqlite, or the PostgreSQL cluster named by --postgres.

A full backup reads everything and shares nothing with earlier snapshots. A differential stores what is new since the
last full, an incremental what is new since the last snapshot; every snapshot is complete by itself. auto, the default,
makes an incremental where it can and a full where it must.

A run that was interrupted is taken up by the next: what had arrived is used again. A run that takes longer than a day
(--checkpoint) commits what it has on the way as unfinished snapshots, and the next goes on from the last of them. A
file that changes, vanishes or can not be read is named, the rest goes on, and the exit code is 3.

A database is captured as of one moment while its application goes on writing. In WAL mode no lock is taken. In other
modes who writes to it may have to wait, at most as long as the policy's max_lock allows, 2 seconds by default.

A PostgreSQL cluster is captured over its replication protocol, with the WAL that it needs, so that the snapshot stands
alone. The role needs REPLICATION. --postgres takes a service of pg_service.conf or a connection string; passwords belong
into .pgpass or the service file. Pages whose checksum is wrong are named, and the exit code is 3.

With --logical, or by the policy, its databases are dumped by pg_dump instead, each as of one moment; what has not changed since
the dump before is not stored again. The role needs pg_read_all_data. A dump counts when pg_dump has said that it is complete
and pg_restore has listed what the repository gives back of it.

Patterns of --exclude are as in .gitignore: "*.log" fits anywhere, "/var/cache/" is one directory, "**" stands for any
number of directories. --include takes back what an exclude left out.

Repositories on this host, the state directory and the identity file are left out by themselves. Copies that the policy
names are brought up to date after a backup of its sources.`

const backupExample = `  holdfast backup --files /etc --name etc
  holdfast backup --files /srv/app --files /opt/app --name app --exclude '*.log' --exclude-caches
  holdfast backup --sqlite /srv/app/app.db --name app-db
  holdfast backup --postgres governance --name governance-db
  holdfast backup --postgres governance --logical --name governance-dump
  holdfast backup                    # all sources of the policy
  holdfast backup etc --type full`

// backupFlags are the flags of backup.
type backupFlags struct {
	roots, excludes, includes, excludeFiles, tags []string
	databases                                     []string
	name, kind, database, cluster                 string
	oneFileSystem, excludeCaches, noCopies        bool
	logical                                       bool
	maxFileSize                                   byteSize
	checkpoint                                    time.Duration
	own                                           []string // patterns of this program's own places
	ownPlaces                                     []string // their paths
}

func (a *app) backupCommand() *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:     "backup [SOURCE...]",
		Short:   "Back up sources of the policy, directory trees or a database",
		Long:    backupLong,
		Example: backupExample,
		GroupID: groupUse,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.backup(cmd.Context(), f, args)
		},
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.StringArrayVar(&f.roots, "files", nil, "a `DIR` (or file) to back up, without a policy (repeatable)")
	p.StringVar(&f.database, "sqlite", "", "an SQLite database, a `FILE`, to back up without a policy")
	p.StringVar(&f.cluster, "postgres", "", "a PostgreSQL cluster, a `SERVICE` or connection string, to back up without a policy")
	p.BoolVar(&f.logical, "logical", false, "with --postgres, dump its databases (pg_dump) instead of the cluster")
	p.StringArrayVar(&f.databases, "database", nil, "with --logical, a `DATABASE` to dump (repeatable; all without)")
	p.StringVar(&f.name, "name", "", "`NAME` of the source, with --files, --sqlite or --postgres")
	p.StringArrayVar(&f.excludes, "exclude", nil, "leave out what fits the `PATTERN` (repeatable)")
	p.StringArrayVar(&f.includes, "include", nil, "take back what fits the `PATTERN` (repeatable)")
	p.StringArrayVar(&f.excludeFiles, "exclude-file", nil, "`FILE` with patterns, one a line (repeatable)")
	p.BoolVar(&f.oneFileSystem, "one-file-system", false, "do not enter other file systems")
	p.BoolVar(&f.excludeCaches, "exclude-caches", false, "leave out directories with a CACHEDIR.TAG")
	p.Var(&f.maxFileSize, "max-file-size", "leave out files over this `SIZE`")
	p.StringVar(&f.kind, "type", "auto", "`TYPE` of the snapshot: full, differential, incremental or auto")
	p.StringArrayVar(&f.tags, "tag", nil, "a `TAG` for the snapshot (repeatable)")
	p.Var(span(&f.checkpoint, repository.CheckpointInterval), "checkpoint", "commit what a long run has after each `TIME`; 0: only in the end")
	p.BoolVar(&f.noCopies, "no-copies", false, "do not bring the policy's copies up to date")
	return cmd
}

// job is one source to back up.
type job struct {
	source  snapshot.Source
	options files.Options
	left    []snapshot.Problem // what the snapshot's report says was left out
	sqlite  *sqlite.Options    // instead of options
	cluster *pgsource.Options  // instead of options
	dump    *dump.Options      // instead of options
	follow  logTail            // of the follower of the database; nil: nobody follows it here
	hooks   policy.Hooks

	followWAL  walTail       // of who follows the cluster; nil: nobody does
	checkpoint time.Duration // 0: never
}

func (a *app) backup(ctx context.Context, f backupFlags, args []string) error {
	kind, err := parseType(f.kind)
	if err != nil {
		return err
	}
	if f.checkpoint < 0 {
		return usagef("backup: --checkpoint %s: want 0 or more", f.checkpoint)
	}
	if err := checkTags(f.tags); err != nil {
		return err
	}
	if f.own, f.ownPlaces, err = a.ownPatterns(); err != nil {
		return err
	}
	var pol *policy.Policy
	var jobs []job
	var refused []error
	if f.adHoc() {
		jobs, err = a.adHocJob(f, args)
	} else {
		jobs, refused, pol, err = a.policyJobs(f, args)
	}
	if err != nil {
		return err
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	results := []backupResult{}
	errs := refused
	for _, j := range jobs {
		j.checkpoint = f.checkpoint
		result, err := a.backupOne(ctx, repo, j, kind, f.tags)
		if result != nil {
			results = append(results, *result)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("back up %s: %w", j.source, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	copies := []copyResult{}
	if pol != nil && !f.noCopies && ctx.Err() == nil {
		var cerrs []error
		copies, cerrs = a.runCopies(ctx, repo, pol.Repository.Copies, jobs)
		errs = append(errs, cerrs...)
	}
	if err := a.printBackups(results, copies); err != nil {
		return err
	}
	return backupOutcome(results, errs)
}

func parseType(s string) (snapshot.SnapshotType, error) {
	switch t := snapshot.SnapshotType(s); t {
	case snapshot.Full, snapshot.Differential, snapshot.Incremental:
		return t, nil
	case "auto", "":
		return "", nil
	}
	return "", usagef("type %q: want full, differential, incremental or auto", s)
}

// checkTags refuses tags that no snapshot can have, before anything is read.
func checkTags(tags []string) error {
	for i, tag := range tags {
		switch {
		case tag == "" || len(tag) > maxTag || !utf8.ValidString(tag):
			return usagef("tag %q: want 1 to %d bytes of UTF-8", tag, maxTag)
		case strings.ContainsFunc(tag, func(r rune) bool { return !unicode.IsPrint(r) }):
			return usagef("tag %q: has a character that can not be shown", tag)
		case slices.Contains(tags[:i], tag):
			return usagef("tag %q comes twice", tag)
		}
	}
	return nil
}

// maxTag is how long a tag can be by the format.
const maxTag = 256

// backupOutcome joins how the runs ended. An error of one source wins over files that another has left out.
func backupOutcome(results []backupResult, errs []error) error {
	if len(errs) > 0 {
		return together(errs...)
	}
	code := exitOK
	for _, r := range results {
		switch {
		case r.Rollback:
			return outcome(exitDamaged)
		case r.Partial:
			code = exitPartial
		}
	}
	if code != exitOK {
		return outcome(code)
	}
	return nil
}

// adHocJob is the source that the flags describe.
func (a *app) adHocJob(f backupFlags, args []string) ([]job, error) {
	switch {
	case len(args) > 0:
		return nil, usagef("backup: --files, --sqlite, --postgres and --name describe a source by themselves; drop %q", args[0])
	case len(f.named()) > 1:
		return nil, hinted{usagef("backup: %s are several sources", strings.Join(f.named(), " and ")), "run backup for each, with a name of its own"}
	case f.logical && f.cluster == "", len(f.databases) > 0 && !f.logical:
		return nil, usagef("backup: --database belongs to --logical, and that to --postgres")
	case len(f.named()) == 0:
		return nil, usagef("backup: --name needs --files, --sqlite or --postgres")
	case f.name == "":
		return nil, hinted{usagef("backup: %s needs --name", f.named()[0]), "the source's name stays the same in all its snapshots, such as --name etc"}
	}
	host, err := a.host()
	if err != nil {
		return nil, err
	}
	src := snapshot.Source{Host: host, Name: f.name}
	if err := src.Check(); err != nil {
		return nil, usageError{err}
	}
	switch {
	case f.database != "":
		return f.databaseJob(src)
	case f.cluster != "" && f.logical:
		return f.dumpJob(src)
	case f.cluster != "":
		return f.clusterJob(src)
	}
	if err := refuseOwn(f.roots, f.ownPlaces); err != nil {
		return nil, err
	}
	options, patterns, err := f.options(nil)
	if err != nil {
		return nil, err
	}
	for _, root := range f.roots {
		abs, err := filepath.Abs(root)
		if err != nil {
			return nil, fmt.Errorf("root %s: %w", root, err)
		}
		if _, err := os.Lstat(abs); err != nil {
			return nil, fmt.Errorf("back up %s: %w", src, err)
		}
		options.Roots = append(options.Roots, abs)
	}
	return []job{{source: src, options: options, left: leftOut(&options, patterns)}}, nil
}

// adHoc reports whether flags describe a source that no policy need have.
func (f backupFlags) adHoc() bool {
	return len(f.named()) > 0 || f.name != "" || f.logical || len(f.databases) > 0
}

// named are the flags that name what is to be backed up.
func (f backupFlags) named() (flags []string) {
	if len(f.roots) > 0 {
		flags = append(flags, "--files")
	}
	if f.database != "" {
		flags = append(flags, "--sqlite")
	}
	if f.cluster != "" {
		flags = append(flags, "--postgres")
	}
	return flags
}

// selects reports whether flags choose files.
func (f backupFlags) selects() bool {
	return len(f.excludes)+len(f.includes)+len(f.excludeFiles) > 0 || f.oneFileSystem || f.excludeCaches || f.maxFileSize > 0
}

// options are the options of the flags, after those of the policy's source, and the patterns that both name.
func (f backupFlags) options(p *policy.Files) (o files.Options, lines []string, err error) {
	if p != nil {
		if err := refuseOwn(p.Roots, f.ownPlaces); err != nil {
			return o, nil, err
		}
		o = files.Options{Roots: p.Roots, OneFileSystem: p.OneFileSystem, CacheDirTag: p.ExcludeCaches, MaxFileSize: uint64(p.MaxFileSize)}
		lines = append(lines, p.Exclude...)
		lines = append(lines, taken(p.Include)...)
	}
	for _, name := range f.excludeFiles {
		b, err := readLimited(name, 16<<20)
		if err != nil {
			return o, nil, fmt.Errorf("read patterns: %w", err)
		}
		lines = append(lines, strings.Split(string(b), "\n")...)
	}
	lines = append(append(lines, f.excludes...), taken(f.includes)...)
	o.Patterns, err = files.ParsePatterns(append(slices.Clone(lines), f.own...))
	if err != nil {
		return o, nil, usageError{err}
	}
	o.OneFileSystem = o.OneFileSystem || f.oneFileSystem
	o.CacheDirTag = o.CacheDirTag || f.excludeCaches
	if f.maxFileSize > 0 {
		o.MaxFileSize = uint64(f.maxFileSize)
	}
	return o, lines, nil
}

// ownPatterns leave out what must not back itself up: repositories on this host, which would grow by themselves with
// each run, the state directory, which has keys of chains and nothing that can't be lost, and the identity, which opens
// everything: a snapshot has a secret in it that whoever may see it must not learn, and a restore would put back an old one.
//
// places are those of the directories: that a root is the identity is found, and told, by [app.refuseIdentity].
func (a *app) ownPatterns() (patterns, places []string, err error) {
	address, err := a.address()
	if err != nil {
		return nil, nil, err
	}
	all := []string{a.identityPath(), a.hostIdentityPath(), a.statePath()}
	const identities = 2
	p, err := a.loadPolicy()
	if err != nil {
		return nil, nil, err
	}
	addresses := []string{address}
	if p != nil {
		addresses = append(addresses, p.Repository.Copies...)
	}
	for _, address := range addresses {
		if dir, ok := localPath(address); ok {
			all = append(all, dir)
		}
	}
	for i, place := range all {
		abs, err := filepath.Abs(place)
		if err != nil {
			return nil, nil, fmt.Errorf("find %s: %w", place, err)
		}
		patterns = append(patterns, literal(abs))
		if i >= identities {
			places = append(places, realPath(abs))
		}
		// The walk meets it under its real name.
		if real, err := filepath.EvalSymlinks(abs); err == nil && real != abs {
			patterns = append(patterns, literal(real))
		}
	}
	return patterns, places, nil
}

// errOwnPlace says that a backup was asked for what belongs to this program.
var errOwnPlace = errors.New("it belongs to holdfast itself and would be in its own backups")

// refuseOwn refuses roots that are, or lie in, one of this program's own places: patterns leave out what is met on the
// way, never what was asked for.
func refuseOwn(roots, own []string) error {
	for _, root := range roots {
		abs, err := filepath.Abs(root)
		if err != nil {
			return fmt.Errorf("find %s: %w", root, err)
		}
		for _, place := range own {
			if snapshot.Within(place, realPath(abs)) {
				return hinted{
					usageError{fmt.Errorf("back up %s: %w: %s", root, errOwnPlace, place)},
					"leave it out; copies of a repository are made by `holdfast copy`",
				}
			}
		}
	}
	return nil
}

// literal is a pattern for exactly one path.
func literal(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if strings.IndexByte(`\*?[]!# `, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// taken makes patterns of includes: they take back what an earlier pattern leaves out.
func taken(includes []string) []string {
	out := make([]string, 0, len(includes))
	for _, p := range includes {
		out = append(out, "!"+p)
	}
	return out
}

func (a *app) printBackups(results []backupResult, copies []copyResult) error {
	doc := struct {
		Backups []backupResult `json:"backups"`
		Copies  []copyResult   `json:"copies,omitempty"`
	}{results, copies}
	if a.flags.quiet && !a.flags.json {
		for _, r := range results {
			if r.Partial {
				r.write(a.stdio.Err)
			}
		}
		for _, c := range copies {
			c.writeFindings(a.stdio.Err)
		}
	}
	return a.print(doc, func(w io.Writer) {
		for _, r := range results {
			r.write(w)
		}
		for _, c := range copies {
			c.write(w)
		}
	})
}

// isRollback reports whether a warning of a session is one.
func isRollback(err error) bool {
	var r *repository.RollbackError
	return errors.As(err, &r)
}
