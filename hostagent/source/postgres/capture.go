package postgres

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// HiddenRoot stands for the data directory where the role may not see where that is.
const HiddenRoot = "/pgdata"

// capture is one run. Its fields belong to the goroutine of run, unless they say otherwise.
type capture struct {
	Options
	config   *pgconn.Config
	session  Session
	progress Progress
	work     chan func() error
	result   *Result

	conn     *wire.Conn
	backup   *wire.Backup
	root     string
	page     uint32 // bytes
	relation uint32 // pages in one file of a relation
	names    names
	before   *parent
	all      *entries
	large    *pool
	small    *bundler
	ending   []*pagedFile // have all their regions, may not be stored yet
	sums     map[uint64]fileSum
	pages    *pageCheck
	wal      *walCheck

	owner   *tar.Header // of the data directory: what the first thing says
	mode    int64       // of the data directory
	newest  time.Time   // change of anything
	control []byte      // pg_control
	text    spool       // of the backup manifest

	mu     sync.Mutex
	stored snapshot.Counts // of files that are stored; guarded by mu
}

func newCapture(options Options, config *pgconn.Config, session Session, progress Progress) *capture {
	c := &capture{
		Options: options, config: config, session: session, progress: progress, work: make(chan func() error, queued),
		result: &Result{}, all: &entries{temp: options.Temp}, large: newPool(largeBuffers, largeBuffer), sums: map[uint64]fileSum{},
	}
	c.small = &bundler{c: c, pool: newPool(bundles, bundleSize)}
	return c
}

func (c *capture) run(ctx context.Context) (err error) {
	defer c.all.close()
	defer func() { _ = c.text.close() }()
	if err := c.open(ctx); err != nil {
		return c.wrap(err)
	}
	defer func() { _ = c.conn.Close(context.WithoutCancel(ctx)) }()
	if c.before, err = readParent(ctx, c.session, c.Temp); err != nil {
		return err
	}
	defer func() { _ = c.before.close() }()
	if err := c.begin(ctx); err != nil {
		return c.wrap(err)
	}
	if err := c.receive(ctx); err != nil {
		return c.wrap(err)
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	if err := c.prove(ctx); err != nil {
		return c.wrap(err)
	}
	return c.emit(ctx)
}

// wrap says of which server an error is. Those of the session stay as they are.
func (c *capture) wrap(err error) error {
	var own *Error
	var wired *wire.Error
	if errors.As(err, &own) || !errors.As(err, &wired) {
		return err
	}
	return &Error{Server: Describe(c.config), Err: err}
}

func (c *capture) failed(hint, format string, args ...any) error {
	return &Error{Server: Describe(c.config), Err: fmt.Errorf(format, args...), hint: hint}
}

// hintOf is what an error says can be done about it.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// open connects and asks what the server is.
func (c *capture) open(ctx context.Context) (err error) {
	if c.conn, err = wire.Connect(ctx, c.config); err != nil {
		return err
	}
	system, err := c.describe(ctx)
	if err == nil && c.Begin != nil {
		err = c.Begin(ctx, system)
	}
	if err == nil {
		err = c.compareLog(ctx, system)
	}
	if err != nil {
		_ = c.conn.Close(context.WithoutCancel(ctx))
	}
	return err
}

func (c *capture) describe(ctx context.Context) (wire.System, error) {
	system, err := c.conn.Identify(ctx)
	if err != nil {
		return system, err
	}
	c.result.System, c.result.Version = system.ID, c.conn.Version()
	c.names = names{local: c.conn.Local(), of: inode.NewNames()}
	for _, ask := range []func(context.Context) error{c.sizes, c.state, c.directory} {
		if err := ask(ctx); err != nil {
			return system, err
		}
	}
	return system, nil
}

// sizes asks how large pages and segments of WAL are.
func (c *capture) sizes(ctx context.Context) error {
	segment, err := c.conn.Setting(ctx, "wal_segment_size")
	if err != nil {
		return err
	}
	page, err := c.conn.Setting(ctx, "block_size")
	if err != nil {
		return err
	}
	if err := postgres.CheckSegmentSize(uint32(min(segment, 1<<31))); err != nil {
		return c.failed("", "segments of WAL: %w", err)
	}
	if page < 1<<10 || page > 32<<10 || page&(page-1) != 0 {
		return c.failed("", "pages of %d bytes", page)
	}
	relation, err := c.conn.Setting(ctx, "segment_size")
	if err != nil {
		return err
	}
	c.result.SegmentSize, c.page, c.relation = uint32(segment), uint32(page), uint32(min(relation/page, 1<<31))
	return nil
}

// state asks whether there are checksums of pages, and whether the server is a standby.
func (c *capture) state(ctx context.Context) error {
	sums, err := c.conn.Show(ctx, "data_checksums")
	if err != nil {
		return err
	}
	standby, err := c.conn.Show(ctx, "in_hot_standby")
	if err != nil && !wire.IsUnknownSetting(err) { // before version 14
		return err
	}
	c.result.Checksums, c.result.Standby = sums == "on", standby == "on"
	return nil
}

// directory asks where the data directory is.
func (c *capture) directory(ctx context.Context) error {
	root, err := c.conn.Show(ctx, "data_directory")
	if wire.IsForbidden(err) {
		root, err = HiddenRoot, nil
		c.Note(fmt.Sprintf("role %s may not see where the data directory is: it is stored as %s; GRANT pg_read_all_settings TO %s shows it", c.config.User, HiddenRoot, c.config.User))
	}
	if err != nil {
		return err
	}
	c.root = path.Clean(root)
	if err := snapshot.CheckPath(c.root); err != nil {
		return c.failed("", "data directory %q: %w", root, err)
	}
	return nil
}

// begin starts the backup. A temporary slot keeps the WAL that it needs until it has come, if the server has one free.
func (c *capture) begin(ctx context.Context) (err error) {
	slot := fmt.Sprintf("holdfast_backup_%d", c.conn.PID())
	if err := c.conn.CreateSlot(ctx, slot, wire.SlotOptions{Reserve: true, Temporary: true}); err != nil {
		if !wire.IsLimit(err) && !wire.IsState(err) {
			return err
		}
		c.Note("no replication slot is free, so that nothing keeps the server from removing WAL that the backup still needs; raise max_replication_slots if backups fail for it")
	}
	c.backup, err = c.conn.BaseBackup(ctx, wire.BackupOptions{Label: c.Label, Spread: c.Spread, Verify: true})
	if err != nil {
		return err
	}
	r := c.result
	r.Start, r.Timeline, r.Tablespaces = c.backup.Start, c.backup.Timeline, len(c.backup.Tablespaces)-1
	total := uint64(0)
	for _, t := range c.backup.Tablespaces {
		total += t.Size
	}
	if c.Total != nil {
		c.Total(total)
	}
	c.pages = &pageCheck{on: r.Checksums, page: int(c.page), segment: c.relation, start: r.Start}
	c.wal = newWALCheck(postgres.Origin{System: r.System, Timeline: r.Timeline, SegmentSize: r.SegmentSize}, r.Start)
	return nil
}

// receive takes all archives in.
func (c *capture) receive(ctx context.Context) error {
	for {
		a, err := c.backup.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if a.Manifest {
			err = c.manifest(ctx)
		} else {
			err = c.archive(ctx, a)
		}
		if err != nil {
			return err
		}
	}
	stop, timeline, err := c.backup.Finish()
	switch {
	case wire.IsCorrupted(err) && c.pages.count == 0:
		return c.failed("run the backup again; if it is said again, the server's log names the pages", "the server found damaged pages that were not among those which it sent: %w", err)
	case err != nil && !wire.IsCorrupted(err):
		return err
	case timeline != c.result.Timeline:
		return c.failed("run the backup again", "the server went from timeline %d to %d during the backup", c.result.Timeline, timeline)
	}
	c.result.Stop = stop
	c.clock(ctx)
	return nil
}

// clockLimit is how long a server may take to tell the time.
const clockLimit = 20 * time.Second

// clock asks for the time by which commits go, now that the backup has ended: the server's, and of a standby also that of what it
// has replayed, by the clock of its primary. What can't be asked is not known.
func (c *capture) clock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	r := c.result
	at, err := c.conn.Clock(ctx, r.Stop, r.Timeline)
	if err != nil {
		c.Note(fmt.Sprintf("the server's clock can not be asked for: %v", err))
		return
	}
	r.Until = at
	if !r.Standby {
		return
	}
	got, err := c.ask(ctx, "", "SELECT 'at', (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint::text")
	if err != nil {
		return // a role for replication alone
	}
	if micros, err := strconv.ParseInt(got["at"], 10, 64); err == nil && time.UnixMicro(micros).After(r.Until) {
		r.Until = time.UnixMicro(micros).UTC()
	}
}

// pagedFile is a file whose regions were all given.
type pagedFile struct {
	entry, before *snapshot.Entry
	size          uint64
	writer        *paged.Writer
}

// waiting is how many files may have all their regions and not be stored yet.
const waiting = 16

// byPages stores a file page by page.
func (c *capture) byPages(ctx context.Context, f *incoming) error {
	w := paged.New(paged.Options{Session: c.session, Path: f.entry.Path, Page: c.page, Size: f.size, Before: f.before, Later: c.later})
	for number, at := 0, uint64(0); at < f.size; number++ {
		if err := w.Ready(ctx); err != nil {
			return err
		}
		n := min(w.Span(), f.size-at)
		buf, data, err := c.large.take(ctx, int(n))
		if err != nil {
			return err
		}
		if err := c.read(f, at, data); err != nil {
			return err
		}
		if err := w.Region(ctx, number, data, buf); err != nil {
			return err
		}
		at += n
	}
	c.ending = append(c.ending, &pagedFile{f.entry, f.before, f.size, w})
	for len(c.ending) > waiting {
		if err := c.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until the first file of those that are ending is stored.
func (c *capture) finish(ctx context.Context) (err error) {
	f := c.ending[0]
	c.ending = c.ending[1:]
	e := f.entry
	if e.Extents, e.Maps, err = f.writer.Finish(ctx, f.size); err != nil {
		return err
	}
	e.Size = f.size
	return c.done(e, f.before)
}

// settle waits until everything is stored.
func (c *capture) settle(ctx context.Context) error {
	c.large.end()
	if err := c.small.end(ctx); err != nil {
		return err
	}
	for len(c.ending) > 0 {
		if err := c.finish(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.result.Counts
	n.Files, n.Bytes, n.NewFiles, n.ChangedFiles = c.stored.Files, c.stored.Bytes, c.stored.NewFiles, c.stored.ChangedFiles
	return nil
}

// queued is how many jobs may wait for a goroutine: as many as all that is lent to jobs has, so that who reads goes on to
// read, and is held up by memory alone.
const queued = largeBuffers * largeBuffer >> 20

// later has a job done by one of the goroutines that compress and store.
func (c *capture) later(ctx context.Context, job func() error) error {
	select {
	case c.work <- job:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
