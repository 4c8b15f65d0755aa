package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/dump"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// dumpsResult is how databases were dumped.
type dumpsResult struct {
	Server    string       `json:"server"`    // its version
	Program   string       `json:"pg_dump"`   // its version
	Checked   bool         `json:"checked"`   // pg_restore has listed what the repository gives back
	Globals   bool         `json:"globals"`   // roles and tablespaces are in it
	Passwords bool         `json:"passwords"` // with the hashes of passwords
	Databases []dumpedLine `json:"databases"`
}

// dumpedLine is one dump.
type dumpedLine struct {
	Database string    `json:"database"`
	Time     time.Time `json:"time"` // it has what was committed until then
	Bytes    uint64    `json:"bytes"`
	Entries  int       `json:"entries"` // of its table of contents
}

// dumpJob are the databases that the flags name.
func (f backupFlags) dumpJob(src snapshot.Source) ([]job, error) {
	if f.selects() {
		return nil, usagef("backup: patterns and limits are for --files; --database chooses what is dumped")
	}
	if err := pgbin.CheckConnection(f.cluster); err != nil {
		return nil, usageError{err}
	}
	return []job{{source: src, dump: &dump.Options{Connection: f.cluster, Databases: f.databases, Globals: true}}}, nil
}

func dumpOptions(p *policy.Postgres) *dump.Options {
	return &dump.Options{Connection: p.Service, Databases: p.Databases, Globals: p.WithGlobals(), Bin: p.Bin}
}

// connector connects to databases of a server.
func connector(connection string) (func(ctx context.Context, database string) (*pgconn.PgConn, error), error) {
	config, err := pgsource.Config(connection)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return pgsource.SQL(ctx, config, database)
	}, nil
}

// captureDumps dumps databases into the session and commits it.
func (a *app) captureDumps(ctx context.Context, session *repository.Session, j job, tags []string) (*backupResult, error) {
	meter := a.meter()
	options := *j.dump
	var err error
	if options.Connect, err = connector(options.Connection); err != nil {
		return nil, err
	}
	options.Note = func(text string) {
		meter.Clear()
		a.note("%s", text)
	}
	options.ReadBack = func(ctx context.Context, e *snapshot.Entry, w io.Writer) error {
		stored, err := session.ReadBack(ctx)
		if err == nil {
			err = writeContent(ctx, stored, e, w)
		}
		if errors.Is(err, objstore.ErrDenied) {
			return dump.ErrNoReading
		}
		return err
	}
	return a.captureWith(ctx, session, j, tags, meter, func() (*seen, error) {
		r, err := dump.Capture(ctx, options, session, meter)
		if err != nil {
			return nil, err
		}
		return &seen{roots: r.Roots, counts: r.Counts, problems: r.Problems, dumps: dumpsResultOf(r)}, nil
	})
}

func dumpsResultOf(r *dump.Result) *dumpsResult {
	out := &dumpsResult{
		Server: r.Index.Server, Program: r.Index.Program, Checked: r.Checked, Globals: r.Index.Globals != "", Passwords: r.Index.Passwords,
		Databases: []dumpedLine{},
	}
	for _, d := range r.Index.Databases {
		out.Databases = append(out.Databases, dumpedLine{Database: d.Name, Time: d.Started, Bytes: d.Bytes, Entries: d.Entries})
	}
	return out
}

// writeDumps tells how databases were dumped.
func (r backupResult) writeDumps(w io.Writer) {
	d := r.Dumps
	var names []string
	for _, one := range d.Databases {
		names = append(names, printable(one.Database))
	}
	with := ""
	switch {
	case d.Passwords:
		with = " and roles with passwords"
	case d.Globals:
		with = " and roles without passwords"
	}
	fmt.Fprintf(w, "  %s of PostgreSQL %s%s: %s\n", count(uint64(len(names)), "dump", "dumps"), d.Server, with, strings.Join(names, ", "))
	checked := "checked as stored"
	if !d.Checked {
		checked = "checked as sent"
	}
	fmt.Fprintf(w, "  %s, %s; added %s in %s\n", size(r.Counts.Bytes), checked, size(r.Counts.AddedBytes),
		duration(time.Duration(r.Seconds*float64(time.Second))))
}

// isDump reports whether a snapshot is one of dumps: those of clusters say which.
func isDump(m *snapshot.Manifest) bool { return m.Kind == policy.KindPostgres && m.Postgres == nil }

// dumpIndex reads what the dumps of a snapshot are.
func dumpIndex(ctx context.Context, snap *repository.Snapshot) (*logical.Index, error) {
	var b strings.Builder
	e, err := snap.Lookup(ctx, logical.IndexPath)
	if err == nil {
		err = writeContent(ctx, snap, e, &b)
	}
	if err != nil {
		return nil, missing(err)
	}
	x, err := logical.ParseIndex([]byte(b.String()))
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snap.Manifest().ID(), err)
	}
	return x, nil
}
