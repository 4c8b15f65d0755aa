package dump

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// grace is how long a program has to end after it was asked to.
	grace = 10 * time.Second
	// maxMessage is how much of a program's messages is kept: the last bytes.
	maxMessage = 4 << 10
	// maxGlobals is the most that roles and tablespaces may take, in bytes.
	maxGlobals = 256 << 20
)

// command is a program of PostgreSQL. It is told in the environment to speak English, because its messages are looked at.
func command(ctx context.Context, path string, args ...string) (*exec.Cmd, *tail) {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // found in directories of programs
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	if os.Getenv("PGAPPNAME") == "" {
		cmd.Env = append(cmd.Env, "PGAPPNAME=holdfast")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	messages := &tail{}
	cmd.Stderr = messages
	return cmd, messages
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - maxMessage; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// text is what was written, in one line.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(t.b), "?"), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// ProgramError says that a program of PostgreSQL failed.
type ProgramError struct {
	Name string
	Text string // what it said
	Err  error
}

func (e *ProgramError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return e.Text
}

// Unwrap returns how it ended.
func (e *ProgramError) Unwrap() error { return e.Err }

func programError(cmd *exec.Cmd, messages *tail, err error) error {
	name := cmd.Path[strings.LastIndexByte(cmd.Path, '/')+1:]
	return &ProgramError{Name: name, Text: messages.text(), Err: err}
}

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
	case strings.Contains(text, "lock timeout"):
		return "somebody holds a lock on a table for long: look into pg_locks"
	}
	return ""
}

// running is a program whose output is read.
type running struct {
	io.Reader
	cmd      *exec.Cmd
	messages *tail
	ended    bool
	err      error
}

func start(ctx context.Context, path string, args ...string) (*running, error) {
	cmd, messages := command(ctx, path, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return &running{Reader: out, cmd: cmd, messages: messages}, nil
}

// wait waits for the end, after all output was read, and tells whether it was a good one.
func (r *running) wait() error {
	if !r.ended {
		r.ended = true
		if err := r.cmd.Wait(); err != nil {
			r.err = programError(r.cmd, r.messages, err)
		}
	}
	return r.err
}

// stop ends it, if it has not ended.
func (r *running) stop() {
	if !r.ended {
		_ = r.cmd.Cancel()
		_ = r.wait()
	}
}

// output is all that a program prints.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	r, err := start(ctx, path, args...)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	b, err := io.ReadAll(io.LimitReader(r, maxGlobals+1))
	if err != nil {
		return nil, fmt.Errorf("read what %s prints: %w", path, err)
	}
	if len(b) > maxGlobals {
		return nil, fmt.Errorf("%s prints more than %d bytes", path, maxGlobals)
	}
	return b, r.wait()
}

// errListed says that pg_restore has seen enough.
var errListed = errors.New("all is listed")

// listing is pg_restore --list at work on what is written to it. It reads no more than the table of contents.
type listing struct {
	cmd      *exec.Cmd
	messages *tail
	in       io.WriteCloser
	lines    counter
	full     bool // it takes no more
	ended    bool
	tee      bool // who writes to it goes on when it takes no more
}

// list starts it. With tee it is a writer beside others, and Write does not tell that it takes no more.
func list(ctx context.Context, path string, tee bool) (*listing, error) {
	cmd, messages := command(ctx, path, "--list")
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
		return 0, programError(l.cmd, l.messages, err)
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
