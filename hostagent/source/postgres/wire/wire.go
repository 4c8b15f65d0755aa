// Package wire speaks PostgreSQL's replication protocol over connections of pgconn: begin with [Connect].
//
// It gives what a backup needs and no more: what the server is ([Conn.Identify], [Conn.Show]), physical slots
// ([Conn.CreateSlot] and its like), WAL ([Conn.Stream]) and base backups ([Conn.BaseBackup]). What is told to the server as
// durable is exactly what the caller says, and a base backup counts only when the server has ended it without an error.
//
// Servers from version 13 on are understood. Errors are [*Error], which says what a person can do about it.
// The protocol: https://www.postgresql.org/docs/current/protocol-replication.html.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// Conn is a connection in physical replication mode. One command at a time: its methods are called by one goroutine, except
// those of [Stream] that say otherwise. When the context of a call ends, the connection is of no use any more.
type Conn struct {
	conn    *pgconn.PgConn
	frames  *frames
	version Version

	mu      sync.Mutex
	notices []string // that the server has sent since they were last asked for; guarded by mu
}

// maxNotices bounds what is kept of what a server has to say.
const maxNotices = 256

// Connect opens a connection for replication. The settings are those of an ordinary connection; target_session_attrs is
// looked at over an ordinary connection to the same server. Errors: [*Error].
func Connect(ctx context.Context, config *pgconn.Config) (*Conn, error) {
	if config.ValidateConnect == nil {
		return connect(ctx, config)
	}
	var errs []error
	for _, demanding := range []bool{true, false} {
		for _, one := range hosts(config) {
			if demanding {
				if err := fits(ctx, one); err != nil {
					errs = append(errs, err)
					continue
				}
			}
			one.ValidateConnect = nil
			c, err := connect(ctx, one)
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
		var second *pgconn.NotPreferredError
		if !errors.As(errors.Join(errs...), &second) {
			break // nothing that would do if there is no better one
		}
	}
	return nil, errs[len(errs)-1]
}

// hosts are the addresses of a config, each as a config of its own.
func hosts(config *pgconn.Config) []*pgconn.Config {
	all := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	out := make([]*pgconn.Config, 0, len(all))
	for _, f := range all {
		one := config.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks = f.Host, f.Port, f.TLSConfig, nil
		out = append(out, one)
	}
	return out
}

// fits looks whether a server is of the kind that target_session_attrs wants: that can't be asked over a connection for
// replication.
func fits(ctx context.Context, config *pgconn.Config) error {
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return explain("connect", err)
	}
	return c.Close(ctx)
}

func connect(ctx context.Context, config *pgconn.Config) (*Conn, error) {
	config = config.Copy()
	c := &Conn{}
	params := map[string]string{"application_name": "holdfast"}
	for k, v := range config.RuntimeParams {
		params[k] = v
	}
	params["replication"] = "true"
	config.RuntimeParams = params
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.frames = newFrames(r) // of the attempt that is made last
		return pgproto3.NewFrontend(c.frames, w)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { c.notice(n.Message) }
	var err error
	if c.conn, err = pgconn.ConnectConfig(ctx, config); err != nil {
		return nil, explain("connect", err)
	}
	if c.version, err = ParseVersion(c.conn.ParameterStatus("server_version")); err != nil {
		return nil, errors.Join(&Error{Op: "connect", Err: err}, c.conn.Close(ctx))
	}
	if c.version.Major < MinMajor {
		return nil, errors.Join(&Error{
			Op: "connect", Err: fmt.Errorf("the server has version %s", c.version),
			hint: fmt.Sprintf("versions from %d on can be backed up physically; mode logical works with older ones", MinMajor),
		}, c.conn.Close(ctx))
	}
	return c, nil
}

// Close ends the connection. The server drops its temporary slots.
func (c *Conn) Close(ctx context.Context) error {
	if err := c.conn.Close(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		return explain("close the connection", err)
	}
	return nil
}

// Version is that of the server.
func (c *Conn) Version() Version { return c.version }

// PID is that of the server's process for this connection.
func (c *Conn) PID() uint32 { return c.conn.PID() }

// Local reports whether the server runs on this host: users of its files are users here.
func (c *Conn) Local() bool {
	switch a := c.conn.Conn().RemoteAddr().(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	}
	return false
}

// Notices returns what the server has told beside its answers since the last call: warnings, in its language.
func (c *Conn) Notices() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.notices
	c.notices = nil
	return out
}

func (c *Conn) notice(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notices) < maxNotices {
		c.notices = append(c.notices, text)
	}
}

// exec runs a command and returns the rows of its first result; a value that is NULL is nil.
func (c *Conn) exec(ctx context.Context, op, command string) ([][][]byte, error) {
	results, err := c.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, explain(op, err)
	}
	if len(results) == 0 {
		return nil, nil
	}
	return results[0].Rows, nil
}

// one runs a command that answers with one row of at least the given number of columns.
func (c *Conn) one(ctx context.Context, op, command string, columns int) ([][]byte, error) {
	rows, err := c.exec(ctx, op, command)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) < columns {
		return nil, &Error{Op: op, Err: fmt.Errorf("the server answered with %d rows: want 1 with %d columns", len(rows), columns)}
	}
	return rows[0], nil
}

// System is what a server says of itself.
type System struct {
	ID       uint64       // made by initdb, the same on all standbys
	Timeline uint32       // that it writes; of a standby: that it replays
	Position postgres.LSN // up to which WAL is on its disk; of a standby: that it has replayed
}

// Identify asks what the server is (IDENTIFY_SYSTEM).
func (c *Conn) Identify(ctx context.Context) (System, error) {
	const op = "identify the system"
	row, err := c.one(ctx, op, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return System{}, err
	}
	var s System
	var errs [3]error
	s.ID, errs[0] = strconv.ParseUint(string(row[0]), 10, 64)
	var timeline uint64
	timeline, errs[1] = strconv.ParseUint(string(row[1]), 10, 32)
	s.Timeline = uint32(timeline)
	s.Position, errs[2] = postgres.ParseLSN(string(row[2]))
	if err := errors.Join(errs[:]...); err != nil {
		return System{}, &Error{Op: op, Err: err}
	}
	return s, nil
}

// Show asks for a setting of the server (SHOW). Errors: [IsUnknownSetting] of what the server's version does not have,
// [IsForbidden] of what the role may not see.
func (c *Conn) Show(ctx context.Context, name string) (string, error) {
	row, err := c.one(ctx, "show "+name, "SHOW "+quote(name), 1)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// Setting asks for a setting that is a size; it comes in bytes, -1 as math.MaxUint64.
func (c *Conn) Setting(ctx context.Context, name string) (uint64, error) {
	text, err := c.Show(ctx, name)
	if err != nil {
		return 0, err
	}
	n, err := parseSize(text)
	if err != nil {
		return 0, &Error{Op: "show " + name, Err: err}
	}
	return n, nil
}

// parseSize reads sizes as SHOW writes them: "16MB", "8192", "-1".
func parseSize(text string) (uint64, error) {
	if text == "-1" {
		return math.MaxUint64, nil
	}
	digits := strings.TrimRight(text, "kKMGTB")
	n, err := strconv.ParseUint(digits, 10, 53)
	if err != nil {
		return 0, fmt.Errorf("size %q: want a number with a unit", text)
	}
	shift, ok := map[string]int{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}[text[len(digits):]]
	if !ok || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q: want a number with a unit", text)
	}
	return n << shift, nil
}

// History fetches the history file of a timeline (TIMELINE_HISTORY). Timeline 1 has none. Errors: [IsMissing].
func (c *Conn) History(ctx context.Context, timeline uint32) (name string, content []byte, err error) {
	row, err := c.one(ctx, fmt.Sprintf("fetch the history of timeline %d", timeline), fmt.Sprintf("TIMELINE_HISTORY %d", timeline), 2)
	if err != nil {
		return "", nil, err
	}
	return string(row[0]), row[1], nil
}

// quote makes an identifier of the replication grammar.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal makes a string of the replication grammar, which knows no backslashes.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// guard lets the end of a context end what waits for the connection; done must be called after that.
func (c *Conn) guard(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn := c.conn.Conn()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }, nil
}

// send sends a command whose answers are read from the frames.
func (c *Conn) send(op, command string) error {
	c.conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := c.conn.Frontend().Flush(); err != nil {
		return explain(op, err)
	}
	return nil
}
