package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// watch follows a server that recovers.
type watch struct {
	build    *build
	target   Target
	conn     *pgconn.PgConn // nil: it does not take connections yet
	replayed pg.LSN
	time     time.Time
	atTarget bool // it has stopped where it was told to, not where the log ends
	promoted bool // it could not pause there, and has promoted itself
	told     bool // to promote, although it can't be asked how far it is
	failures int  // how often it did not answer, one after the other
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
			return w.blind()
		}
		if w.conn, err = b.server.Connect(ctx, "", b.options.Superuser); err != nil {
			w.conn = nil
			return false, w.unanswered(err)
		}
	}
	paused, err := w.ask(ctx)
	if err != nil {
		_ = w.conn.Close(ctx) // it is of no use
		w.conn = nil
		return false, w.unanswered(err)
	}
	w.failures = 0
	if w.promoted {
		return true, w.selfPromoted()
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
	pause := "WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state()"
	if w.build.src.Major < 14 {
		pause = "WHEN pg_is_in_recovery() AND pg_is_wal_replay_paused() THEN 'paused'"
	}
	got, err := pgserver.Row(ctx, w.conn, "SELECT pg_is_in_recovery(), CASE "+pause+
		" ELSE 'not paused' END, pg_last_wal_replay_lsn(), (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint")
	if err != nil {
		return false, err
	}
	w.promoted = got[0] != "t"
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

// maxFailures is how often a server that recovers may not answer, one time after the other: replaying can end sessions, as
// that of a database which is dropped, and keep new ones out for a while.
const maxFailures = 100

// unanswered tells that the server does not answer, once that is too often.
func (w *watch) unanswered(err error) error {
	if !w.build.server.Running() {
		return w.build.died(nil)
	}
	if w.failures++; w.failures < maxFailures {
		return nil
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Detail != "" {
		err = fmt.Errorf("%w: %s", err, answer.Detail)
	}
	return fmt.Errorf("ask the server how far it is: %w", err)
}

// blind is what can be told of a server that takes no connections yet: that the base is not consistent, or that it can't be
// read because transactions with many subtransactions were under way when the base was made. Such a server waits at the end
// of the log as any other, and what it has replayed shows once it is promoted. over says that it waits at the log's end.
func (w *watch) blind() (over bool, err error) {
	b := w.build
	if b.src.Log == nil || w.told {
		return false, nil
	}
	_, n := b.feed.repeated()
	whole, ok := b.feed.wholeEnd()
	switch {
	case n < patience:
		return false, nil
	case !ok || b.feed.walError() != nil:
		return false, w.stuck()
	case !w.atLogEnd(whole):
		return false, w.absent(whole)
	case b.options.Pause:
		return false, errNoPause
	case w.target.Kind != Latest:
		// A server that was told a target does not promote before it.
		w.reached("the log ends at " + whole.String())
		return true, nil
	}
	w.told = true
	return false, b.server.Promote()
}

// atLogEnd reports whether the end of the log is as good as the target.
func (w *watch) atLogEnd(whole pg.LSN) bool {
	return w.target.mayEndAtLog() || w.target.Kind == LSN && whole >= w.target.LSN
}

// selfPromoted proves that a server which nobody could ask has promoted itself at its target, or was told to at the end of
// the log and had come there. It does so by itself only where it was told to pause and can't be read.
func (w *watch) selfPromoted() error {
	b := w.build
	if b.options.Pause {
		return errNoPause
	}
	switch {
	case !w.told && stoppingWords(b.server.Log) == "":
		return fmt.Errorf("%w: somebody has promoted it", ErrMoved)
	case !w.told:
		return w.stopped()
	}
	over, err := w.ended()
	if err == nil && !over {
		err = fmt.Errorf("%w: it came to %s, and the log goes on", ErrShort, w.replayed)
	}
	return err
}

// errNoPause says that a server can't be looked at where it is.
var errNoPause = errors.New("the server can not be read at this point, because a transaction with many subtransactions is under way there: restore without --pause")

// stopped proves that a server that has paused did so because it came to its target.
func (w *watch) stopped() error {
	b := w.build
	words := stoppingWords(b.server.Log)
	if words == "" || !w.target.stops(words) {
		return fmt.Errorf("%w: it paused at %s, and not because of the target: %s", ErrShort, w.replayed, cmp.Or(words, b.server.Said()))
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
	if w.atLogEnd(whole) {
		w.reached("the log ends at " + whole.String())
		return true, nil
	}
	return true, w.absent(whole)
}

// absent says that the target did not come.
func (w *watch) absent(end pg.LSN) error {
	return fmt.Errorf("%w: %s is not in the log, which ends at %s", ErrShort, w.target, end)
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
	if fault == nil {
		_, _, _, _, fault = b.feed.state() // it may have come meanwhile, and is what ended the server
	}
	if fault != nil {
		return fault
	}
	why := "the server ended"
	if text, err := os.ReadFile(b.spool.path(faultName)); err == nil {
		why = strings.TrimSpace(string(text))
	}
	if hostWords(b.words + why) {
		return fmt.Errorf("%w: %s", ErrHost, why)
	}
	if unloaded.MatchString(b.words) && slices.ContainsFunc(b.options.Settings, func(s pgserver.Setting) bool { return s.Name == "shared_preload_libraries" }) {
		return fmt.Errorf("%w: %s", ErrLibrary, why)
	}
	err := fmt.Errorf("%w: %s", ErrShort, why)
	if strings.Contains(b.words, "resource manager with ID") {
		err = errors.Join(err, ErrPreload)
	}
	return err
}

// ErrHost says that this host could not go on with a recovery: it says nothing of the backup.
var ErrHost = errors.New("this host has no room or no memory for it")

// ErrLibrary says that this host has not all of the libraries that the server was to load, or not for its version.
var ErrLibrary = errors.New("a library of shared_preload_libraries can't be loaded on this host")

// unloaded is what a server says before it ends whose libraries can't be loaded. Its own files it opens: they are never "accessed".
var unloaded = regexp.MustCompile(`FATAL: +(could not access file "|could not load library "|incompatible library ")`)

// hostWords reports whether the last words of a server are of its host.
func hostWords(words string) bool {
	words = strings.ToLower(words)
	for _, w := range []string{"no space left on device", "disk quota exceeded", "cannot allocate memory", "out of memory", "terminated by signal 9"} {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

// lower is what a server says that has less of something than its primary had: 13 in one line, later ones in two.
var lower = regexp.MustCompile(`(max_[a-z_]+) = \d+ is a lower setting than on the (?:primary|master) server(?:, where its value was| \(its value was) (\d+)`)

// raise takes over what the server has said that the primary had more of. It reports whether that is more than before.
func (b *build) raise() bool {
	text, err := os.ReadFile(b.server.Log) //nolint:gosec // in the spool
	if err != nil {
		return false
	}
	more := false
	for _, m := range lower.FindAllStringSubmatch(string(text), -1) {
		if n, err := strconv.ParseUint(m[2], 10, 31); err == nil && n > b.raised[m[1]] {
			if b.raised == nil {
				b.raised = map[string]uint64{}
			}
			b.raised[m[1]], more = n, true
		}
	}
	return more
}

// raisedWords names what was raised.
func (b *build) raisedWords() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(b.raised)) {
		out = append(out, fmt.Sprintf("%s = %d", name, b.raised[name]))
	}
	return strings.Join(out, ", ")
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
