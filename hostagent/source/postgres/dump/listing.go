package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
)

// hintOf is what a user can do about what pg_dump says.
func hintOf(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "server version mismatch"):
		return "install the client programs of the server's version, or say with the policy's bin where they are"
	case strings.Contains(text, "permission denied"):
		return "GRANT pg_read_all_data TO the role of the backup (PostgreSQL 14 and later), and CONNECT on the database"
	case strings.Contains(text, "row-level security"):
		return "ALTER ROLE … BYPASSRLS, so that the dump has all rows"
	case strings.Contains(text, "no password supplied"), strings.Contains(text, "password authentication failed"):
		return "the password stands in .pgpass (mode 0600) of the user that runs the backup"
	case strings.Contains(text, "conflict with recovery"):
		return "the standby had to replay what the dump still needed: raise its max_standby_streaming_delay, or dump from the primary"
	case strings.Contains(text, "lock timeout"):
		return "somebody holds a lock on a table for long: look into pg_locks"
	}
	return ""
}

// errListed says that pg_restore has seen enough.
var errListed = errors.New("all is listed")

// listing is pg_restore --list at work on what is written to it. It reads no more than the table of contents.
type listing struct {
	cmd      *exec.Cmd
	messages *pgbin.Messages
	in       io.WriteCloser
	lines    counter
	full     bool // it takes no more
	ended    bool
	tee      bool // who writes to it goes on when it takes no more
}

// list starts it. With tee it is a writer beside others, and Write does not tell that it takes no more.
func list(ctx context.Context, path string, tee bool) (*listing, error) {
	cmd, messages := pgbin.Command(ctx, path, "--list")
	l := &listing{cmd: cmd, messages: messages, tee: tee, lines: counter{entries: -1}}
	cmd.Stdout = &l.lines
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	l.in = in
	return l, nil
}

// Write gives it more, until it takes no more; that is errListed.
func (l *listing) Write(p []byte) (int, error) {
	if !l.full {
		_, err := l.in.Write(p)
		l.full = err != nil // it has ended; finish tells how
	}
	if l.full && !l.tee {
		return 0, errListed
	}
	return len(p), nil
}

// finish waits for its verdict: how many entries there are.
func (l *listing) finish() (entries int, err error) {
	l.ended = true
	_ = l.in.Close()
	if err := l.cmd.Wait(); err != nil {
		return 0, pgbin.Failed(l.cmd, l.messages, err)
	}
	if l.lines.entries < 0 {
		return 0, errors.New("pg_restore did not say how many entries there are")
	}
	return l.lines.entries, nil
}

// stop ends it, if it has not ended.
func (l *listing) stop() {
	if !l.ended {
		_ = l.cmd.Cancel()
		_, _ = l.finish()
	}
}

// counter finds in a listing how many entries there are.
type counter struct {
	head    []byte // the first lines, which say so
	entries int    // -1: not said yet
	seen    bool
}

// maxHead is how much of a listing is looked at for the number of entries.
const maxHead = 64 << 10

func (c *counter) Write(p []byte) (int, error) {
	if !c.seen && len(c.head) < maxHead {
		c.head = append(c.head, p...)
		if _, after, ok := bytes.Cut(c.head, []byte("TOC Entries: ")); ok {
			if number, _, ok := bytes.Cut(after, []byte("\n")); ok {
				n, err := strconv.Atoi(strings.TrimSpace(string(number)))
				if err == nil {
					c.entries, c.seen, c.head = n, true, nil
				}
			}
		}
	}
	return len(p), nil
}
