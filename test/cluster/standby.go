package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Standby starts a server that follows this one, from a copy of its data directory, and waits until it takes
// connections.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	account := s.Owner
	dir := filepath.Join(account.Dir(t), "data")
	s.CopyTo(t, dir)
	standby := Open(t, dir, Options{Version: s.Version, Stopped: true, Config: map[string]string{
		"primary_conninfo": s.SocketDSN("replication"), "hot_standby": "on", "primary_slot_name": "",
	}})
	standby.Superuser = s.Superuser
	standby.WriteFile("standby.signal", "")
	standby.Restart()
	return standby
}

// Follow waits until a standby has replayed what the other server has written so far.
func (s *Server) Follow(primary *Server) {
	s.t.Helper()
	at := primary.Psql("SELECT pg_current_wal_lsn()")
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.Psql(fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s'", at)) == "t" {
			return
		}
	}
	s.t.Fatalf("the standby in %s does not reach %s", s.Dir, at)
}

// CopyTo copies the data directory, of a running server as a base backup with all of its WAL, and tablespaces are not
// supported. A server that is started on the copy has the same system identifier: a clone.
func (s *Server) CopyTo(t testing.TB, dir string) {
	t.Helper()
	if !s.Running() {
		s.copy(t, dir, "")
		s.Owner.Give(t, dir)
		return
	}
	session := s.session(t)
	session.say(s.version("SELECT pg_backup_start('copy', true)", "SELECT pg_start_backup('copy', true, false)"))
	s.copy(t, dir, "pg_wal")
	label := session.say(s.version("SELECT labelfile FROM pg_backup_stop(false)", "SELECT labelfile FROM pg_stop_backup(false, false)"))
	session.end()
	s.copyWAL(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Owner.Give(t, dir)
}

func (s *Server) version(from15, before string) string {
	if s.Version >= 15 {
		return from15
	}
	return before
}

// copy copies all but the content of one directory and what belongs to the process alone.
func (s *Server) copy(t testing.TB, dir, empty string) {
	t.Helper()
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Dir, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case rel == "postmaster.pid" || rel == "postmaster.opts" || strings.HasPrefix(rel, "pg_replslot/"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() && rel == empty:
			if err := os.MkdirAll(filepath.Join(to, "archive_status"), 0o700); err != nil {
				return err
			}
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case !d.Type().IsRegular():
			return fmt.Errorf("copy %s: %s", path, d.Type())
		}
		return copyFile(path, to)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *Server) copyWAL(t testing.TB, dir string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(s.Dir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		if err := copyFile(filepath.Join(s.Dir, "pg_wal", f.Name()), filepath.Join(dir, "pg_wal", f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// copyFile copies a file that may be gone.
func copyFile(from, to string) error {
	in, err := os.Open(from) //nolint:gosec // of the test
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // of the test
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// session is a psql that stays connected.
type session struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
}

func (s *Server) session(t testing.TB) *session {
	t.Helper()
	cmd := s.Owner.Command(Bin(t, 0, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", s.SocketDSN("postgres"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // both are read together
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &session{t: t, cmd: cmd, in: in, out: out}
}

// say runs one statement and returns what it prints.
func (s *session) say(sql string) string {
	s.t.Helper()
	const end = "--that was all--"
	if _, err := io.WriteString(s.in, sql+";\n\\echo "+end+"\n"); err != nil {
		s.t.Fatal(err)
	}
	var got strings.Builder
	b := make([]byte, 4096)
	for !strings.HasSuffix(got.String(), end+"\n") {
		n, err := s.out.Read(b)
		got.Write(b[:n])
		if err != nil {
			s.t.Fatalf("psql: %s: %s", sql, got.String())
		}
	}
	return strings.TrimSuffix(got.String(), "\n"+end+"\n")
}

func (s *session) end() {
	s.t.Helper()
	if err := errors.Join(s.in.Close(), s.cmd.Wait()); err != nil {
		s.t.Fatal(err)
	}
}
