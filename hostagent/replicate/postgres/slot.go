package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// slotState is what must be known of a slot before it is used.
type slotState struct {
	there  bool
	keeps  bool // it keeps WAL
	lost   bool // the server says that WAL is gone which it should have kept
	active bool
	kind   string // "physical" or "logical"; empty: not known
}

// readSlot looks at a slot, by an ordinary connection if the server lets us have one.
func (f *Follower) readSlot(ctx context.Context, c *wire.Conn) (slotState, error) {
	if q, err := f.query(ctx); err == nil {
		defer func() { _ = q.Close(context.WithoutCancel(ctx)) }()
		if s, err := readSlot(ctx, q, f.o.Slot); err == nil {
			return slotState{there: s.there, keeps: s.Restart != "", lost: s.State == walLost, active: s.Active, kind: s.kind}, nil
		}
	}
	s, ok, err := c.Slot(ctx, f.o.Slot)
	if errors.Is(err, wire.ErrVersion) {
		// Such an old server tells only by refusing to make it again.
		switch err := c.CreateSlot(ctx, f.o.Slot, wire.SlotOptions{Reserve: true}); {
		case err == nil:
			f.made = true
			return slotState{there: true, keeps: true}, nil
		case wire.IsExists(err):
			return slotState{there: true, keeps: true}, nil
		default:
			return slotState{}, err
		}
	}
	// A slot that was made with reserved WAL has a place, unless the server has taken it away.
	return slotState{there: ok, keeps: s.Restart != 0, lost: ok && s.Restart == 0 && f.made, kind: s.Type}, err
}

// slot makes the slot if it is missing, or lost.
func (f *Follower) slot(ctx context.Context, c *wire.Conn) error {
	s, err := f.readSlot(ctx, c)
	if err != nil {
		return err
	}
	switch {
	case !s.there:
		f.moved()
	case s.kind != "" && s.kind != "physical":
		return &wrongSlotError{f.o.Slot, s.kind}
	case !s.lost && (s.keeps || !f.remake):
		return nil
	case !f.made && !strings.HasPrefix(f.o.Slot, "holdfast"):
		return &lostSlotError{f.o.Slot}
	default:
		f.warn(fmt.Sprintf("slot %s was lost: the server has removed WAL that it kept, or is about to", f.o.Slot), "a new one takes its place; raise max_slot_wal_keep_size if the repository can be away for longer")
		if err := c.DropSlot(ctx, f.o.Slot, false); err != nil && !wire.IsMissing(err) {
			return err
		}
	}
	if err := c.CreateSlot(ctx, f.o.Slot, wire.SlotOptions{Reserve: true}); err != nil && !wire.IsExists(err) {
		return err
	}
	f.made = true
	return nil
}

// moved tells that a slot is not there which was made before: the service may lead to another server.
func (f *Follower) moved() {
	m := f.known
	if f.line != nil {
		m = f.line.mark()
	}
	if m == nil || !m.Made || m.Gone || m.Slot != f.o.Slot || m.Last.Place.Sequence == 0 {
		return
	}
	f.warn(fmt.Sprintf("the server had no slot %s, which was there before: it is made anew", f.o.Slot),
		"where this is another server than before, drop the slot on that one, or it keeps WAL until the disk is full: "+
			fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", f.o.Slot))
}

// wrongSlotError says that a slot can't be used.
type wrongSlotError struct{ name, kind string }

func (e *wrongSlotError) Error() string {
	return fmt.Sprintf("slot %s is %s: WAL is streamed from physical ones", e.name, e.kind)
}

func (*wrongSlotError) Hint() string {
	return "name another slot in the policy (slot), which is made if it is missing"
}

// lostSlotError says that a slot is lost that was not made here.
type lostSlotError struct{ name string }

func (e *lostSlotError) Error() string {
	return "slot " + e.name + " is lost, and was not made by holdfast"
}

func (e *lostSlotError) Hint() string {
	return fmt.Sprintf("drop it with SELECT pg_drop_replication_slot('%s'): it is made again then, and a base backup makes up for what is missing", e.name)
}

// DropSlot removes the slot of a source from a server, so that it keeps no WAL any more: for who does not want the source to
// be followed any longer. The source must not be followed now. It reports whether there was one.
//
// Errors: replicate.ErrFollowed; wire.IsInUse where something else streams from it; ErrNotOurs.
func DropSlot(ctx context.Context, config *pgconn.Config, dir, name string) (bool, error) {
	held, err := replicate.Lock(dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = held.Close() }()
	m := new(mark)
	found, err := replicate.ReadMark(dir, policy.KindPostgres, m)
	if err != nil {
		return false, err
	}
	if made := found && m.Made && m.Slot == name; !made && !strings.HasPrefix(name, "holdfast") {
		return false, fmt.Errorf("drop slot %s: %w", name, ErrNotOurs)
	}
	c, err := wire.Connect(ctx, config)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	err = c.DropSlot(ctx, name, false)
	// Who has just stopped to follow is connected until its process at the server has noticed.
	for end := time.Now().Add(leftWithin); wire.IsInUse(err) && time.Now().Before(end) && ctx.Err() == nil; {
		replicate.Sleep(ctx, leftAgain)
		err = c.DropSlot(ctx, name, false)
	}
	there := !wire.IsMissing(err)
	if err != nil && there {
		return false, err
	}
	if found && m.Slot == name {
		return there, gone(dir)
	}
	return there, nil
}

// leftWithin is for how long a slot may be in use that nobody on this host follows any more, and leftAgain how often it is looked
// at.
const (
	leftWithin = 10 * time.Second
	leftAgain  = 50 * time.Millisecond
)

// gone notes that the slot was removed.
func gone(dir string) error {
	m := new(mark)
	marks, found, err := replicate.OpenMarks(dir, policy.KindPostgres, m)
	if err != nil {
		return err
	}
	if m.Gone = true; found {
		err = marks.Set(m, true)
	}
	return errors.Join(err, marks.Close())
}

// ErrNotOurs says that a slot was not made by this program.
var ErrNotOurs = errors.New("holdfast did not make this slot: it is left alone")

// What wal_status of pg_replication_slots says.
const (
	walUnreserved = "unreserved" // the next checkpoint may remove WAL that it should keep
	walLost       = "lost"
)

// seenSlot is a slot as the server shows it.
type seenSlot struct {
	replicate.Slot
	there   bool
	standby bool
	data    string // the data directory, if the role may know it
	kind    string // "physical" or "logical"
	sync    string // "sync" or "quorum": commits on the server wait for us
}

// query opens an ordinary connection.
func (f *Follower) query(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := f.o.Config()
	if err != nil {
		return nil, err
	}
	return pgsource.SQL(ctx, config, "")
}

// slotQuery asks for everything at once. pg_settings shows nobody more than he may know.
const slotQuery = `SELECT s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.restart_lsn::text, ''), coalesce(s.wal_status, ''), s.safe_wal_size,
 coalesce(pg_wal_lsn_diff(CASE WHEN r.standby THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint,
 r.standby, (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
 coalesce(s.slot_type, ''), (SELECT a.sync_state FROM pg_stat_replication a WHERE a.pid = s.active_pid)
 FROM (SELECT pg_is_in_recovery() AS standby) r LEFT JOIN pg_replication_slots s ON s.slot_name = $1`

// readSlot asks a server for a slot and what limits it.
func readSlot(ctx context.Context, q *pgconn.PgConn, name string) (*seenSlot, error) {
	r := q.ExecParams(ctx, slotQuery, [][]byte{[]byte(name)}, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, wire.Explain("look at slot "+name, r.Err)
	}
	if len(r.Rows) != 1 || len(r.Rows[0]) != 11 {
		return nil, fmt.Errorf("look at slot %s: the server gave %d rows", name, len(r.Rows))
	}
	row := r.Rows[0]
	s := &seenSlot{there: string(row[0]) == "t", standby: string(row[6]) == "t", data: string(row[8]), kind: string(row[9]), sync: string(row[10])}
	s.Name, s.Active, s.Restart, s.State = name, string(row[1]) == "t", string(row[2]), string(row[3])
	if v, err := strconv.ParseInt(string(row[4]), 10, 64); err == nil {
		s.Safe = &v
	}
	if v, err := strconv.ParseInt(string(row[5]), 10, 64); err == nil && v > 0 {
		s.Retained = uint64(v)
	}
	if v, err := strconv.ParseInt(string(row[7]), 10, 64); err == nil && v >= 0 { // in megabytes; -1: no limit
		limit := uint64(v) << 20
		s.Limit = &limit
	}
	return s, nil
}

// space looks how much room is where a server on this host keeps its WAL.
func (s *seenSlot) space() {
	if s.data == "" {
		return
	}
	for _, path := range []string{filepath.Join(s.data, "pg_wal"), s.data} {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) != nil {
			continue
		}
		free, size := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize) //nolint:gosec,unconvert // sizes; signed on some systems
		s.Free, s.Disk = &free, &size
		return
	}
}

// stops reports whether a server said that it is being stopped, or has ended a connection because of it. One that streams
// is not starting.
func stops(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && (e.Code == "57P01" || e.Code == "57P03")
}

// watchSlot looks at the slot again and again: what it keeps, and what threatens it. It calls stopping when it finds out
// that the server is being stopped: while the store is away the stream is not read, and nothing else would tell.
func (f *Follower) watchSlot(ctx context.Context, srv server, stopping func()) {
	var q *pgconn.PgConn
	defer func() {
		if q != nil {
			_ = q.Close(context.WithoutCancel(ctx))
		}
	}()
	for ; ctx.Err() == nil; replicate.Sleep(ctx, f.o.Watch) {
		within, cancel := context.WithTimeout(ctx, connectWithin)
		s, err := (*seenSlot)(nil), error(nil)
		if q == nil {
			q, err = f.query(within)
		}
		if err == nil {
			s, err = readSlot(within, q, f.o.Slot)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if q != nil {
				_ = q.Close(context.WithoutCancel(ctx))
				q = nil
			}
			if stops(err) {
				replicate.Sleep(ctx, patience)
				stopping()
			} else if !wire.IsTransient(err) {
				f.unseen(err)
			}
			continue
		}
		if srv.local {
			s.space()
		}
		f.saw(s)
	}
}

// unseen notes that nothing is known of the slot.
func (f *Follower) unseen(err error) {
	why := "the slot can't be watched: " + err.Error()
	f.warn(why, "let the role connect to a database as well, not only for replication: a line in pg_hba.conf")
	f.Set(func(st *replicate.Status) {
		c := replicate.Cluster{}
		if st.Cluster != nil {
			c = *st.Cluster
		}
		c.Slot, c.Notes = nil, []string{why}
		st.Cluster = &c
	})
	f.note(aboutSlot, nil)
}

// saw notes how the slot is.
func (f *Follower) saw(s *seenSlot) {
	c := danger(&s.Slot, s.standby)
	notes := notesOf(s)
	for _, note := range notes {
		f.warn(note, "")
	}
	f.Set(func(st *replicate.Status) {
		cluster := replicate.Cluster{}
		if st.Cluster != nil {
			cluster = *st.Cluster
		}
		slot := s.Slot
		cluster.Slot, cluster.Standby, cluster.Notes = &slot, s.standby, notes
		st.Cluster = &cluster
	})
	f.note(aboutSlot, c)
}

const (
	// leastSafe is which part of max_slot_wal_keep_size must be left before it is told.
	leastSafe = 5
	// leastFree is which part of the disk must be free, and notable what a slot keeps that matters, in bytes.
	leastFree = 10
	notable   = 256 << 20
)

// danger says what threatens a slot, or the server because of it; nil: nothing.
func danger(s *replicate.Slot, standby bool) *condition {
	hint := "look why WAL is not stored: `holdfast status`; max_slot_wal_keep_size says how much of it the server keeps until then"
	if standby {
		hint += "; of a standby, checkpoints of the primary do not count"
	}
	// The texts stay the same as long as the danger does, so that it is told once; the figures are in the status.
	switch {
	case s.State == walLost:
		return &condition{replicate.Endangered, fmt.Sprintf("slot %s is lost: the server does not keep its WAL any more", s.Name), hint}
	case s.State == walUnreserved:
		return &condition{replicate.Endangered, fmt.Sprintf("slot %s keeps more WAL than the server allows: its next checkpoint removes some of it", s.Name), hint}
	case s.Safe != nil && s.Limit != nil && *s.Limit > 0 && s.Retained > *s.Limit/2 && *s.Safe < int64(*s.Limit)/leastSafe: //nolint:gosec // of megabytes
		return &condition{replicate.Endangered, fmt.Sprintf(
			"slot %s is about to be lost: of the %s of WAL that the server keeps for it, less than a fifth is left", s.Name, humanize.IBytes(*s.Limit),
		), hint}
	case s.Free != nil && s.Disk != nil && s.Retained >= notable && *s.Free < *s.Disk/leastFree:
		return &condition{
			replicate.Endangered, fmt.Sprintf("slot %s keeps WAL on the server's disk, of which less than a tenth is free", s.Name),
			"make room, or let WAL be stored again: " + hint,
		}
	}
	return nil
}

// notesOf says what should be set otherwise.
func notesOf(s *seenSlot) (notes []string) {
	if s.Limit == nil {
		notes = append(notes, "max_slot_wal_keep_size is not set: while the repository is away the slot keeps WAL until the server's disk is full; "+
			"set it to what the disk can spare (ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()): beyond that the slot is given up, and a base backup makes up for it")
	}
	if s.sync == "sync" || s.sync == "quorum" {
		notes = append(notes, "commits on the server wait until they are durable in the repository, and all stand still while that is away: "+
			"synchronous_standby_names takes in the application_name holdfast; leave it out, if that is not what is wanted")
	}
	return notes
}
