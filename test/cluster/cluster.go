package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Options says what a new server is like.
type Options struct {
	Version     int               // major; 0: the system's
	Config      map[string]string // settings of postgresql.conf; they win over those of this package
	Checksums   bool              // of pages
	SegmentSize int               // of WAL, MiB; 0: 16
	HBA         string            // whole pg_hba.conf; empty: everybody may, without a password
	Superuser   string            // empty: postgres
	Password    string            // of the superuser; empty: none
	InitArgs    []string          // more arguments of initdb
	Stopped     bool              // initialized, not started
}

// Server is a PostgreSQL server of a test.
type Server struct {
	Dir       string // data directory
	Port      int    // of 127.0.0.1
	Socket    string // directory of its socket
	Log       string // file with what it says
	Version   int    // major
	BinDir    string // its programs
	Owner     *Owner // whom its files belong to
	Superuser string

	t       testing.TB
	process *process // nil: it does not run
}

const (
	lowPort, highPort = 15000, 32000 // below those that the system gives to clients
	attempts          = 8
)

// Start makes a cluster and starts its server.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := prepare(t, o, "")
	s.initialize(o)
	s.configure(o)
	if !o.Stopped {
		s.Restart()
	}
	return s
}

// Open starts a server on a data directory that is there, where it is. Its settings are kept, but for the port, the
// socket and what the options say; the directory becomes that of [Account].
func Open(t testing.TB, dir string, o Options) *Server {
	t.Helper()
	if o.Version == 0 {
		b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION")) //nolint:gosec // of the test
		if err != nil {
			t.Fatal(err)
		}
		if o.Version, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			t.Fatal(err)
		}
	}
	s := prepare(t, o, dir)
	s.Owner.Give(t, dir)
	s.configure(o)
	if !o.Stopped {
		s.Restart()
	}
	return s
}

// prepare finds a place and programs; dir is the data directory if there is one.
func prepare(t testing.TB, o Options, dir string) *Server {
	t.Helper()
	if o.Version == 0 {
		o.Version = System(t)
	}
	account := Account(t)
	place := account.Dir(t)
	s := &Server{Dir: dir, Log: filepath.Join(place, "log"), Version: o.Version, Owner: account, Superuser: o.Superuser, t: t}
	if dir == "" {
		s.Dir = filepath.Join(place, "data")
	}
	if s.Superuser == "" {
		s.Superuser = "postgres"
	}
	var err error
	if s.BinDir, err = reachable(filepath.Dir(Bin(t, o.Version, "postgres")), account, place); err != nil {
		t.Fatalf("put PostgreSQL %d where %s can use it: %v", o.Version, account, err)
	}
	// The path of a socket may have 107 bytes: the name of the test can't be in it.
	socket, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	s.Socket = socket
	account.Give(t, socket)
	t.Cleanup(func() {
		s.end()
		forget(filepath.Join(s.Dir, "postmaster.pid"))
		_ = os.RemoveAll(socket)
		if t.Failed() {
			t.Logf("PostgreSQL %d in %s said:\n%s", s.Version, s.Dir, s.Said())
		}
	})
	return s
}

// initialize makes the cluster.
func (s *Server) initialize(o Options) {
	s.t.Helper()
	args := []string{"-D", s.Dir, "-U", s.Superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"}
	if o.SegmentSize != 0 {
		args = append(args, "--wal-segsize="+strconv.Itoa(o.SegmentSize))
	}
	switch {
	case o.Checksums:
		args = append(args, "--data-checksums")
	case s.Version >= 18:
		args = append(args, "--no-data-checksums")
	}
	if o.Password != "" {
		file := filepath.Join(filepath.Dir(s.Log), "password")
		if err := os.WriteFile(file, []byte(o.Password+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
		s.Owner.Give(s.t, file)
		args = append(args, "--pwfile="+file)
	}
	s.Run("initdb", append(args, o.InitArgs...)...)
}

// configure writes the settings behind those that are there: the last one counts.
func (s *Server) configure(o Options) {
	s.t.Helper()
	config := map[string]string{
		"listen_addresses": "127.0.0.1", "unix_socket_directories": s.Socket, "fsync": "off",
		// Small, so that several servers fit beside each other.
		"shared_buffers": "32MB", "max_connections": "60", "max_wal_senders": "10",
		"log_timezone": "UTC", "timezone": "UTC", "log_line_prefix": "%m [%p] ",
	}
	maps.Copy(config, o.Config)
	s.Config(config)
	if o.HBA != "" {
		s.WriteFile("pg_hba.conf", o.HBA)
	}
}

// Config adds settings to postgresql.conf. They count after [Server.Reload] or [Server.Restart], as the setting is.
func (s *Server) Config(settings map[string]string) {
	s.t.Helper()
	name := filepath.Join(s.Dir, "postgresql.conf")
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600) //nolint:gosec // of the test
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(settings[k], "'", "''"))
	}
	_, err = f.WriteString(b.String())
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.Owner.Give(s.t, name)
}

// WriteFile writes a file in the data directory, with the owner and mode that PostgreSQL wants.
func (s *Server) WriteFile(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil { //nolint:gosec // of the test
		s.t.Fatal(err)
	}
	s.Owner.Give(s.t, path)
}

// freePort returns a port that nobody uses now.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := lowPort + rand.IntN(highPort-lowPort) //nolint:gosec // a port
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}
