package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// limit is for what a machine under load may take long for.
const limit = 2 * time.Minute

// process is a postmaster.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// ended says whether the process ends within the time.
func (p *process) ended(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// Restart starts the server, after a fast stop if it runs, and waits until it takes connections.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop("fast")
	for range attempts {
		if s.Port == 0 {
			s.Port = freePort(s.t)
		}
		if err := s.start(); err != nil {
			s.t.Fatal(err)
		}
		if s.accepts() {
			return
		}
		s.end()
		// Somebody may have taken the port since it was found free.
		if !strings.Contains(s.Said(), "Address already in use") {
			break
		}
		s.Port = 0
	}
	s.t.Fatalf("PostgreSQL %d does not start on %s:\n%s", s.Version, s.Dir, s.Said())
}

// Launch starts the server and does not wait until it takes connections: for those that will not, or later.
func (s *Server) Launch() {
	s.t.Helper()
	s.Stop("fast")
	if s.Port == 0 {
		s.Port = freePort(s.t)
	}
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) start() error {
	log, err := os.OpenFile(s.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := s.Owner.Command(filepath.Join(s.BinDir, "postgres"), "-D", s.Dir, "-p", strconv.Itoa(s.Port), "-k", s.Socket)
	cmd.Stdout, cmd.Stderr = log, log
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	s.process = p
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return nil
}

// accepts waits until the postmaster says that connections are taken; false: it ended.
func (s *Server) accepts() bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if s.process.ended(10 * time.Millisecond) {
			return false
		}
		// Line 8 is its state; line 1 says that it is this one's.
		b, _ := os.ReadFile(filepath.Join(s.Dir, "postmaster.pid"))
		lines := strings.Split(string(b), "\n")
		if len(lines) < 8 || lines[0] != strconv.Itoa(s.process.cmd.Process.Pid) {
			continue
		}
		if state := strings.TrimSpace(lines[7]); state == "ready" {
			return true
		}
	}
	return false
}

// Running says whether the server's process is there.
func (s *Server) Running() bool { return s.process != nil && !s.process.ended(0) }

// PID is that of the postmaster; 0: it does not run.
func (s *Server) PID() int {
	if !s.Running() {
		return 0
	}
	return s.process.cmd.Process.Pid
}

// Wait waits until the server has ended by itself, and fails if it does not.
func (s *Server) Wait() {
	s.t.Helper()
	if s.process != nil && !s.process.ended(limit) {
		s.t.Fatalf("PostgreSQL in %s does not end", s.Dir)
	}
	s.process = nil
}

// Stop stops the server if it runs: "smart" waits for clients, "fast" ends their sessions, "immediate" is as a crash.
func (s *Server) Stop(mode string) {
	s.t.Helper()
	if s.process == nil {
		return
	}
	signals := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	sig, ok := signals[mode]
	if !ok {
		s.t.Fatalf("stop PostgreSQL: mode %q", mode)
	}
	_ = s.process.cmd.Process.Signal(sig)
	s.Wait()
}

// Kill9 kills the server with all of its processes, as the kernel does when memory is short.
func (s *Server) Kill9() {
	s.t.Helper()
	p := s.process
	if p == nil {
		return
	}
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP) // it starts nothing more
	all := children(pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for _, child := range all {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	<-p.done
	for _, child := range all {
		for end := time.Now().Add(limit); alive(child) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	s.process = nil
}

// end stops the server whatever it does.
func (s *Server) end() {
	if s.process == nil {
		return
	}
	_ = s.process.cmd.Process.Signal(syscall.SIGQUIT)
	if !s.process.ended(20 * time.Second) {
		for _, child := range children(s.process.cmd.Process.Pid) {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = s.process.cmd.Process.Kill()
		<-s.process.done
	}
	s.process = nil
}

// Said is the end of what the server has said.
func (s *Server) Said() string {
	b, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

// DSN is a connection string for a database, over TCP, as the superuser.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable", s.Port, s.Superuser, database)
}

// SocketDSN is [Server.DSN] over the socket.
func (s *Server) SocketDSN(database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s", s.Socket, s.Port, s.Superuser, database)
}

// Psql runs SQL in the database postgres, each statement for itself, and returns what psql prints: rows as lines, columns
// with | between them, without the last newline.
func (s *Server) Psql(sql string) string {
	s.t.Helper()
	return s.PsqlIn("postgres", sql)
}

// PsqlIn is [Server.Psql] in another database.
func (s *Server) PsqlIn(database, sql string) string {
	s.t.Helper()
	out, err := s.TryPsql(database, sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TryPsql is [Server.PsqlIn] for what may fail; the error has what psql said. It may be called beside others.
func (s *Server) TryPsql(database, sql string) (string, error) {
	cmd := s.Owner.Command(Bin(s.t, 0, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", s.SocketDSN(database))
	cmd.Stdin = strings.NewReader(sql)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %s: %w: %s", sql, err, said.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// Bin is the path of a program of the server's version.
func (s *Server) Bin(name string) string {
	s.t.Helper()
	path := filepath.Join(s.BinDir, name)
	if _, err := os.Stat(path); err != nil {
		s.t.Fatalf("PostgreSQL %d in %s has no program %s", s.Version, s.BinDir, name)
	}
	return path
}

// Run runs a program of the server's version, or, where that has none, of the system's, as the owner, and returns what it
// prints. It finds this server without being told.
func (s *Server) Run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.TryRun(name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TryRun is [Server.Run] for what may fail; the error has what the program said.
func (s *Server) TryRun(name string, args ...string) (string, error) {
	path := filepath.Join(s.BinDir, name)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		path = Bin(s.t, 0, name)
	}
	cmd := s.Owner.Command(path, args...)
	if s.Port != 0 {
		cmd.Env = append(cmd.Env, "PGHOST="+s.Socket, "PGPORT="+strconv.Itoa(s.Port), "PGUSER="+s.Superuser, "PGDATABASE=postgres")
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, said.String())
	}
	return string(out), nil
}

// Reload lets the server read its settings again.
func (s *Server) Reload() {
	s.t.Helper()
	s.Psql("SELECT pg_reload_conf()")
}

// Promote makes a standby the primary of a new timeline, and waits until it is.
func (s *Server) Promote() {
	s.t.Helper()
	if out := s.Psql("SELECT pg_promote(true, 120)"); out != "t" {
		s.t.Fatalf("the standby in %s was not promoted", s.Dir)
	}
}
