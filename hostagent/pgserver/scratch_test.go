package pgserver_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/test/cluster"
)

func TestEmpty(t *testing.T) {
	owner := cluster.Account(t)
	account := pgserver.Account{UID: owner.UID, GID: owner.GID}
	dir := owner.Dir(t)
	// One that was left is removed.
	if err := os.MkdirAll(filepath.Join(dir, "server-old", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(t.TempDir(), "closed")
	dirs := []string{dir}
	if os.Geteuid() == 0 {
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		dirs = []string{filepath.Join(closed, "below"), dir}
		if _, err := pgserver.StartEmpty(t.Context(), dirs[:1], "", 13, account); err == nil {
			t.Error("a server in a directory that it can't enter")
		}
	}
	bin := filepath.Dir(cluster.Bin(t, 0, "postgres"))
	e, err := pgserver.StartEmpty(t.Context(), dirs, bin, 13, account)
	if err != nil {
		t.Fatal(err)
	}
	second, err := pgserver.StartEmpty(t.Context(), dirs, bin, cluster.System(t), account)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*pgserver.Empty{e, second} {
		conn, err := s.Connect(t.Context(), "postgres", "")
		if err != nil {
			t.Fatal(err)
		}
		row, err := pgserver.Row(t.Context(), conn, "SELECT current_setting('listen_addresses') || count(*) FROM pg_database")
		if err != nil || row[0] != "3" {
			t.Errorf("%q %v", row, err)
		}
		_ = conn.Close(context.Background())
		if _, err := pgbin.Output(t.Context(), cluster.Bin(t, 0, "pg_dumpall"), "--globals-only", "-d", s.Conninfo()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	var missing *pgbin.MissingError
	if _, err := pgserver.StartEmpty(t.Context(), dirs, bin, 99, account); !errors.As(err, &missing) {
		t.Error(err)
	}
}

// TestPostmaster finds a server whose pid file names it as its container does.
func TestPostmaster(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	file := filepath.Join(s.Dir, "postmaster.pid")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(whole, []byte("\n"))
	for _, first := range []string{string(bytes.TrimSuffix(whole, append([]byte("\n"), rest...))), "1", "999999999"} {
		if err := os.WriteFile(file, append([]byte(first+"\n"), rest...), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid := pgserver.Postmaster(s.Dir); pid != s.PID() {
			t.Errorf("%s: process %d, want %d", first, pid, s.PID())
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Kill9()
	if pid := pgserver.Postmaster(s.Dir); pid != 0 {
		t.Errorf("process %d", pid)
	}
}

// TestWay makes directories that others may go through, also where a hardened host keeps others out.
func TestWay(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	top := t.TempDir()
	dir := filepath.Join(top, "new", "below")
	if err := pgserver.Way(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := pgserver.Way(dir, 0o711); err != nil { // what is there stays as it is
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o755, filepath.Dir(dir): 0o755, top: 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}
