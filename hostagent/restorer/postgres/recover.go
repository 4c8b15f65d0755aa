package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

const (
	// tick is how often a server that recovers is looked at.
	tick = 25 * time.Millisecond
	// patience is how often a server may ask for the same segment again, without having replayed anything, before that
	// segment is what is wrong. It asks once for each way in which it looks for WAL, and then in intervals.
	patience = 8
)

// settings are those of the server while it recovers. What the caller says wins.
func (b *build) settings() []pgserver.Setting {
	atLeast := func(name string, have, least uint32) pgserver.Setting {
		return pgserver.Setting{Name: name, Value: strconv.FormatUint(max(uint64(have), uint64(least), b.raised[name]), 10)}
	}
	c := b.control
	segment := c.SegmentSize >> 20 // MiB
	out := append(pgserver.Alone(), []pgserver.Setting{
		{Name: "hot_standby", Value: "on"},
		{Name: "primary_conninfo"},
		{Name: "primary_slot_name"},
		{Name: "recovery_min_apply_delay", Value: "0"},
		{Name: "archive_cleanup_command"},
		{Name: "recovery_end_command"},
		{Name: "wal_retrieve_retry_interval", Value: "50ms"},
		// The defaults are too small for large segments: neither may be less than two of them.
		{Name: "min_wal_size", Value: fmt.Sprintf("%dMB", max(80, 2*segment))},
		{Name: "max_wal_size", Value: fmt.Sprintf("%dMB", max(2048, 4*segment))},
		{Name: "wal_keep_size", Value: "0"},
		// A hot standby needs no fewer than its primary had, also where that raises them later.
		atLeast("max_connections", c.MaxConnections, 200), atLeast("max_worker_processes", c.MaxWorkers, 32),
		atLeast("max_wal_senders", c.MaxWALSenders, 16), atLeast("max_prepared_transactions", c.MaxPrepared, 16),
		atLeast("max_locks_per_transaction", c.MaxLocks, 128),
	}...)
	if b.hasWithin() {
		out = append(out, pgserver.Setting{Name: "allow_in_place_tablespaces", Value: "on"}) // the server refuses them otherwise
	}
	if b.options.Pause {
		// People may make it their own.
		out = append(out, pgserver.Setting{Name: "fsync", Value: "on"}, pgserver.Setting{Name: "synchronous_commit", Value: "on"})
	}
	return append(out, b.options.Settings...)
}

// recover lets a server replay the log up to the target, proves that it came there, and promotes it.
func (b *build) recover(ctx context.Context) error {
	if err := b.watchSpaces(); err != nil {
		return err
	}
	fctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if b.src.Log != nil {
		d, err := b.feed.open(fctx)
		if err != nil {
			return err
		}
		defer d.close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.feed.run(fctx)
		}()
		defer func() {
			cancel()
			<-ended
		}()
	}
	w, err := b.reach(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	if b.options.Pause {
		return b.paused(ctx, w)
	}
	if err := b.course.Do(StepPromote, func() error { return b.promote(ctx, w) }); err != nil {
		return err
	}
	if !b.options.scratch {
		if err := b.inspect(ctx, w); err != nil {
			return b.alive(err)
		}
	}
	if b.options.Prove != nil {
		if err := b.course.Do(StepProve, func() error { return b.options.Prove(ctx, b.server) }); err != nil {
			return err
		}
	}
	return b.end()
}

// reach starts the server and waits until it has come to the target.
func (b *build) reach(ctx context.Context) (*watch, error) {
	target := b.target
	w, err := b.follow(ctx, target)
	if err != nil || w.atTarget || target.Kind == Latest {
		return w, err
	}
	// The log ends, and nothing in it lies behind the target: its end is the state at the target. A server that was told a
	// target does not promote before it, so it is told none.
	b.options.note("nothing in the log is later than the target: its end is what was wanted")
	if cut := b.feed.cutBy(); cut != nil {
		b.result.Warnings = append(b.result.Warnings, fmt.Sprintf("all that was committed until then is there; behind it the log is no good: %v", cut))
	}
	w.close()
	if err := b.server.Stop(true); err != nil {
		return nil, err
	}
	if w, err = b.follow(ctx, Target{Kind: Latest}); err == nil {
		b.result.Reached.LogEnd = true
	}
	return w, err
}

// follow lets a server run to a target. Where the primary had more of something later than at the base, the server can't go
// on: it is started again with as much.
func (b *build) follow(ctx context.Context, t Target) (*watch, error) {
	for {
		w, err := b.attempt(ctx, t)
		if err == nil || !errors.Is(err, ErrShort) || !b.raise() {
			return w, err
		}
		b.options.note("the primary had %s later on: recovery goes on with that", b.raisedWords())
		if err := b.server.Stop(true); err != nil {
			return nil, err
		}
	}
}

// attempt starts a server and waits until it has come to a target.
func (b *build) attempt(ctx context.Context, t Target) (w *watch, err error) {
	if err := b.prepare(t); err != nil {
		return nil, err
	}
	b.feed.clearRepeated()
	err = b.course.Do(StepStartUp, func() (err error) {
		if err := b.options.faulty("server"); err != nil {
			return err
		}
		b.server, err = pgserver.Start(pgserver.Options{
			Program: b.program, Dir: b.dir, Home: b.spool.dir, Account: b.account, Settings: b.settings(), Detached: b.options.Pause,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	w = &watch{build: b, target: t}
	err = b.course.Do(StepRecover, func() error { return w.wait(ctx) })
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// paused leaves the server to people.
func (b *build) paused(ctx context.Context, w *watch) error {
	if !w.atTarget {
		// It stands at the end of the log and waits: it is told to stay there.
		if _, err := pgserver.Row(ctx, w.conn, "SELECT pg_wal_replay_pause()"); err != nil {
			return err
		}
	}
	if b.options.Prove != nil {
		if err := b.course.Do(StepProve, func() error { return b.options.Prove(ctx, b.server) }); err != nil {
			return err
		}
	}
	// What was laid out was not synced, and the server knows nothing of that.
	if err := b.disk.sync(); err != nil {
		return err
	}
	if err := b.note(true); err != nil {
		return err
	}
	b.result.Socket, b.result.Superuser = b.server.Socket, b.server.Superuser()
	err := b.lock.Close()
	b.lock = nil
	return err
}

// promote ends the recovery.
func (b *build) promote(ctx context.Context, w *watch) error {
	switch {
	case w.promoted:
		return nil
	case w.atTarget && b.src.Major >= resumeWakes:
		return b.resume(ctx, w)
	}
	got, err := pgserver.Row(ctx, w.conn, "SELECT pg_promote(true, 3600)")
	if err != nil {
		return b.alive(fmt.Errorf("promote: %w", err))
	}
	if got[0] != "t" {
		return b.alive(errors.New("the server does not promote"))
	}
	return nil
}

// resumeWakes is the version from which on a server that is paused wakes up when it is told to go on. Before, it looks each second, and
// a signal wakes it.
const resumeWakes = 14

// resume lets a server go on that is paused at its target, where there is nothing left for it but to promote. It hears that at once:
// pg_promote it would hear only when it looks the next time, after a second.
func (b *build) resume(ctx context.Context, w *watch) error {
	if _, err := pgserver.Row(ctx, w.conn, "SELECT pg_wal_replay_resume()"); err != nil {
		return b.alive(fmt.Errorf("promote: %w", err))
	}
	for {
		got, err := pgserver.Row(ctx, w.conn, "SELECT pg_is_in_recovery()")
		switch {
		case err != nil:
			return b.alive(fmt.Errorf("promote: %w", err))
		case got[0] == "f":
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tick):
		}
	}
}

// alive replaces an error by why the server has ended, if it has.
func (b *build) alive(err error) error {
	if !b.server.Running() {
		return b.died(nil)
	}
	return err
}

// end stops the promoted server, and looks whether what it leaves is a cluster as it should be.
func (b *build) end() error {
	if b.options.scratch {
		return b.server.Stop(false)
	}
	if err := b.server.Stop(true); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.dir, controlFile))
	if err != nil {
		return err
	}
	c, err := pg.ParseControl(text)
	if err != nil {
		return err
	}
	taken := slices.Contains(b.feed.plan.Stored, c.Timeline)
	if c.State != pg.ShutDown || c.System != b.src.System || c.Timeline <= b.src.timeline() || taken {
		b.words = b.server.Said()
		return fmt.Errorf("%w: the server left a cluster of system %d, timeline %d, that is %s", ErrShort, c.System, c.Timeline, c.State)
	}
	b.result.Reached.Now = c.Timeline
	return nil
}
