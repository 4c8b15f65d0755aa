package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// StreamOptions say what is streamed.
type StreamOptions struct {
	Slot     string       // that keeps what is not acknowledged; empty: none
	Start    postgres.LSN // the first byte that is wanted
	Timeline uint32       // 0: the newest
}

// Stream is WAL on its way. [Stream.Receive] and [Stream.End] belong to one goroutine; [Stream.Feedback] may be called by
// another.
type Stream struct {
	c     *Conn
	op    string
	ended bool // the server has sent its CopyDone, or there was nothing to stream
	next  *message

	mu   sync.Mutex // orders what is sent
	wbuf []byte     // guarded by mu
}

// message is one that was read ahead.
type message struct {
	kind byte
	body []byte
}

// Message is what a server sends: WAL, or a sign of life.
type Message struct {
	WAL       []byte       // valid until the next Receive; nil: a sign of life
	Start     postgres.LSN // of the first byte of WAL
	ServerEnd postgres.LSN // up to where the server has WAL
	Time      time.Time    // when the server sent it, by its clock

	ReplyRequested bool // it wants to hear from us, or will take us for dead
}

// Feedback is how far a receiver is; 0 acknowledges nothing.
type Feedback struct {
	Written, Flushed, Applied postgres.LSN

	Reply bool // the server shall answer at once
}

// epoch is from which on the server counts microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Stream begins to stream WAL (START_REPLICATION). Errors: [IsRemoved], [IsInUse], [IsMissing] of the slot.
func (c *Conn) Stream(ctx context.Context, o StreamOptions) (*Stream, error) {
	s := &Stream{c: c, op: fmt.Sprintf("stream WAL from %s", o.Start)}
	command := "START_REPLICATION"
	if o.Slot != "" {
		command += " SLOT " + quote(o.Slot)
	}
	command += " PHYSICAL " + o.Start.String()
	if o.Timeline != 0 {
		command += fmt.Sprintf(" TIMELINE %d", o.Timeline)
	}
	done, err := c.guard(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := c.send(s.op, command); err != nil {
		return nil, ended(ctx, err)
	}
	for {
		kind, body, err := c.frames.next()
		if err != nil {
			return nil, ended(ctx, explain(s.op, err))
		}
		switch kind {
		case 'W': // CopyBothResponse
			return s, nil
		case 'T': // nothing is left of this timeline: the next follows at once
			s.ended, s.next = true, &message{kind, append([]byte(nil), body...)}
			return s, nil
		case 'E':
			return nil, ended(ctx, c.failed(s.op, body))
		default:
			if err := c.aside(s.op, kind, body); err != nil {
				return nil, err
			}
		}
	}
}

// Receive waits for the next message. Errors: io.EOF where the timeline has ended: call End; [IsRemoved]; [IsTransient].
func (s *Stream) Receive(ctx context.Context) (Message, error) {
	if s.ended {
		return Message{}, io.EOF
	}
	done, err := s.c.guard(ctx)
	if err != nil {
		return Message{}, err
	}
	defer done()
	for {
		kind, body, err := s.c.frames.next()
		if err != nil {
			return Message{}, ended(ctx, explain(s.op, err))
		}
		switch kind {
		case 'd':
			m, err := parseMessage(body)
			if err != nil {
				return Message{}, broken(s.op, "%w", err)
			}
			return m, nil
		case 'c':
			s.ended = true
			return Message{}, io.EOF
		case 'C': // without CopyDone: it will close the connection
			return Message{}, &Error{Op: s.op, Err: errEnded, hint: hintOf(&pgconn.PgError{Code: codeShutdown})}
		case 'E':
			return Message{}, ended(ctx, s.c.failed(s.op, body))
		default:
			if err := s.c.aside(s.op, kind, body); err != nil {
				return Message{}, err
			}
		}
	}
}

// parseMessage reads the body of a CopyData of a stream.
func parseMessage(body []byte) (Message, error) {
	at := func(i int) uint64 { return binary.BigEndian.Uint64(body[i:]) }
	stamp := func(i int) time.Time { return epoch.Add(time.Duration(int64(at(i))) * time.Microsecond) }
	switch {
	case len(body) >= 25 && body[0] == 'w':
		m := Message{Start: postgres.LSN(at(1)), ServerEnd: postgres.LSN(at(9)), Time: stamp(17), WAL: body[25:]}
		if uint64(m.Start)+uint64(len(m.WAL)) < uint64(m.Start) {
			return Message{}, fmt.Errorf("WAL of %d bytes at %s", len(m.WAL), m.Start)
		}
		return m, nil
	case len(body) == 18 && body[0] == 'k':
		return Message{ServerEnd: postgres.LSN(at(1)), Time: stamp(9), ReplyRequested: body[17] != 0}, nil
	case len(body) == 0:
		return Message{}, errors.New("an empty message")
	}
	return Message{}, fmt.Errorf("a message %q of %d bytes", body[0], len(body))
}

// Feedback tells the server how far the receiver is, exactly as it is said here. Errors: of the connection, which is of no
// use any more.
func (s *Stream) Feedback(f Feedback) error {
	reply := byte(0)
	if f.Reply {
		reply = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := append(s.wbuf[:0], 'd', 0, 0, 0, 4+34, 'r')
	b = binary.BigEndian.AppendUint64(b, uint64(f.Written))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Flushed))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Applied))
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(epoch)/time.Microsecond))
	b = append(b, reply)
	s.wbuf = b
	if _, err := s.c.conn.Conn().Write(b); err != nil {
		return explain("acknowledge WAL", err)
	}
	return nil
}

// Clock asks a server for the time by its clock, through a stream that begins at a place up to which it has WAL. No commit that
// is before the place has a later time on a server that is not a standby.
func (c *Conn) Clock(ctx context.Context, at postgres.LSN, timeline uint32) (time.Time, error) {
	s, err := c.Stream(ctx, StreamOptions{Start: at, Timeline: timeline})
	if err != nil {
		return time.Time{}, err
	}
	if err := s.Feedback(Feedback{Reply: true}); err != nil {
		return time.Time{}, err
	}
	m, err := s.Receive(ctx)
	if err != nil {
		return time.Time{}, err
	}
	_, _, err = s.End(ctx)
	return m.Time, err
}

// WAL fetches WAL of a timeline that is on the server's disk, as much as goes into memory. Errors: [IsRemoved]; io.EOF where the
// timeline ends before.
func (c *Conn) WAL(ctx context.Context, timeline uint32, from, to postgres.LSN) ([]byte, error) {
	s, err := c.Stream(ctx, StreamOptions{Start: from, Timeline: timeline})
	if err != nil {
		return nil, err
	}
	var out []byte
	for from+postgres.LSN(len(out)) < to {
		m, err := s.Receive(ctx)
		if err != nil {
			return nil, err
		}
		if m.WAL == nil {
			continue
		}
		at := from + postgres.LSN(len(out))
		if m.Start != at {
			return nil, broken(s.op, "WAL of %s comes where %s is due", m.Start, at)
		}
		out = append(out, m.WAL[:min(postgres.LSN(len(m.WAL)), to-at)]...)
	}
	_, _, err = s.End(ctx)
	return out, err
}

// End ends the stream, whoever has ended it first, and returns the timeline that follows and where it begins; 0 where none
// does. Then the connection takes commands again.
func (s *Stream) End(ctx context.Context) (next uint32, at postgres.LSN, err error) {
	done, err := s.c.guard(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	if s.next == nil {
		s.mu.Lock()
		_, err = s.c.conn.Conn().Write([]byte{'c', 0, 0, 0, 4})
		s.mu.Unlock()
		if err != nil {
			return 0, 0, ended(ctx, explain(s.op, err))
		}
	}
	var failure error
	for {
		kind, body, err := s.read()
		if err != nil {
			return 0, 0, ended(ctx, explain(s.op, err))
		}
		switch kind {
		case 'd', 'c', 'C', 'T': // what was on its way still, and what frames the row
		case 'D':
			if next, at, err = parseNext(body); err != nil {
				return 0, 0, broken(s.op, "%w", err)
			}
		case 'E':
			failure = errors.Join(failure, serverFailure(s.op, body))
		case 'Z':
			return next, at, failure
		default:
			if err := s.c.aside(s.op, kind, body); err != nil {
				return 0, 0, err
			}
		}
	}
}

func (s *Stream) read() (kind byte, body []byte, err error) {
	if m := s.next; m != nil {
		s.next = nil
		return m.kind, m.body, nil
	}
	return s.c.frames.next()
}

// parseNext reads the row that says how it goes on: the timeline and where it begins.
func parseNext(body []byte) (next uint32, at postgres.LSN, err error) {
	row, err := parseRow(body, 2)
	if err != nil {
		return 0, 0, err
	}
	timeline, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("timeline that follows: %w", err)
	}
	at, err = postgres.ParseLSN(string(row[1]))
	return uint32(timeline), at, err
}

// parseRow reads a DataRow of at least the given number of columns. NULL is nil.
func parseRow(body []byte, columns int) ([][]byte, error) {
	var row pgproto3.DataRow
	if err := row.Decode(body); err != nil {
		return nil, err
	}
	if len(row.Values) < columns {
		return nil, fmt.Errorf("a row of %d columns: want %d", len(row.Values), columns)
	}
	return row.Values, nil
}

// aside handles messages that may come at any time.
func (c *Conn) aside(op string, kind byte, body []byte) error {
	switch kind {
	case 'N':
		var n pgproto3.NoticeResponse
		if err := n.Decode(body); err == nil {
			c.notice(n.Message)
		}
	case 'S': // a setting of the session, of no interest here
	default:
		return broken(op, "message %q of %d bytes was not expected", kind, len(body))
	}
	return nil
}

// failed reads on to the point where commands are taken again, and returns the server's error.
func (c *Conn) failed(op string, body []byte) error {
	failure := serverFailure(op, body)
	for {
		kind, _, err := c.frames.next()
		if err != nil || kind == 'Z' {
			return failure // the error tells more than the end of the connection
		}
	}
}

// serverFailure is the error in an ErrorResponse.
func serverFailure(op string, body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return broken(op, "an error that can't be read: %w", err)
	}
	err := explain(op, pgconn.ErrorResponseToPgError(&m))
	var own *Error
	if errors.As(err, &own) {
		own.late = true
	}
	return err
}

// ended prefers to say that the context has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}
