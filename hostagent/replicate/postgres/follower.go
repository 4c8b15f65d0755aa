package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// Options says what to follow, and where to.
type Options struct {
	replicate.Options
	Service string // what the cluster is reached by, for people: no secret is in it
	Slot    string // name of the replication slot, which is made if it is missing

	// Config says how the cluster is reached. It is asked for each connection, so that a new password is read.
	Config func() (*pgconn.Config, error)
	// Base makes the base backup with which a lineage begins. It asks [ReadTail] for its place in the log before it begins.
	Base func(ctx context.Context) (Base, error)

	Memory  int           // bytes of WAL that wait, in memory; 0: a default
	Watch   time.Duration // how often to look at the slot; 0: a default
	Ping    time.Duration // how often the server is asked for a sign of life, by which it is known that all is here; 0: a default
	Silence time.Duration // after how long without a word a connection counts as cut; 0: a default
}

// Base is a base backup that was made.
type Base struct {
	Number uint64
	Place  *log.Place   // in the log; nil: it stands for itself
	Stop   postgres.LSN // where it ends
}

// Defaults of [Options].
const (
	DefaultWatch   = 10 * time.Second
	DefaultPing    = time.Second
	DefaultSilence = 20 * time.Second
)

// Follower follows one cluster. It is a [replicate.Follower].
type Follower struct {
	*replicate.Keeper
	o Options

	known    *mark  // what the last process or line came to; nil: nothing is known
	line     *line  // that is at work; nil: none
	made     bool   // the slot was made by us
	remake   bool   // the slot is to be made anew if it is lost: the WAL that was asked for is not there
	page     uint32 // size of pages of the server's WAL, bytes
	relays   bool   // the server is a standby, or looks like one
	failures int    // to reach the server, in a row

	mu     sync.Mutex
	gap    string                 // why the last lineage ended, and no base backup has made up for it; guarded by mu
	rest   time.Time              // no base backup that makes up for a gap begins before; guarded by mu
	shown  map[subject]*condition // guarded by mu
	warned map[string]bool        // what was told; guarded by mu
}

// New returns a follower that does nothing yet.
func New(o Options) *Follower {
	keeper := replicate.NewKeeper(&o.Options, o.Service)
	replicate.Default(&o.Watch, DefaultWatch)
	replicate.Default(&o.Ping, DefaultPing)
	replicate.Default(&o.Silence, DefaultSilence)
	return &Follower{
		Keeper: keeper, o: o, shown: map[subject]*condition{aboutServer: {state: replicate.Starting}}, warned: map[string]bool{},
	}
}

// Run follows the cluster until ctx ends; then it ships what there is, within the grace, and returns nil. What can be mended,
// by time or by a person, is a state and no end.
//
// Errors: replicate.ErrFollowed, replicate.ErrSuperseded, those of the state directory.
func (f *Follower) Run(ctx context.Context) error {
	known := new(mark)
	return f.Hold(policy.KindPostgres, known, func(found bool) error {
		if found {
			f.made = known.Made && known.Slot == f.o.Slot
		}
		if found && !f.o.Renew {
			f.known = known
		}
		forgetKey(f.o.Dir) // of an epoch of wal-push, that does not go on
		return f.Follow(func() error { return f.follow(ctx) })
	})
}

// lookAgain is how often a server is looked at that can't be followed.
const lookAgain = time.Second

// follow goes from one connection to the next.
func (f *Follower) follow(ctx context.Context) error {
	if err := replicate.Again(ctx, f.attempt); err != nil || f.line == nil {
		return err
	}
	err := f.close(errEnded)
	if errors.Is(err, replicate.ErrSuperseded) {
		return err
	}
	return nil // what is not durable is received again
}

// close ends the line and keeps its mark.
func (f *Follower) close(reason error) error {
	if f.line == nil {
		return nil
	}
	err := f.line.end(reason)
	f.known, f.line = f.line.mark(), nil
	if errors.Is(err, reason) {
		return nil
	}
	return err
}

// attempt follows the cluster over one connection, and returns how long to wait before the next.
func (f *Follower) attempt(ctx context.Context) (time.Duration, error) {
	if replicate.Held(f.o.Dir) {
		f.Unsure()
		f.note(aboutServer, &condition{replicate.Waiting, "a restore in place is at work, which may put the server back that was there before", "nothing needs to be done: it goes on when the restore has ended"})
		return lookAgain, nil
	}
	c, s, err := f.connect(ctx)
	if err != nil {
		return f.unreached(ctx, err), nil
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := f.settle(ctx); err != nil {
		return 0, nil //nolint:nilerr // it was asked to end
	}
	m, received := f.known, postgres.LSN(0)
	if m != nil {
		received = m.Last.LSN
	}
	if l := f.line; l != nil {
		if m = l.mark(); m.Timeline != l.receiving {
			return 0, f.over(ctx, "") // in the midst of a turn
		}
		_, _, received = l.q.waits()
	}
	step := plan(m, received, s)
	switch step.course {
	case refuse:
		f.Unsure()
		f.note(aboutServer, &condition{step.state, step.why, step.hint})
		return lookAgain, nil
	case gap:
		return 0, f.over(ctx, step.why)
	case fork:
		if f.line != nil {
			return 0, f.over(ctx, "")
		}
	case begin:
		f.mu.Lock()
		wait, why := time.Until(f.rest), f.gap
		f.mu.Unlock()
		if wait > 0 && why != "" {
			f.note(aboutServer, &condition{replicate.Waiting, why, "the base backup that makes up for it is made at most a tenth of the time"})
			return min(wait, lookAgain), nil
		}
	case resume:
	}
	if err := f.prepare(ctx, c, s, step); err != nil {
		return f.unreached(ctx, err), nil
	}
	return f.ran(ctx, f.stream(ctx, c, s))
}

// connectWithin bounds how long it takes to connect, and to ask a server what it is.
const connectWithin = 20 * time.Second

// connect connects to the server and asks what it is.
func (f *Follower) connect(ctx context.Context) (c *wire.Conn, s server, err error) {
	config, err := f.o.Config()
	if err != nil {
		return nil, server{}, err
	}
	within, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	if c, err = wire.Connect(within, config); err != nil {
		return nil, server{}, err
	}
	if s, err = f.identify(within, c); err != nil {
		return nil, server{}, errors.Join(err, c.Close(context.WithoutCancel(ctx)))
	}
	return c, s, nil
}

func (f *Follower) identify(ctx context.Context, c *wire.Conn) (s server, err error) {
	system, err := c.Identify(ctx)
	if err != nil {
		return server{}, err
	}
	segment, err := c.Setting(ctx, "wal_segment_size")
	if err != nil {
		return server{}, err
	}
	page, err := c.Setting(ctx, "wal_block_size")
	if err != nil {
		return server{}, err
	}
	if err := f.askRelays(ctx, c); err != nil {
		return server{}, err
	}
	f.page = uint32(page)                                                                                                           //nolint:gosec // a page says it too
	s = server{system: system.ID, timeline: system.Timeline, position: system.Position, segment: uint32(segment), local: c.Local()} //nolint:gosec // checked next
	if err := postgres.CheckSegmentSize(s.segment); err != nil {
		return server{}, fmt.Errorf("wal_segment_size: %w", err)
	}
	if s.timeline > 1 {
		_, s.content, err = c.History(ctx, s.timeline)
		if err == nil {
			s.history, err = postgres.ParseHistory(s.timeline, s.content)
		}
		if err != nil && !wire.IsMissing(err) { // who goes on with the same timeline needs no history
			return server{}, err
		}
	}
	f.Set(func(st *replicate.Status) {
		cluster := replicate.Cluster{}
		if st.Cluster != nil {
			cluster = *st.Cluster
		}
		cluster.System, cluster.Version, cluster.Timeline = fmt.Sprint(s.system), c.Version().String(), s.timeline
		st.Cluster = &cluster
	})
	return s, nil
}

// settle finds out whether a record had become durable that a process was about to put when it was killed: the store knows.
func (f *Follower) settle(ctx context.Context) error {
	if f.line != nil || f.known == nil || f.known.Pending == nil {
		return nil
	}
	return f.Persist(ctx, func() (again bool, err error) {
		m := f.known.clone()
		place, err := log.Resume(ctx, f.o.Repository, f.o.Source, m.Last.Place, []log.Place{m.Pending.Place})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			f.note(aboutServer, &condition{replicate.Away, err.Error(), replicate.HintOf(err)})
			return true, err
		}
		if place == m.Pending.Place {
			m.reached(*m.Pending)
		}
		m.Pending = nil
		f.known = m
		return false, nil
	})
}

// prepare has everything ready to go on: the slot, and the line.
func (f *Follower) prepare(ctx context.Context, c *wire.Conn, s server, step step) error {
	within, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	err := f.slot(within, c)
	if err != nil || f.line != nil {
		return err
	}
	if step.course == begin {
		if s.timeline > 1 && s.content == nil {
			return fmt.Errorf("the server has no history file of its timeline %d, without which no log of it can begin", s.timeline)
		}
		// The base backup needs nothing that is before what the server has now.
		if f.known, err = newMark(s.system, s.timeline, s.segment, s.position.SegmentStart(s.segment)); err != nil {
			return err
		}
	}
	m := f.known.clone()
	m.Slot, m.Made, m.Gone = f.o.Slot, f.made, false
	if step.course == fork && step.at < m.BaseStop {
		// Recovery from that base backup needs WAL that is not on this branch. There may be others, of which nothing is known here.
		m.Based = false
	}
	if err := f.Marks.Set(m, true); err != nil {
		return err
	}
	f.known = m
	t := (*turn)(nil)
	if step.course == fork {
		content := s.content
		if step.timeline != s.timeline {
			if content, err = f.history(within, c, step.timeline); err != nil {
				return err
			}
		}
		t = &turn{timeline: step.timeline, at: step.at, history: content, time: m.onward().Time, after: &step.place}
	}
	history := s.content
	if m.Last.Place.Sequence == 0 && m.Timeline > 1 && m.Timeline != s.timeline { // nothing was stored before a promotion
		if history, err = f.history(within, c, m.Timeline); err != nil {
			return err
		}
	}
	f.line = f.newLine(ctx, m, step.course == fork)
	f.line.history, f.line.q.page = history, f.page
	if t != nil {
		f.line.receiving = t.timeline
		return f.line.q.turn(t)
	}
	return nil
}

// ran is what follows from the end of a connection.
func (f *Follower) ran(ctx context.Context, err error) (time.Duration, error) {
	var g *gapError
	switch {
	case ctx.Err() != nil:
		return 0, nil //nolint:nilerr // it was asked to end
	case errors.As(err, &g):
		return 0, f.over(ctx, g.why)
	case wire.IsRemoved(err) && !f.remake:
		// Perhaps only the slot is lost, and the WAL is still there: with a new one it is tried once more.
		f.remake = true
		return 0, nil
	case wire.IsRemoved(err):
		return lookAgain, f.over(ctx, err.Error())
	case errors.Is(err, errLineOver), errors.Is(err, errParted):
		return 0, f.over(ctx, "")
	case errors.Is(err, errHoleInStream):
		f.Tell(replicate.Event{Kind: replicate.Trouble, Why: err.Error()})
		return lookAgain, f.over(ctx, "")
	}
	return f.unreached(ctx, err), nil
}

// over ends the line. Gap is why the lineage ends with it; empty: it goes on.
func (f *Follower) over(ctx context.Context, gap string) error {
	err := f.close(errAgain)
	var g *gapError
	switch {
	case errors.Is(err, replicate.ErrSuperseded):
		return err
	case errors.As(err, &g):
		gap = g.why
	case err != nil && ctx.Err() == nil:
		f.Unsure()
		f.note(aboutServer, &condition{replicate.Failing, err.Error(), replicate.HintOf(err)})
		replicate.Sleep(ctx, lookAgain)
	}
	if gap != "" {
		f.mu.Lock()
		f.gap = gap
		f.mu.Unlock()
		f.known = nil
		f.Missed(gap, 0)
	}
	return nil
}

const (
	// A server that is restarted is back within seconds.
	firstReconnect = 200 * time.Millisecond
	mostReconnect  = 5 * time.Second
)

// unreached notes that the server can't be reached, or does not do what is asked, and returns how long to wait. What passes
// at the next attempt is no state.
func (f *Follower) unreached(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	wait := min(firstReconnect<<min(f.failures, 10), mostReconnect)
	f.failures++
	if f.failures > 1 || !wire.IsTransient(err) {
		f.Unsure()
		state := replicate.Unreached
		if wire.IsInUse(err) {
			state = replicate.Occupied
		}
		f.note(aboutServer, &condition{state, err.Error(), replicate.HintOf(err)})
	}
	return wait
}
