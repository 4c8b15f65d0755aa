package writer

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// Report is what a run measured.
type Report struct {
	First       int64   `json:"first"` // transaction of this run
	Last        int64   `json:"last"`
	Seconds     float64 `json:"seconds"`
	Latency     Times   `json:"latency"`     // of transactions, from BEGIN to the return of COMMIT
	Checkpoints Times   `json:"checkpoints"` // of the own ones
	Busy        int     `json:"busy"`        // checkpoints that could not do all
}

// Times are percentiles, in milliseconds.
type Times struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// TimesOf sorts its argument.
func TimesOf(all []time.Duration) Times {
	if len(all) == 0 {
		return Times{}
	}
	slices.Sort(all)
	at := func(part float64) float64 {
		return float64(all[min(len(all)-1, int(part*float64(len(all))))]) / float64(time.Millisecond)
	}
	return Times{Count: len(all), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}

// application is a running one.
type application struct {
	Config
	conn        *sql.Conn
	notes       *notebook
	insert      *sql.Stmt
	update      *sql.Stmt
	head        *sql.Stmt
	latency     []time.Duration
	checkpoints []time.Duration
	busy        int
}

// open opens a database with one connection.
func open(ctx context.Context, path string) (*sql.DB, *sql.Conn, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, conn, nil
}

// Run is the application, until it has done what it was to do or ctx ends, which is no error. A database that is there
// is gone on with.
func Run(ctx context.Context, c Config) (r Report, err error) {
	if err := c.check(); err != nil {
		return r, err
	}
	db, conn, err := open(ctx, c.Path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, conn.Close(), db.Close()) }()
	a := &application{Config: c, conn: conn}
	if a.notes, err = openNotebook(c.Notes); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.notes.close(), a.closeStatements()) }()
	// What has begun is not torn by the end of ctx.
	whole := context.WithoutCancel(ctx)
	last, err := a.prepare(whole)
	if err != nil {
		return r, err
	}
	r.First = last + 1
	began := time.Now()
	r.Last, err = a.loop(ctx, whole, last)
	r.Seconds = time.Since(began).Seconds()
	r.Latency, r.Checkpoints, r.Busy = TimesOf(a.latency), TimesOf(a.checkpoints), a.busy
	return r, err
}

// closeStatements lets the connection end: SQLite keeps one open, and the log in its place, as long as it has statements.
func (a *application) closeStatements() (err error) {
	for _, s := range []*sql.Stmt{a.insert, a.update, a.head} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	return err
}

// loop commits at the rate, from the transaction after start, and returns the last that was committed. What it is late by
// it makes up for.
func (a *application) loop(ctx, whole context.Context, start int64) (last int64, err error) {
	began := time.Now()
	for last = start; ctx.Err() == nil; {
		done := last - start
		if a.Commits > 0 && done >= int64(a.Commits) || a.For > 0 && time.Since(began) >= a.For {
			break
		}
		if a.Rate > 0 {
			due := began.Add(time.Duration(float64(done) / a.Rate * float64(time.Second)))
			if !sleep(ctx, time.Until(due)) {
				break
			}
		}
		if err := a.commit(whole, last+1); err != nil {
			return last, fmt.Errorf("transaction %d: %w", last+1, err)
		}
		last++
		if a.own() && last%int64(max(1, a.Every)) == 0 {
			if err := a.checkpoint(whole); err != nil {
				return last, err
			}
		}
	}
	if a.Hold {
		<-ctx.Done()
	}
	return last, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (a *application) commit(ctx context.Context, n int64) (err error) {
	began := time.Now()
	if _, err := a.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, rerr := a.conn.ExecContext(ctx, "ROLLBACK")
			err = errors.Join(err, rerr)
		}
	}()
	if _, err := a.insert.ExecContext(ctx, n, a.content(n, rowSalt)); err != nil {
		return err
	}
	var first error
	content := a.content(n, cellSalt)
	a.touched(n, func(cell int64) {
		if first == nil {
			_, first = a.update.ExecContext(ctx, n, content, cell)
		}
	})
	if first != nil {
		return first
	}
	if _, err := a.head.ExecContext(ctx, n); err != nil {
		return err
	}
	if _, err := a.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return err
	}
	now := time.Now()
	a.latency = append(a.latency, now.Sub(began))
	return a.notes.note(Note{n, now})
}

func (a *application) own() bool { return a.Checkpoint != Auto && a.Checkpoint != None }

func (a *application) checkpoint(ctx context.Context) error {
	began := time.Now()
	var busy, pages, done int
	if err := a.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+a.Checkpoint+")").Scan(&busy, &pages, &done); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	a.checkpoints = append(a.checkpoints, time.Since(began))
	if busy != 0 || done < pages {
		a.busy++
	}
	return nil
}

// check also keeps what goes into a pragma from being anything else.
func (c *Config) check() error {
	c.Journal, c.Synchronous = cmp.Or(c.Journal, "wal"), cmp.Or(c.Synchronous, "normal")
	c.Checkpoint = cmp.Or(c.Checkpoint, Auto)
	for _, one := range []struct {
		what, is string
		of       []string
	}{
		{"checkpoint", c.Checkpoint, []string{Auto, None, "passive", "full", "restart", "truncate"}},
		{"journal", c.Journal, []string{"wal", "delete", "truncate", "persist", "memory", "off"}},
		{"synchronous", c.Synchronous, []string{"off", "normal", "full", "extra"}},
	} {
		if !slices.Contains(one.of, one.is) {
			return fmt.Errorf("%s %q: want one of %v", one.what, one.is, one.of)
		}
	}
	return c.Shape.check()
}

// prepare opens or makes the database and returns the number of its last transaction.
func (a *application) prepare(ctx context.Context) (last int64, err error) {
	made := false
	if info, err := os.Stat(a.Path); err != nil || info.Size() == 0 {
		made = true
	}
	pragmas := []string{fmt.Sprintf("busy_timeout = %d", a.Busy.Milliseconds())}
	if made && a.PageSize > 0 {
		pragmas = append(pragmas, fmt.Sprintf("page_size = %d", a.PageSize))
	}
	pragmas = append(pragmas, "journal_mode = "+a.Journal, "synchronous = "+a.Synchronous)
	if a.Checkpoint != Auto {
		pragmas = append(pragmas, "wal_autocheckpoint = 0")
	}
	for _, p := range pragmas {
		if _, err := a.conn.ExecContext(ctx, "PRAGMA "+p); err != nil {
			return 0, fmt.Errorf("pragma %s: %w", p, err)
		}
	}
	if err := a.schema(ctx); err != nil {
		return 0, fmt.Errorf("make tables: %w", err)
	}
	if a.Shape, last, err = state(ctx, a.conn); err != nil {
		return 0, err
	}
	for text, to := range map[string]**sql.Stmt{
		"INSERT INTO commits(n, data) VALUES (?, ?)":    &a.insert,
		"UPDATE cells SET n = ?, data = ? WHERE id = ?": &a.update,
		"UPDATE head SET n = ? WHERE one = 1":           &a.head,
	} {
		if *to, err = a.conn.PrepareContext(ctx, text); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// schema makes the tables in one transaction, unless they are there.
func (a *application) schema(ctx context.Context) error {
	var there int
	if err := a.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'head'").Scan(&there); err != nil || there > 0 {
		return err
	}
	tx, err := a.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, text := range []string{
		"CREATE TABLE commits(n INTEGER PRIMARY KEY, data BLOB NOT NULL)",
		"CREATE TABLE cells(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, data BLOB NOT NULL)",
		"CREATE TABLE head(one INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
		"CREATE TABLE shape(payload INTEGER, cells INTEGER, bulk INTEGER, width INTEGER)",
	} {
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO shape VALUES (?, ?, ?, ?)", a.Payload, a.Cells, a.Bulk, a.Width); err != nil {
		return err
	}
	content := a.content(0, cellSalt)
	for id := range a.Cells {
		if _, err := tx.ExecContext(ctx, "INSERT INTO cells VALUES (?, 0, ?)", id, content); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO head VALUES (1, 0)"); err != nil {
		return err
	}
	return tx.Commit()
}

// state reads what shape a database has, and its last transaction.
func state(ctx context.Context, conn *sql.Conn) (s Shape, last int64, err error) {
	if err := conn.QueryRowContext(ctx, "SELECT payload, cells, bulk, width FROM shape").Scan(&s.Payload, &s.Cells, &s.Bulk, &s.Width); err != nil {
		return s, 0, fmt.Errorf("read shape: %w", err)
	}
	if err := conn.QueryRowContext(ctx, "SELECT n FROM head").Scan(&last); err != nil {
		return s, 0, fmt.Errorf("read head: %w", err)
	}
	return s, last, s.check()
}
