package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// databaseResult is how a database was captured.
type databaseResult struct {
	Mode     string  `json:"mode"`           // wal, reflink, lock or unchanged
	PageSize uint32  `json:"page_size"`      // bytes
	Pages    uint32  `json:"pages"`          // of the database
	Locked   float64 `json:"locked_seconds"` // for which who writes to it was kept waiting at most
	Repeated int     `json:"repeated"`       // how often some of it was read again, because something of its log was missed
}

// kind is the kind of the job's source.
func (j job) kind() string {
	switch {
	case j.sqlite != nil:
		return policy.KindSQLite
	case j.cluster != nil, j.dump != nil:
		return policy.KindPostgres
	}
	return policy.KindFiles
}

// roots are the paths that the job captures.
func (j job) roots() []string {
	if j.sqlite != nil {
		return []string{j.sqlite.Path}
	}
	return j.options.Roots
}

// databaseJob is the database that the flags name.
func (f backupFlags) databaseJob(src snapshot.Source) ([]job, error) {
	if f.selects() {
		return nil, usagef("backup: patterns and limits are for --files; a database is captured whole")
	}
	abs, err := filepath.Abs(f.database)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", f.database, err)
	}
	if _, err := os.Stat(abs); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("back up %s: database %s: does not exist", src, abs)
	}
	return []job{{source: src, sqlite: &sqlite.Options{Path: abs}}}, nil
}

func databaseOptions(s *policy.SQLite) *sqlite.Options {
	return &sqlite.Options{Path: s.Path, MaxLock: s.MaxLock.Std()}
}

// globOf is the pattern that a source of this name stands for, if it does.
func globOf(h *policy.Host, name string) *policy.SQLite {
	if h == nil || h.Globs[name] == nil {
		return nil
	}
	return h.Globs[name].SQLite
}

// databasesOf puts the databases that a source with a pattern stands for in its place, if there are any.
func databasesOf(h *policy.Host, host string, names []string) []string {
	var out []string
	for _, name := range names {
		name = strings.TrimPrefix(name, host+"/")
		if globOf(h, name) == nil {
			out = append(out, name)
			continue
		}
		of := []string{}
		for derived, s := range h.Sources {
			if s.SQLite != nil && s.SQLite.Of == name {
				of = append(of, derived)
			}
		}
		if len(of) == 0 {
			of = append(of, name) // which is told
		}
		slices.Sort(of)
		out = append(out, of...)
	}
	return out
}

// captureDatabase captures a database into the session and commits it.
func (a *app) captureDatabase(ctx context.Context, session *repository.Session, j job, tags []string) (*backupResult, error) {
	meter := a.meter()
	options := *j.sqlite
	options.Temp = a.statePath()
	options.Note = func(text string) {
		meter.Clear()
		a.note("%s", text)
	}
	if info, err := os.Stat(options.Path); err == nil {
		meter.Total(1, uint64(info.Size()))
	}
	return a.captureWith(ctx, session, j, tags, meter, func() (*seen, error) {
		var log sqlite.Tail
		if j.follow != nil && j.follow.Tail() {
			log = j.follow
		}
		r, err := sqlite.Capture(ctx, options, session, log, meter)
		if err != nil {
			return nil, err
		}
		var place *snapshot.LogPlace
		if log != nil {
			if place, err = j.follow.Place(ctx); err != nil {
				return nil, err
			}
		}
		return &seen{roots: r.Roots, counts: r.Counts, problems: r.Problems, log: place, database: &databaseResult{
			Mode: string(r.Mode), PageSize: r.PageSize, Pages: r.Pages, Locked: r.Locked.Seconds(), Repeated: r.Repeated,
		}}, nil
	})
}

// writeDatabase tells how a database was captured.
func (r backupResult) writeDatabase(w io.Writer) {
	d := r.Database
	fmt.Fprintf(w, "  a database of %s, %s; read %s, added %s in %s\n", size(r.Counts.Bytes), databaseWord(d),
		size(r.Counts.ReadBytes), size(r.Counts.AddedBytes), duration(time.Duration(r.Seconds*float64(time.Second))))
}

func databaseWord(d *databaseResult) string {
	switch sqlite.Mode(d.Mode) {
	case sqlite.ModeWAL:
		return "copied without a lock"
	case sqlite.ModeUnchanged:
		return "unchanged"
	case sqlite.ModeReflink, sqlite.ModeLock:
		if d.Locked > 0 {
			return "locked for " + time.Duration(d.Locked*float64(time.Second)).Round(100*time.Microsecond).String()
		}
	}
	return "not in use"
}
