package cli

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// restoreFlags are the flags of restore.
type restoreFlags struct {
	to, at                                           string
	maps, keep                                       []string
	inPlace, remove, dryRun, compare, byName, showIt bool
	force, globals, noOwner                          bool
	checks, tables, schemas                          []string
	toDatabase, service                              string
	jobs                                             int
	clusterFlags
}

// fits refuses flags that are for snapshots of other kinds.
func (f restoreFlags) fits(name string, m *snapshot.Manifest) error {
	server := f.toDatabase != "" || isDump(m) && f.inPlace // databases are restored into a server
	switch {
	case f.clusterFlags.set() && m.Postgres == nil:
		return usagef("restore %s: --lsn, --xid, --name, --timeline, --exclusive, --pause, --tablespace-mapping and --setting are for PostgreSQL clusters (mode physical)", name)
	case f.dumpsOnly() && (!server || m.Kind != policy.KindPostgres):
		return usagef("restore %s: --to-database, --table, --schema, --service, --globals, --no-owner and --jobs restore PostgreSQL databases into a server", name)
	case m.Kind != policy.KindFiles && m.Kind != policy.KindSQLite && m.Kind != policy.KindPostgres:
		return fmt.Errorf("restore %s: snapshots of kind %s can not be restored by this version", name, m.Kind)
	case (len(f.checks) > 0 || f.force) && (m.Kind == policy.KindFiles || isDump(m) && !server):
		return usagef("restore %s: --checks and --force are for databases", name)
	}
	return nil
}

// restoreOf is what restores databases; nil: the snapshot is restored as files.
func (a *app) restoreOf(m *snapshot.Manifest, f restoreFlags) func(context.Context, *repository.Repository, *repository.Stored, restoreFlags, []string) error {
	switch {
	case m.Kind == policy.KindSQLite:
		return a.restoreDatabase
	case isDump(m) && (f.inPlace || f.toDatabase != ""):
		return a.restoreDumps
	case m.Postgres != nil && f.toDatabase != "":
		return a.restoreOut
	case m.Postgres != nil:
		return a.restoreCluster
	}
	return nil
}

// dumpsOnly reports whether there are flags that only dumps of databases know.
func (f restoreFlags) dumpsOnly() bool {
	return f.toDatabase != "" || f.service != "" || f.globals || f.noOwner || f.jobs != 0 || len(f.tables)+len(f.schemas) > 0
}

func relativePath(p string) error {
	return hinted{usagef("restore: path %q is not absolute", p), "paths are those of the snapshot, as `holdfast ls` shows them"}
}

// options are what the flags say, as far as they need no repository.
func (f restoreFlags) options(paths []string) (restorer.Options, error) {
	o := restorer.Options{Delete: f.remove, DryRun: f.dryRun, Verify: f.compare, ByName: f.byName}
	if err := f.where(); err != nil {
		return o, err
	}
	for _, p := range paths {
		if !path.IsAbs(p) {
			if f.toDatabase != "" || f.inPlace {
				continue // it may be the name of a database
			}
			return o, relativePath(p)
		}
		o.Select = append(o.Select, path.Clean(p))
	}
	var err error
	if f.to != "" {
		if o.Target, err = filepath.Abs(f.to); err != nil {
			return o, fmt.Errorf("restore to %s: %w", f.to, err)
		}
	}
	for _, m := range f.maps {
		from, to, ok := strings.Cut(m, "=")
		if !ok || !path.IsAbs(from) || to == "" {
			return o, usagef("restore: --map %q: want PATH=DIR", m)
		}
		if to, err = filepath.Abs(to); err != nil {
			return o, fmt.Errorf("restore to %s: %w", to, err)
		}
		if o.Map == nil {
			o.Map = map[string]string{}
		}
		o.Map[path.Clean(from)] = to
	}
	return o, nil
}

// where checks that exactly one place is named.
func (f restoreFlags) where() error {
	switch {
	case f.to != "" && f.inPlace:
		return usagef("restore: --to and --in-place exclude each other")
	case f.toDatabase != "" && (f.to != "" || f.inPlace):
		return usagef("restore: --to-database excludes --to and --in-place")
	case f.to == "" && !f.inPlace && len(f.maps) == 0 && f.toDatabase == "":
		return hinted{usagef("restore: where to?"), "--to DIR restores to another place, --in-place over the original"}
	case len(f.keep) > 0 && !f.remove:
		return usagef("restore: --keep belongs to --delete")
	}
	return nil
}
