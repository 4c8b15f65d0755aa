package dump

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/hostagent/source/stream"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// capture is one run. Its fields belong to the goroutine of run.
type capture struct {
	Options
	session  Session
	progress Progress
	result   *Result
	parent   map[string]*snapshot.Entry

	server  *server
	dump    pgbin.Program
	restore pgbin.Program
	entries []*snapshot.Entry
	names   *inode.Names
}

// errNone says that there is nothing to dump.
var errNone = errors.New("there is no database that can be dumped")

func (c *capture) run(ctx context.Context) error {
	began := time.Now()
	c.names = inode.NewNames()
	if err := c.prepare(ctx); err != nil {
		return err
	}
	for e, err := range c.session.Parent(ctx) {
		if err != nil {
			break // a parent that can't be read only costs knowing what is new
		}
		c.parent[e.Path] = e
	}
	databases, missing := c.server.chosen(c.Databases)
	for _, name := range missing {
		c.problem(logical.PathOf(name), "find", "no such database, or it allows no connections")
	}
	if len(databases) == 0 {
		if len(missing) > 0 {
			return &Error{Database: missing[0], Err: errors.New("does not exist, or allows no connections"), hint: "the policy's databases names those that are dumped"}
		}
		return &Error{Err: errNone}
	}
	x := &logical.Index{Format: logical.Format, Default: c.server.Database, Wanted: c.dump.Major, Server: c.server.Version, Major: c.server.major(), Program: c.dump.Version}
	c.result.Index = x
	total := uint64(0)
	for _, d := range databases {
		total += d.Size
	}
	c.progress.Total(uint64(len(databases)), total)
	if err := c.databases(ctx, databases, x); err != nil {
		return err
	}
	if c.Globals {
		if err := c.globals(ctx, x); err != nil {
			return err
		}
	}
	text, err := x.Marshal()
	if err != nil {
		return err
	}
	if err := c.file(ctx, logical.IndexPath, began, bytes.NewReader(text), 0); err != nil {
		return err
	}
	return c.emit(ctx, began)
}

// prepare asks the server what it has and finds the programs for it.
func (c *capture) prepare(ctx context.Context) (err error) {
	if c.server, err = look(ctx, c.Connect); err != nil {
		return &Error{Err: err}
	}
	if c.dump, err = pgbin.Client(ctx, c.Bin, "pg_dump", c.server.major()); err != nil {
		return &Error{Err: fmt.Errorf("the server is PostgreSQL %d, which no older pg_dump can dump: %w", c.server.major(), err)}
	}
	// What pg_dump wrote is read by a pg_restore that is not older.
	if c.restore, err = pgbin.Client(ctx, c.Bin, "pg_restore", c.dump.Major); err != nil {
		return &Error{Err: fmt.Errorf("nothing can check the dumps: %w", err)}
	}
	return nil
}

// databases dumps one after the other.
func (c *capture) databases(ctx context.Context, databases []logical.Database, x *logical.Index) error {
	var failed error
	for _, d := range databases {
		err := c.database(ctx, &d)
		switch {
		case err == nil:
			x.Databases = append(x.Databases, d)
		case ctx.Err() != nil || !isDump(err):
			return err
		default:
			failed = errors.Join(failed, err)
			c.problem(logical.PathOf(d.Name), "dump", err.Error())
		}
	}
	if len(x.Databases) == 0 {
		return failed
	}
	return nil
}

// isDump reports whether an error concerns one database only.
func isDump(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Database != ""
}

// database dumps one.
func (c *capture) database(ctx context.Context, d *logical.Database) error {
	d.Path, d.Started = logical.PathOf(d.Name), time.Now().UTC()
	c.progress.Current(d.Name)
	fail := func(err error) error { return &Error{Database: d.Name, Err: err, hint: hintOf(err)} }
	run, err := pgbin.Start(ctx, c.dump.Path, "--format=custom", "--compress=0", "--no-password",
		"--lock-wait-timeout="+fmt.Sprint(lockWait.Milliseconds()), "--dbname="+pgbin.Conninfo(c.Connection, d.Name))
	if err != nil {
		return fail(err)
	}
	defer run.Stop()
	sent, err := list(ctx, c.restore.Path, true)
	if err != nil {
		return fail(err)
	}
	defer sent.stop()
	stored, err := stream.Store(ctx, c.session, io.TeeReader(run, sent), stream.Rows(), d.Size, func(n int) { c.progress.Add(0, uint64(n), uint64(n)) })
	if err != nil {
		return cmp.Or(ctx.Err(), err) // of the session: a pipe has none of its own
	}
	if err := run.Wait(); err != nil {
		return fail(err)
	}
	if d.Entries, err = sent.finish(); err != nil {
		return fail(fmt.Errorf("what pg_dump wrote can't be restored: %w", err))
	}
	d.Bytes = stored.Size
	e := c.entry(d.Path, d.Started, stored)
	if err := c.check(ctx, e, d); err != nil {
		return err
	}
	c.progress.Add(1, 0, 0)
	c.entries = append(c.entries, e)
	return nil
}

// lockWait is how long pg_dump waits for the lock of a table that somebody has locked against everybody.
const lockWait = 10 * time.Minute

// check lists what the repository gives back of the dump.
func (c *capture) check(ctx context.Context, e *snapshot.Entry, d *logical.Database) error {
	if !c.result.Checked {
		return nil
	}
	stored, err := list(ctx, c.restore.Path, false)
	if err != nil {
		return &Error{Database: d.Name, Err: err}
	}
	defer stored.stop()
	err = c.ReadBack(ctx, e, stored)
	switch {
	case errors.Is(err, ErrNoReading):
		c.result.Checked = false
		c.Note("this host may not read what it stores: dumps are checked as they are sent, not as they are stored")
		return nil
	case err != nil && !errors.Is(err, errListed):
		return fmt.Errorf("read back the dump of %s: %w", d.Name, err)
	}
	n, err := stored.finish()
	if err == nil && n != d.Entries {
		err = fmt.Errorf("it lists %d entries instead of %d", n, d.Entries)
	}
	if err != nil {
		return fmt.Errorf("what is stored of the dump of %s is not what pg_dump wrote: %w", d.Name, err)
	}
	return nil
}

// globals dumps roles and tablespaces. Who may not read the hashes of passwords dumps the roles without them.
func (c *capture) globals(ctx context.Context, x *logical.Index) error {
	program, err := pgbin.Client(ctx, c.Bin, "pg_dumpall", c.server.major())
	if err != nil {
		return &Error{Err: err}
	}
	c.progress.Current("roles and tablespaces")
	at := time.Now()
	args := []string{"--globals-only", "--no-password", "--database=" + c.server.Database, "--dbname=" + pgbin.Conninfo(c.Connection, "")}
	text, err := pgbin.Output(ctx, program.Path, args...)
	if x.Passwords = true; err != nil && strings.Contains(err.Error(), "pg_authid") {
		x.Passwords = false
		c.Note("the role may not read the hashes of passwords: roles are dumped without them (pg_read_all_data allows it, as superusers are)")
		text, err = pgbin.Output(ctx, program.Path, append([]string{"--no-role-passwords"}, args...)...)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.problem(logical.GlobalsPath, "dump", err.Error())
		x.Passwords = false
		return nil
	}
	x.Globals = logical.GlobalsPath
	return c.file(ctx, logical.GlobalsPath, at, bytes.NewReader(text), uint64(len(text)))
}

// file stores a small file. counted is how many bytes of it progress is told.
func (c *capture) file(ctx context.Context, path string, at time.Time, r io.Reader, counted uint64) error {
	stored, err := stream.Store(ctx, c.session, r, stream.Rows(), 0, nil)
	if err != nil {
		return err
	}
	c.progress.Add(0, counted, counted)
	c.entries = append(c.entries, c.entry(path, at, stored))
	return nil
}

func (c *capture) entry(path string, at time.Time, s *stream.Stored) *snapshot.Entry {
	e := entry(path, snapshot.File, at)
	e.User, e.Group = c.names.Of(e.UID, e.GID)
	e.Size, e.Extents, e.Maps = s.Size, s.Extents, s.Maps
	return e
}

// emit gives all entries to the session, in order.
func (c *capture) emit(ctx context.Context, began time.Time) error {
	root := entry(logical.Root, snapshot.Directory, began)
	root.User, root.Group = c.names.Of(root.UID, root.GID)
	c.entries = append(c.entries, root)
	slices.SortFunc(c.entries, func(a, b *snapshot.Entry) int { return snapshot.ComparePaths(a.Path, b.Path) })
	n := &c.result.Counts
	for _, e := range c.entries {
		if err := e.Check(); err != nil {
			return err
		}
		if err := c.session.Emit(ctx, e); err != nil {
			return fmt.Errorf("add %q to the tree: %w", e.Path, err)
		}
		if e.Type == snapshot.Directory {
			n.Directories++
			continue
		}
		n.Files++
		n.Bytes += e.Size
		n.ReadBytes += e.Size
		if c.parent[e.Path] == nil {
			n.NewFiles++
		} else {
			n.ChangedFiles++
		}
	}
	n.Errors = uint64(len(c.result.Problems))
	return nil
}

func (c *capture) problem(path, operation, text string) {
	c.result.Problems = append(c.result.Problems, snapshot.Problem{Path: []byte(path), Operation: operation, Error: text})
}
