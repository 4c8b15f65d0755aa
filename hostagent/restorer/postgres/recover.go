package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
		return pgserver.Setting{Name: name, Value: strconv.FormatUint(uint64(max(have, least)), 10)}
	}
	c := b.control
	out := append(pgserver.Alone(), []pgserver.Setting{
		{Name: "hot_standby", Value: "on"},
		{Name: "primary_conninfo"},
		{Name: "primary_slot_name"},
		{Name: "recovery_min_apply_delay", Value: "0"},
		{Name: "archive_cleanup_command"},
		{Name: "recovery_end_command"},
		{Name: "wal_retrieve_retry_interval", Value: "200ms"},
		// A hot standby needs no fewer than its primary had, also where that raises them later.
		atLeast("max_connections", c.MaxConnections, 200), atLeast("max_worker_processes", c.MaxWorkers, 32),
		atLeast("max_wal_senders", c.MaxWALSenders, 16), atLeast("max_prepared_transactions", c.MaxPrepared, 16),
		atLeast("max_locks_per_transaction", c.MaxLocks, 128),
	}...)
	return append(out, b.options.Settings...)
}

// recover lets a server replay the log up to the target, proves that it came there, and promotes it.
func (b *build) recover(ctx context.Context) error {
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
	defer func() { _ = w.conn.Close(context.WithoutCancel(ctx)) }() // the server ends it, if not we
	if b.options.Pause {
		return b.paused(ctx, w)
	}
	if err := b.step(StepPromote, func() error { return b.promote(ctx, w) }); err != nil {
		return err
	}
	if b.options.Prove != nil {
		if err := b.step(StepProve, func() error { return b.options.Prove(ctx, b.server) }); err != nil {
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
	_ = w.conn.Close(ctx)
	if err := b.server.Stop(true); err != nil {
		return nil, err
	}
	if w, err = b.follow(ctx, Target{Kind: Latest}); err == nil {
		b.result.Reached.LogEnd = true
	}
	return w, err
}

// follow lets a server run to a target.
func (b *build) follow(ctx context.Context, t Target) (w *watch, err error) {
	if err := b.prepare(t); err != nil {
		return nil, err
	}
	err = b.step(StepStartUp, func() (err error) {
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
	err = b.step(StepRecover, func() error { return w.wait(ctx) })
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// watch follows a server that recovers.
type watch struct {
	build    *build
	target   Target
	conn     *pgconn.PgConn // nil: it does not take connections yet
	replayed pg.LSN
	time     time.Time
	atTarget bool // it has stopped where it was told to, not where the log ends
}

func (w *watch) close() {
	if w.conn != nil {
		_ = w.conn.Close(context.Background()) // the server is stopped anyway
	}
}

// wait waits until the server has come to the target, or to the end of the log where that is as good.
func (w *watch) wait(ctx context.Context) error {
	for {
		over, err := w.look(ctx)
		if over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tick):
		}
	}
}

// look looks once.
func (w *watch) look(ctx context.Context) (over bool, err error) {
	b := w.build
	w.progress()
	_, _, _, _, fault := b.feed.state()
	if !b.server.Running() {
		return false, b.died(fault)
	}
	if fault != nil {
		return false, fault
	}
	if w.conn == nil {
		if !b.server.Accepts() {
			return false, w.stuck()
		}
		if w.conn, err = b.server.Connect(ctx, "", b.options.Superuser); err != nil {
			w.conn = nil
			if !b.server.Running() {
				return false, b.died(nil)
			}
			return false, fmt.Errorf("ask the server how far it is: %w", err)
		}
	}
	paused, err := w.ask(ctx)
	if err != nil {
		if !b.server.Running() {
			return false, b.died(nil)
		}
		return false, fmt.Errorf("ask the server how far it is: %w", err)
	}
	if paused {
		return true, w.stopped()
	}
	if over, err := w.ended(); over || err != nil {
		return over, err
	}
	return false, w.stuck()
}

// progress tells how much WAL the server has got.
func (w *watch) progress() {
	b := w.build
	_, _, _, bytes, _ := b.feed.state()
	b.result.WAL = bytes
	if b.options.Phase == nil {
		return
	}
	text := fmt.Sprintf("%s: %d MiB of WAL handed over", StepRecover, bytes>>20)
	if w.replayed != 0 {
		text = fmt.Sprintf("%s: at LSN %s", StepRecover, w.replayed)
		if b.src.Log != nil {
			text += " of " + b.src.Log.End.String()
		}
	}
	if !w.time.IsZero() {
		text += ", " + w.time.Format("2006-01-02 15:04:05Z")
	}
	b.options.Phase(text)
}

// ask asks the server how far it is.
func (w *watch) ask(ctx context.Context) (paused bool, err error) {
	pause := "pg_get_wal_replay_pause_state()"
	if w.build.src.Major < 14 {
		pause = "CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END"
	}
	got, err := pgserver.Row(ctx, w.conn, "SELECT pg_is_in_recovery(), "+pause+
		", pg_last_wal_replay_lsn(), (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint")
	if err != nil {
		return false, err
	}
	if got[0] != "t" {
		return false, fmt.Errorf("%w: somebody has promoted it", ErrMoved)
	}
	at := w.replayed
	if got[2] != "" {
		if at, err = pg.ParseLSN(got[2]); err != nil {
			return false, err
		}
	}
	if at != w.replayed {
		w.build.feed.clearRepeated()
	}
	w.replayed = at
	if micros, err := strconv.ParseInt(got[3], 10, 64); err == nil {
		w.time = time.UnixMicro(micros).UTC()
	}
	return got[1] == "paused", nil
}

// stopped proves that a server that has paused did so because it came to its target.
func (w *watch) stopped() error {
	b := w.build
	words := stoppingWords(b.server.Log)
	if words == "" {
		return fmt.Errorf("%w: it paused at %s, and not because of the target", ErrShort, w.replayed)
	}
	switch t := w.target; {
	case w.replayed < b.src.Stop:
		return fmt.Errorf("%w: it stopped at %s, before the base is consistent at %s", ErrShort, w.replayed, b.src.Stop)
	case t.Kind == LSN && !t.Exclusive && w.replayed < t.LSN:
		return fmt.Errorf("%w: it stopped at %s", ErrShort, w.replayed)
	}
	if guard, _, _, _, _ := b.feed.state(); w.target.Kind == Time && w.replayed < guard {
		b.result.Warnings = append(b.result.Warnings, fmt.Sprintf(
			"recovery stopped at %s as the server's clock says, but that clock counted WAL up to %s to before the target: it was set back about then; --lsn is exact", w.replayed, guard))
	}
	w.atTarget = true
	w.reached(words)
	return nil
}

// ended reports whether the log has ended, proven: all whole records of WAL in it were replayed.
func (w *watch) ended() (bool, error) {
	b := w.build
	if b.src.Log == nil {
		return false, nil
	}
	guard, _, done, _, _ := b.feed.state()
	whole, ok := b.feed.wholeEnd()
	if !done || !ok || w.replayed < whole || w.replayed < min(guard, whole) || w.replayed < b.src.Stop {
		return false, nil
	}
	t := w.target
	if t.mayEndAtLog() || t.Kind == LSN && w.replayed >= t.LSN {
		w.reached("the log ends at " + whole.String())
		return true, nil
	}
	return true, fmt.Errorf("%w: %s is not in the log, which ends at %s", ErrShort, t, whole)
}

// stuck tells that the server asks for the same segment over and over: what is in there is not WAL.
func (w *watch) stuck() error {
	b := w.build
	if b.src.Log == nil {
		return nil
	}
	s, n := b.feed.repeated()
	if n < patience {
		return nil
	}
	why := "what follows is no valid WAL"
	if err := b.feed.walError(); err != nil {
		why = err.Error()
	}
	return fmt.Errorf("%w: it does not come on from %s in segment %s: %s", ErrShort, w.replayed, s.name(b.feed.plan.Segment), why)
}

// reached notes where recovery has come.
func (w *watch) reached(words string) {
	r := &w.build.result.Reached
	r.LSN, r.Time, r.Timeline, r.Words = w.replayed, w.time, w.build.src.timeline(), words
}

// died says why the server has ended.
func (b *build) died(fault error) error {
	b.words = b.server.Said()
	if fault != nil {
		return fault
	}
	if text, err := os.ReadFile(b.spool.path(faultName)); err == nil {
		return fmt.Errorf("%w: %s", ErrShort, strings.TrimSpace(string(text)))
	}
	err := fmt.Errorf("%w: the server ended", ErrShort)
	if strings.Contains(b.words, "resource manager with ID") {
		err = errors.Join(err, ErrPreload)
	}
	return err
}

// ErrPreload says that the WAL has records of an extension that was not loaded.
var ErrPreload = errors.New("the WAL has records of an extension, whose library must be loaded")

// stoppingWords finds what the server said when it came to its target.
func stoppingWords(log string) string {
	b, err := os.ReadFile(log) //nolint:gosec // in the spool
	if err != nil {
		return ""
	}
	words := ""
	for line := range strings.Lines(string(b)) {
		if i := strings.Index(line, "recovery stopping "); i >= 0 && strings.Contains(line, "LOG:") {
			words = strings.TrimSpace(line[i:])
		}
	}
	return words
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
		if err := b.step(StepProve, func() error { return b.options.Prove(ctx, b.server) }); err != nil {
			return err
		}
	}
	if err := b.note(true); err != nil {
		return err
	}
	b.result.Socket = b.server.Socket
	err := b.lock.Close()
	b.lock = nil
	return err
}

// promote ends the recovery.
func (b *build) promote(ctx context.Context, w *watch) error {
	got, err := pgserver.Row(ctx, w.conn, "SELECT pg_promote(true, 3600)")
	if err != nil {
		return b.alive(fmt.Errorf("promote: %w", err))
	}
	if got[0] != "t" {
		return b.alive(errors.New("the server does not promote"))
	}
	return nil
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
	taken := b.src.Log != nil && slices.Contains(b.feed.plan.Stored, c.Timeline)
	if c.State != pg.ShutDown || c.System != b.src.System || c.Timeline <= b.src.timeline() || taken {
		b.words = b.server.Said()
		return fmt.Errorf("%w: the server left a cluster of system %d, timeline %d, that is %s", ErrShort, c.System, c.Timeline, c.State)
	}
	b.result.Reached.Now = c.Timeline
	return nil
}
