package postgres_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// as is the connection string of a server for another role.
func as(s *cluster.Server, role string) string {
	return strings.Replace(s.DSN("postgres"), "user=postgres", "user="+role, 1)
}

func TestRightsAreExplained(t *testing.T) {
	s := cluster.Start(t, cluster.Options{HBA: "local all all trust\nhost all all 127.0.0.1/32 trust\n" +
		"host replication holder 127.0.0.1/32 scram-sha-256\nhost replication plain,postgres 127.0.0.1/32 trust\n"})
	s.Psql("CREATE ROLE plain LOGIN; CREATE ROLE holder LOGIN REPLICATION PASSWORD 'right one'; CREATE ROLE outsider LOGIN REPLICATION")
	t.Run("no role", func(t *testing.T) {
		wants(t, fails(t, as(s, "nobody_knows")), "nobody_knows@127.0.0.1", "hint: the role must exist", "pg_hba.conf")
	})
	t.Run("no line in pg_hba.conf", func(t *testing.T) {
		wants(t, fails(t, as(s, "outsider")), "pg_hba.conf", "outsider", "hint: ", "`replication`")
	})
	t.Run("no REPLICATION", func(t *testing.T) {
		wants(t, fails(t, as(s, "plain")), "hint: the role needs more rights", "REPLICATION")
	})
	t.Run("password", func(t *testing.T) {
		text := fails(t, as(s, "holder")+" password='a secret that is wrong'")
		wants(t, text, "hint: ", ".pgpass")
		if strings.Contains(text, "secret") {
			t.Errorf("the password is in the message:\n%s", text)
		}
	})
	t.Run("least rights", func(t *testing.T) {
		// A line for the database replication in .pgpass is what libpq takes.
		pass := filepath.Join(t.TempDir(), "pgpass")
		if err := os.WriteFile(pass, []byte("127.0.0.1:*:replication:holder:right one\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PGPASSFILE", pass)
		var n notes
		into := newSession()
		r, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: as(s, "holder"), Temp: t.TempDir(), Note: n.add}, into, nil)
		if err != nil {
			t.Fatal(told(err))
		}
		if r.Roots[0] != pgsource.HiddenRoot || into.entry(pgsource.HiddenRoot, "global/pg_control") == nil {
			t.Errorf("roots %v", r.Roots)
		}
		wants(t, n.String(), "GRANT pg_read_all_settings TO holder")
	})
}

func TestServersThatCanNot(t *testing.T) {
	t.Run("no server", func(t *testing.T) {
		wants(t, fails(t, "host=127.0.0.1 port=1 user=postgres sslmode=disable"), "127.0.0.1:1", "hint: look whether the server runs")
	})
	t.Run("another program", func(t *testing.T) {
		l := listen(t)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
				_ = c.Close()
			}
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		wants(t, fails(t, "host=127.0.0.1 user=postgres sslmode=disable port="+port), "127.0.0.1:"+port)
	})
	s := cluster.Start(t, cluster.Options{Config: map[string]string{"max_wal_senders": "1", "max_replication_slots": "0"}})
	t.Run("no free walsender", func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan struct{})
		var once sync.Once
		done := make(chan error, 1)
		go func() {
			_, err := pgsource.Capture(context.Background(), pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir()}, newSession(),
				progress{func(uint64) { once.Do(func() { close(entered); <-leave }) }})
			done <- err
		}()
		<-entered
		wants(t, fails(t, s.DSN("postgres")), "max_wal_senders", "hint: no walsender or connection is free")
		close(leave)
		// The one that came first is not disturbed; without a slot, which it says.
		if err := <-done; err != nil {
			t.Error(told(err))
		}
	})
	t.Run("no free slot", func(t *testing.T) {
		// A connection that was closed is there until its process has noticed.
		for end := time.Now().Add(2 * time.Minute); s.Psql("SELECT count(*) FROM pg_stat_replication") != "0"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the walsender does not end")
			}
		}
		var n notes
		if _, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir(), Note: n.add}, newSession(), nil); err != nil {
			t.Fatal(told(err))
		}
		wants(t, n.String(), "no replication slot is free", "max_replication_slots")
	})
	t.Run("minimal WAL", func(t *testing.T) {
		s.Config(map[string]string{"wal_level": "minimal", "max_wal_senders": "0"})
		s.Restart()
		wants(t, fails(t, s.DSN("postgres")), "hint: ", "max_wal_senders")
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// between lets a server be reached through something that sees what it sends, and returns the address. See may alter a
// part; false cuts all connections.
func between(t *testing.T, s *cluster.Server, see func(part []byte) bool) (connection string) {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
			if err != nil {
				_ = client.Close()
				continue
			}
			end := func() { _, _ = client.Close(), server.Close() }
			go func() {
				defer end()
				_, _ = io.Copy(server, client)
			}()
			go func() {
				defer end()
				buf := make([]byte, 64<<10)
				for {
					n, err := server.Read(buf)
					if n > 0 && !see(buf[:n]) {
						return
					}
					if _, werr := client.Write(buf[:n]); werr != nil || err != nil {
						return
					}
				}
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return strings.Replace(s.DSN("postgres"), "port="+strconv.Itoa(s.Port), "port="+port, 1)
}

func TestInterruptions(t *testing.T) {
	s := cluster.Start(t, cluster.Options{Checksums: true})
	s.Psql(accounts)
	t.Run("connection cut", func(t *testing.T) {
		var seen atomic.Int64
		text := fails(t, between(t, s, func(part []byte) bool { return seen.Add(int64(len(part))) < 8<<20 }))
		wants(t, text, "base backup", "hint: the connection ended")
	})
	t.Run("byte altered on the way", func(t *testing.T) {
		// Many rows: one of them may come in two parts.
		s.Psql("CREATE TABLE mark AS SELECT 'a text that is looked for' || repeat('.', 100) AS note FROM generate_series(1, 100); CHECKPOINT")
		var altered atomic.Bool
		text := fails(t, between(t, s, func(part []byte) bool {
			if i := strings.Index(string(part), "a text that is looked for...."); i >= 0 && altered.CompareAndSwap(false, true) {
				part[i]++
			}
			return true
		}))
		wants(t, text, "what came is not what the server's backup manifest says", s.Psql("SELECT pg_relation_filepath('mark')")+" has another checksum", "hint: ")
	})
	t.Run("context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var once sync.Once
		_, err := pgsource.Capture(ctx, pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir()}, newSession(), progress{func(uint64) { once.Do(cancel) }})
		if err == nil || ctx.Err() == nil {
			t.Errorf("the backup ended with %v", err)
		}
	})
	t.Run("server killed", func(t *testing.T) {
		var once sync.Once
		into := newSession()
		_, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir()}, into, progress{func(uint64) { once.Do(s.Kill9) }})
		if err == nil || len(into.Entries) > 0 {
			t.Fatalf("the backup ended with %v, %d entries", err, len(into.Entries))
		}
		wants(t, told(err), "postgres@127.0.0.1", "hint: the connection ended")
		s.Restart()
		capture(t, s, newSession())
	})
	t.Run("server stopped", func(t *testing.T) {
		var once sync.Once
		_, err := pgsource.Capture(t.Context(), pgsource.Options{Connection: s.DSN("postgres"), Temp: t.TempDir()}, newSession(),
			progress{func(uint64) { once.Do(func() { s.Stop("fast") }) }})
		// A walsender is the last to go: it may end the backup first.
		if err != nil {
			wants(t, told(err), "hint: ")
		}
	})
}
