// Package pgserver starts PostgreSQL servers on data directories that were restored, or made to look at something: as an
// unprivileged user, reached by a socket of its own and by nothing else, ended with this program whatever ends it.
//
// Use [Choose] for whom it runs as, [Init] to make an empty cluster, [Start], [Server.Connect], [Server.Stop]; [EndStray] ends what an earlier process has left.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Port is part of the name of the socket; nothing listens on it.
const Port = "5432"

// hba lets the owner of the directory in, and nobody else reaches the socket.
const hba = "local all all trust\nlocal replication all reject\n"

// Setting is one setting of a server.
type Setting struct{ Name, Value string }

// Options say how a server is started.
type Options struct {
	Program  string    // postgres, of the version of the data directory
	Dir      string    // data directory, absolute
	Home     string    // directory for its configuration, its log and its socket; the account's, mode 0700
	Account  Account   // as whom it runs
	Settings []Setting // on the command line: they win over those in the data directory; later ones over earlier ones
	Detached bool      // it goes on when this program ends
}

// Server is a PostgreSQL server that this program has started.
type Server struct {
	Socket string // directory of its socket
	Log    string // file with what it says

	options Options
	cmd     *exec.Cmd
	ended   chan struct{}          // closed when the postmaster has ended
	super   atomic.Pointer[string] // the superuser who was let in; nil: none was yet
}

// Names in the home of a server.
const (
	logName     = "server.log"
	configName  = "server.conf"
	hbaName     = "server.hba"
	socketsName = "server.sockets" // names the directory of the socket where it is not the home
)

// Alone are settings of a server that nobody but this program needs: it is not reached from outside, archives nothing,
// follows and feeds nobody, runs no jobs of its own and loads nothing. Nothing is synced: who needs its data syncs it
// at the end.
func Alone() []Setting {
	return []Setting{
		{"listen_addresses", ""},
		{"port", Port},
		{"ssl", "off"},
		{"bonjour", "off"},
		{"archive_mode", "off"},
		{"archive_command", ""},
		{"synchronous_standby_names", ""},
		{"max_logical_replication_workers", "0"},
		{"shared_preload_libraries", ""},
		{"session_preload_libraries", ""},
		{"local_preload_libraries", ""},
		{"autovacuum", "off"},
		{"jit", "off"},
		{"cluster_name", "holdfast"},
		{"restart_after_crash", "off"},
		{"log_destination", "stderr"},
		{"logging_collector", "off"},
		{"log_line_prefix", "%m "},
		{"log_timezone", "UTC"},
		{"lc_messages", "C"},
		{"log_min_messages", "warning"}, // and not "log", which keeps warnings to itself
		{"fsync", "off"},
		{"synchronous_commit", "off"},
		{"max_wal_size", "2GB"},
		{"wal_recycle", "off"}, // what was replayed goes, and is not kept, synced and left behind for WAL to come
		{"checkpoint_timeout", "1h"},
		{"huge_pages", "off"},
		{"shared_buffers", fmt.Sprintf("%dMB", min(max(memory("/")/8>>20, 64), 1024))},
	}
}

// configure writes the files that the server reads instead of those in the data directory, whatever these are.
func (s *Server) configure() error {
	if err := s.write(configName, "# The settings of this server are on its command line.\n"); err != nil {
		return err
	}
	if err := s.write(hbaName, hba); err != nil {
		return err
	}
	s.Socket = s.options.Home
	if len(s.Socket)+len("/.s.PGSQL.")+len(Port) <= 100 { // the path of a socket may have 107
		return nil
	}
	var err error
	if s.Socket, err = os.MkdirTemp("", "holdfast-"); err != nil {
		return err
	}
	// Whoever clears up after us finds it there.
	return errors.Join(s.options.Account.Give(s.Socket), s.write(socketsName, s.Socket))
}

func (s *Server) write(name, content string) error {
	path := filepath.Join(s.options.Home, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return s.options.Account.Give(path)
}

// Clear removes what servers have put into their home, and the directories of their sockets elsewhere.
func Clear(home string) error {
	var err error
	if b, e := os.ReadFile(filepath.Join(home, socketsName)); e == nil {
		if dir := string(b); filepath.Dir(dir) == filepath.Clean(os.TempDir()) && strings.HasPrefix(filepath.Base(dir), "holdfast-") {
			err = os.RemoveAll(dir)
		}
	}
	for _, name := range []string{logName, configName, hbaName, socketsName, ".s.PGSQL." + Port, ".s.PGSQL." + Port + ".lock"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(home, name)))
	}
	return err
}

// Start starts a server. It does not wait until it takes connections, see [Server.Accepts]. Unless it is detached the
// kernel ends it at once when this program ends, whatever ends that.
func Start(o Options) (*Server, error) {
	s := &Server{options: o, Log: filepath.Join(o.Home, logName)}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("start a server on %s: %w", o.Dir, err)
	}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("start a server on %s: %w", o.Dir, err)
	}
	return s, nil
}

func (s *Server) start() error {
	args := []string{"-D", s.options.Dir}
	in := func(name string) string { return filepath.Join(s.options.Home, name) }
	settings := append(slices.Clone(s.options.Settings), Setting{"config_file", in(configName)}, Setting{"hba_file", in(hbaName)},
		Setting{"ident_file", in(configName)}, Setting{"unix_socket_directories", s.Socket}, Setting{"unix_socket_permissions", "0700"})
	for _, o := range settings {
		args = append(args, "-c", o.Name+"="+o.Value)
	}
	log, err := os.OpenFile(s.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own
	if err := s.options.Account.Give(log.Name()); err != nil {
		return err
	}
	cmd := exec.Command(s.options.Program, args...) //nolint:gosec // found for this
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = environment()
	// A session of its own: what the terminal sends is for us, and we stop it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.options.Account.other() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.options.Account.UID), Gid: uint32(s.options.Account.GID)} //nolint:gosec // of a user
	}
	if !s.options.Detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that has started the process: it is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // else it would end with this, and with it what others have started from it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its log says why it ended
			close(s.ended)
		}
	}()
	if err := <-started; err != nil {
		s.cmd = nil
		return err
	}
	return nil
}

// environment is this program's, without what would reach PostgreSQL.
func environment() []string {
	var out []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "LANGUAGE" {
			out = append(out, v)
		}
	}
	return append(out, "LC_ALL=C")
}

// Init makes an empty cluster in a directory that is not there, with the superuser postgres.
func Init(ctx context.Context, initdb, dir string, a Account) error {
	cmd := exec.CommandContext(ctx, initdb, "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions") //nolint:gosec // found for this
	cmd.Dir, cmd.Env = "/", environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.other() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)} //nolint:gosec // of a user
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a cluster in %s: %w: %s", dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Running reports whether the postmaster is there.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Accepts reports whether the server takes connections: it says so in its pid file.
func (s *Server) Accepts() bool {
	b, err := os.ReadFile(filepath.Join(s.options.Dir, "postmaster.pid"))
	lines := strings.Split(string(b), "\n")
	if err != nil || len(lines) < 8 || lines[0] != strconv.Itoa(s.cmd.Process.Pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

// Promote ends the recovery of a server that can't be asked, as `pg_ctl promote` does. It does not wait for that.
func (s *Server) Promote() error {
	name := filepath.Join(s.options.Dir, "promote")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if err := s.options.Account.Give(name); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGUSR1) // it may just have ended
	return nil
}

// stopTime is how long a server may take to stop before it is made to.
const stopTime = 10 * time.Minute

// Stop stops the server: cleanly, or at once, as in a crash.
func (s *Server) Stop(cleanly bool) error {
	if !s.Running() {
		return nil
	}
	sig := syscall.SIGQUIT
	if cleanly {
		sig = syscall.SIGINT
	}
	_ = s.cmd.Process.Signal(sig) // it may just have ended
	select {
	case <-s.ended:
		return nil
	case <-time.After(stopTime):
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.ended
	return fmt.Errorf("the server in %s did not stop within %s", s.options.Dir, stopTime)
}

// Said is the end of what the server has logged: the lines that say why it ended.
func (s *Server) Said() string { return lastWords(s.Log) }

func lastWords(path string) string {
	f, err := os.Open(path) //nolint:gosec // in the spool
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	const most = 16 << 10
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	var grave, last []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		for _, word := range []string{"FATAL:", "PANIC:", "ERROR:", "HINT:", "DETAIL:"} {
			if i := strings.Index(line, word); i >= 0 && !strings.Contains(line, "the database system is ") {
				grave = append(grave, line[i:])
			}
		}
		if line != "" {
			last = append(last, line)
		}
	}
	if len(grave) == 0 {
		grave = last
	}
	return strings.Join(grave[max(0, len(grave)-4):], "; ")
}
