package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/postgres"
)

// pongWithin is after how long another sign of life is asked for where none came.
const pongWithin = 5 * time.Second

// errLineOver says that nothing is shipped any more.
var errLineOver = errors.New("the log can not go on")

// errParted says that the server has left the timeline before what it has sent of it: the log is taken up again from its
// mark, and goes on from where they part.
var errParted = errors.New("the server was promoted, and left the timeline before what was received of it")

// session is a connection over which WAL is received.
type session struct {
	f      *Follower
	l      *line
	c      *wire.Conn
	asked  chan struct{} // the server wants to hear from us
	cancel context.CancelCauseFunc

	timeline uint32 // that the server is on, as far as is known
	proven   bool   // what the server has right before is what is stored; of who receives

	mu       sync.Mutex
	heard    time.Time    // when the server was heard last; guarded by mu, as all below
	pinged   time.Time    // when the ping was sent that is not answered; zero: none
	answered time.Time    // when the ping was sent that was answered last, or the stream was asked for
	caught   bool         // all that the server had when it sent the newest WAL is here
	behind   bool         // the server had more when it sent the newest WAL, which comes
	acked    postgres.LSN // was acknowledged
	wanted   time.Time    // since when the server asks for answers again and again; zero: it does not
	wantedAt time.Time    // when it asked last
}

// stream receives WAL until something ends that: the connection, the line, or ctx.
func (f *Follower) stream(ctx context.Context, c *wire.Conn, srv server) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{f: f, l: f.line, c: c, asked: make(chan struct{}, 1), cancel: cancel, timeline: srv.timeline, heard: time.Now()}
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel(nil)
	others.Go(func() { s.watch(ctx) })
	others.Go(func() {
		f.watchSlot(ctx, srv, func() {
			if s.l.q.full() { // who reads hears it from the server
				cancel(&stoppingError{})
			}
		})
	})
	s.l.q.lagging()
	err := s.timelines(ctx)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return cause // why the connection was given up
	}
	return err
}

// timelines streams one timeline after the other.
func (s *session) timelines(ctx context.Context) error {
	for {
		stream, err := s.begin(ctx)
		if err != nil {
			return err
		}
		s.streams()
		if err := s.receive(ctx, stream); !errors.Is(err, io.EOF) {
			return err
		}
		if err := s.turn(ctx, stream); err != nil {
			return err
		}
	}
}

// begin has the server stream what comes next, after it has proven what it has right before.
func (s *session) begin(ctx context.Context) (*wire.Stream, error) {
	next, sum := s.l.q.proof()
	if sum != nil {
		stream, err := s.from(ctx, sum.From)
		if err == nil {
			err = s.prove(ctx, stream, next, sum)
		}
		// The segment before is not needed any more, and may be gone: then nothing tells.
		if !wire.IsRemoved(err) || next != next.SegmentStart(s.l.q.segment) {
			return stream, err
		}
	}
	return s.from(ctx, next)
}

func (s *session) from(ctx context.Context, at postgres.LSN) (*wire.Stream, error) {
	s.mu.Lock()
	s.answered, s.pinged, s.caught, s.behind = time.Now(), time.Time{}, false, false
	s.mu.Unlock()
	return s.c.Stream(ctx, wire.StreamOptions{Slot: s.f.o.Slot, Start: at, Timeline: s.l.receiving})
}

// streams notes that the server streams what comes next: nothing is missing.
func (s *session) streams() {
	f := s.f
	f.failures, f.remake, s.proven = 0, false, true
	select {
	case <-s.l.begun:
		if s.l.mark().Based {
			f.Follows(s.l.describe)
		}
	default:
		close(s.l.begun)
	}
	f.note(aboutServer, nil)
}

// prove looks whether the server has right before next the same WAL as is stored, and goes on with what comes behind it.
func (s *session) prove(ctx context.Context, stream *wire.Stream, next postgres.LSN, sum *check) error {
	defer s.acknowledging(ctx, stream)()
	var before []byte
	for {
		m, err := s.message(ctx, stream)
		if errors.Is(err, io.EOF) {
			return &gapError{fmt.Sprintf("timeline %d of the server ends before %s, up to where it is stored", s.l.receiving, next)}
		}
		if err != nil {
			return err
		}
		if m.WAL == nil {
			continue
		}
		at := sum.From + postgres.LSN(len(before))
		if m.Start != at {
			return fmt.Errorf("%w: %s comes where %s is due", errHoleInStream, m.Start, at)
		}
		n := int(min(postgres.LSN(len(m.WAL)), sum.To-at)) //nolint:gosec // of a message
		before = append(before, m.WAL[:n]...)
		if at+postgres.LSN(n) < sum.To {
			continue
		}
		if *checkOf(sum.From, before) != *sum {
			return &gapError{fmt.Sprintf("the server has other WAL right before %s than what is stored: it was put back to an older state, or is another server", next)}
		}
		s.l.q.proven(sum.From, before)
		s.proven = true
		return s.add(ctx, sum.To, m.WAL[n:], m)
	}
}

// receive takes what the server sends until it ends the timeline, which is io.EOF.
func (s *session) receive(ctx context.Context, stream *wire.Stream) error {
	defer s.acknowledging(ctx, stream)()
	for {
		m, err := s.message(ctx, stream)
		if err != nil {
			return err
		}
		if m.WAL == nil {
			continue
		}
		if err := s.add(ctx, m.Start, m.WAL, m); err != nil {
			return err
		}
	}
}

// add takes the WAL of a message, from start on.
func (s *session) add(ctx context.Context, start postgres.LSN, wal []byte, m wire.Message) error {
	s.l.mu.Lock()
	known := s.l.looked
	s.l.mu.Unlock()
	err := s.l.q.add(ctx, start, wal, arrival{sent: m.Time, came: time.Now(), known: known, caught: s.whole(m), relayed: s.f.relays})
	if err != nil || !s.whole(m) || s.f.relays { // a standby may have been promoted just now: what came next is on another timeline
		return err
	}
	// It was sent after what was answered before it came.
	s.mu.Lock()
	known = s.answered
	s.mu.Unlock()
	s.looked(known)
	return nil
}

// looked notes that all is here that was committed by a time.
func (s *session) looked(by time.Time) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.proven && by.After(s.l.looked) {
		s.l.looked = by
	}
}

// askRelays asks whether the server is a standby. In recovery all transactions read only; one that is no standby and whose
// transactions do counts as one, by which nothing is lost.
func (f *Follower) askRelays(ctx context.Context, c *wire.Conn) error {
	readOnly, err := c.Show(ctx, "transaction_read_only")
	f.relays = readOnly != "off"
	return err
}

// whole reports whether a message ends where the server's WAL did when it was sent. Of signs of life that is not known: what
// they say is up to where WAL was sent. Nor does a timeline end there that the server has left: what came next is on another.
func (s *session) whole(m wire.Message) bool {
	return !s.left() && m.Start+postgres.LSN(len(m.WAL)) >= m.ServerEnd
}

// left reports whether the server has left the timeline that is received.
func (s *session) left() bool { return s.l.receiving < s.timeline }

// message receives a message and notes what it says besides WAL.
func (s *session) message(ctx context.Context, stream *wire.Stream) (wire.Message, error) {
	m, err := stream.Receive(ctx)
	if err != nil {
		return m, err
	}
	now := time.Now()
	s.mu.Lock()
	s.heard = now
	var known time.Time
	switch {
	case m.WAL != nil:
		s.behind = !s.whole(m)
		s.caught = !s.behind
	case !s.pinged.IsZero():
		// Between two answers the server has looked for new WAL. What was committed when the first of them was asked for came
		// before the second, unless there was too much of it.
		if s.caught {
			known = s.answered
		}
		s.answered, s.pinged = s.pinged, time.Time{}
		s.caught = !s.behind && !s.left()
	}
	stops := m.ReplyRequested && s.insists(now)
	s.mu.Unlock()
	if m.ReplyRequested {
		replicate.Nudge(s.asked)
	}
	if stops {
		return m, &stoppingError{}
	}
	s.l.mu.Lock()
	s.l.server = m.ServerEnd
	s.l.mu.Unlock()
	s.looked(known)
	return m, nil
}

const (
	// patience is for how long a server that is being stopped waits for us, at most.
	patience = 5 * time.Second
	// A server that hears from us all the time has no reason to ask, but at its end: then it asks again at once.
	insisting = 500 * time.Millisecond
)

// insists notes that the server wants an answer, and reports whether it is kept from stopping by us: it waits until all is
// acknowledged that it has sent, for ever if we go on to answer. The caller holds mu.
func (s *session) insists(now time.Time) bool {
	if s.wanted.IsZero() || now.Sub(s.wantedAt) > insisting {
		s.wanted = now
	}
	s.wantedAt = now
	return now.Sub(s.wanted) > patience
}

// stoppingError says that a server is being stopped.
type stoppingError struct{}

func (*stoppingError) Error() string {
	return "stream WAL: the server is being stopped, and what it has sent is not durable yet: it is not kept waiting, its slot keeps the WAL"
}

func (*stoppingError) Hint() string { return "start the server again; look why WAL is not stored" }

// acknowledging acknowledges what is durable until stop is called, and asks for signs of life.
func (s *session) acknowledging(ctx context.Context, stream *wire.Stream) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.acknowledge(ctx, stream)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (s *session) acknowledge(ctx context.Context, stream *wire.Stream) {
	ticks := time.NewTicker(s.f.o.Ping)
	defer ticks.Stop()
	for {
		reply := false
		select {
		case <-ctx.Done():
			return
		case <-s.l.safe:
		case <-s.asked:
		case now := <-ticks.C:
			reply = s.ping(now)
		}
		s.l.mu.Lock()
		durable := s.l.acked
		s.l.mu.Unlock()
		s.mu.Lock()
		s.acked = max(s.acked, durable)
		at := s.acked
		s.mu.Unlock()
		// Written and applied are the same: nothing here is safer than what is durable, and who waits for us waits for that.
		if err := stream.Feedback(wire.Feedback{Written: at, Flushed: at, Applied: at, Reply: reply}); err != nil {
			s.cancel(err)
			return
		}
	}
}

// ping reports whether to ask for a sign of life now.
func (s *session) ping(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pinged.IsZero() && now.Sub(s.pinged) < pongWithin {
		return false
	}
	s.pinged = now
	return true
}

// turn goes on with the next timeline.
func (s *session) turn(ctx context.Context, stream *wire.Stream) error {
	next, at, err := stream.End(ctx)
	if err != nil {
		return err
	}
	if next == 0 {
		return fmt.Errorf("stream WAL: %w", io.ErrUnexpectedEOF) // the server stops
	}
	switch _, _, received := s.l.q.waits(); {
	case received < at:
		return &gapError{fmt.Sprintf("timeline %d ended at %s, and was received up to %s", s.l.receiving, at, received)}
	case received > at:
		// A standby passes on what it has received, also the beginning of a record whose end never came. When it is promoted,
		// its timeline leaves the old one before that.
		return errParted
	}
	content, err := s.f.history(ctx, s.c, next)
	if err != nil {
		return err
	}
	if h, err := postgres.ParseHistory(next, content); err != nil {
		return err
	} else if was, ok := h.SwitchOf(s.l.receiving); !ok || was != at {
		return fmt.Errorf("the history of timeline %d does not say that it left timeline %d at %s", next, s.l.receiving, at)
	}
	if err := s.f.askRelays(ctx, s.c); err != nil {
		return err
	}
	if err := s.l.q.turn(&turn{timeline: next, at: at, history: content}); err != nil {
		return err
	}
	s.l.receiving = next
	return nil
}

// history fetches the history file of a timeline that the server is on, or came from. A server that was not there need not
// have it, as its own tells the same.
func (f *Follower) history(ctx context.Context, c *wire.Conn, timeline uint32) ([]byte, error) {
	_, content, missing := c.History(ctx, timeline)
	if !wire.IsMissing(missing) {
		return content, missing
	}
	system, err := c.Identify(ctx)
	if err != nil || system.Timeline <= timeline {
		return nil, errors.Join(missing, err)
	}
	_, own, err := c.History(ctx, system.Timeline)
	if err != nil {
		return nil, err
	}
	h, err := postgres.ParseHistory(system.Timeline, own)
	if err != nil {
		return nil, err
	}
	if content = h.Ancestor(timeline); content == nil {
		return nil, missing
	}
	return content, nil
}

// watch gives the connection up when the server is silent for too long, or nothing is shipped any more.
func (s *session) watch(ctx context.Context) {
	ticks := time.NewTicker(max(min(time.Second, s.f.o.Silence/4), time.Millisecond))
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.l.done:
			s.cancel(errLineOver)
			return
		case now := <-ticks.C:
			s.mu.Lock()
			if s.l.q.full() {
				s.heard = now // it is us who do not listen
			}
			silent := now.Sub(s.heard)
			s.mu.Unlock()
			if silent > s.f.o.Silence {
				s.cancel(&silenceError{s.f.o.Silence})
				return
			}
		}
	}
}

// silenceError says that nothing came from the server, not even what it was asked for.
type silenceError struct{ d time.Duration }

func (e *silenceError) Error() string {
	return fmt.Sprintf("stream WAL: the server has not been heard for more than %s: the connection counts as cut", e.d)
}

func (*silenceError) Hint() string { return "look at the network between this host and the server" }
