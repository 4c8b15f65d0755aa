package pgbin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
	// maxOutput is the most that [Output] returns, in bytes.
	maxOutput = 256 << 20
)

// Command is a program of PostgreSQL, its messages in English. Its standard error is kept for [Error].
func Command(ctx context.Context, path string, args ...string) (*exec.Cmd, *Messages) {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // found in directories of programs
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	if os.Getenv("PGAPPNAME") == "" {
		cmd.Env = append(cmd.Env, "PGAPPNAME=holdfast")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	messages := &Messages{}
	cmd.Stderr = messages
	return cmd, messages
}

// Messages keeps the end of what a program says. It is safe for concurrent use.
type Messages struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (m *Messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.b = append(m.b, p...)
	if over := len(m.b) - maxMessage; over > 0 {
		m.b = append(m.b[:0], m.b[over:]...)
	}
	return len(p), nil
}

// Text is what was said, in one line.
func (m *Messages) Text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(m.b), "?"), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Error says that a program of PostgreSQL failed.
type Error struct {
	Name string
	Text string // what it said
	Err  error  // how it ended
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return e.Text
}

// Unwrap returns how it ended.
func (e *Error) Unwrap() error { return e.Err }

// Failed is the error of a program that ended with err.
func Failed(cmd *exec.Cmd, messages *Messages, err error) error {
	return &Error{Name: filepath.Base(cmd.Path), Text: messages.Text(), Err: err}
}

// Running is a program whose output is read.
type Running struct {
	io.Reader
	cmd      *exec.Cmd
	messages *Messages
	ended    bool
	err      error
}

// Start starts a program. Read all of its output, then [Running.Wait]; [Running.Stop] ends it before that.
func Start(ctx context.Context, path string, args ...string) (*Running, error) {
	cmd, messages := Command(ctx, path, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return &Running{Reader: out, cmd: cmd, messages: messages}, nil
}

// Wait waits for the end and tells whether it was a good one. Errors: *Error.
func (r *Running) Wait() error {
	if !r.ended {
		r.ended = true
		if err := r.cmd.Wait(); err != nil {
			r.err = Failed(r.cmd, r.messages, err)
		}
	}
	return r.err
}

// Stop ends it, if it has not ended.
func (r *Running) Stop() {
	if !r.ended {
		_ = r.cmd.Cancel()
		_ = r.Wait()
	}
}

var errLong = errors.New("it prints too much")

// Output is all that a program prints. Errors: *Error.
func Output(ctx context.Context, path string, args ...string) ([]byte, error) {
	r, err := Start(ctx, path, args...)
	if err != nil {
		return nil, err
	}
	defer r.Stop()
	b, err := io.ReadAll(io.LimitReader(r, maxOutput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read what %s prints: %w", path, errors.Join(err, r.Wait()))
	case len(b) > maxOutput:
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, errLong, maxOutput)
	}
	return b, r.Wait()
}

// Conninfo is a connection as programs are told it: connection is the name of a service, or settings as "host=… user=…"; the
// database, unless it is empty, takes the place of theirs.
func Conninfo(connection, database string) string {
	if !strings.Contains(connection, "=") {
		connection = "service=" + Quote(connection)
	}
	if database != "" {
		connection += " dbname=" + Quote(database)
	}
	return connection
}

// Quote writes a value of a connection string: https://www.postgresql.org/docs/current/libpq-connect.html, "Keyword/Value
// Connection Strings".
func Quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// CheckConnection refuses what can't be given to programs in their arguments, or would show a password there.
func CheckConnection(connection string) error {
	folded := strings.ToLower(connection)
	switch {
	case connection == "":
		return errors.New("connection: want the name of a service")
	case strings.Contains(connection, "://"):
		return errors.New("connection: an address (postgresql://…) can not be given to the programs of PostgreSQL; name a service, or write host=… user=…")
	case strings.Contains(folded, "password") && strings.Contains(connection, "="):
		return errors.New("connection: a password does not belong there; it stands in .pgpass, or in the service")
	}
	return nil
}
