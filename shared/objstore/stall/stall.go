// Package stall ends connections on which nothing moves, so that a server, a proxy or a network that has gone silent
// becomes an error that can be retried, instead of a wait without end. Use [Dialer] in the transport of an HTTP client.
//
// A connection counts as silent when neither a byte was read nor one could be written for the given time while somebody
// waits for it. How fast bytes come does not matter.
package stall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Silence is how long a connection may be silent unless its user says otherwise.
const Silence = 90 * time.Second

// DialFunc makes a connection, as in [net/http.Transport].
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer returns dial with a limit to the silence of its connections. A nil dial is that of net, a silence of 0 is
// [Silence].
func Dialer(dial DialFunc, silence time.Duration) DialFunc {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	if silence <= 0 {
		silence = Silence
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, silence: silence}, nil
	}
}

// conn moves its deadlines on whenever bytes move.
type conn struct {
	net.Conn
	silence time.Duration
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	// The deadline for reading too: the client listens for an early answer all the while it sends, and what it still
	// sends is why there is none.
	if err := c.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(c.silence))
	}
	return n, c.explain(err)
}

func (c *conn) explain(err error) error {
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return &Error{Silence: c.silence, Err: err}
	}
	return err
}

// Error says that a connection was ended because it was silent. It is a timeout in the sense of [net.Error].
type Error struct {
	Silence time.Duration
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("the connection was silent for %s: %v", e.Silence, e.Err)
}

// Unwrap returns the error of the connection.
func (e *Error) Unwrap() error { return e.Err }

// Timeout implements [net.Error].
func (*Error) Timeout() bool { return true }

// Temporary implements [net.Error].
func (*Error) Temporary() bool { return true }
