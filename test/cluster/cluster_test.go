package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/cluster"
)

func TestServers(t *testing.T) {
	for _, v := range cluster.Versions(t) {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			s := cluster.Start(t, cluster.Options{Version: v, Checksums: true, SegmentSize: 1, Config: map[string]string{"work_mem": "7MB"}})
			if got := s.Psql("SHOW work_mem; SHOW data_checksums; SHOW server_version_num"); !strings.HasPrefix(got, fmt.Sprintf("7MB\non\n%d", v)) {
				t.Errorf("the server says %q", got)
			}
			s.Psql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
			s.Kill9()
			if s.Running() {
				t.Error("a killed server runs")
			}
			s.Restart()
			if !strings.Contains(s.Said(), "was not properly shut down") {
				t.Errorf("it was killed and does not know:\n%s", s.Said())
			}
			if got := s.Psql("SELECT count(*) FROM kept"); got != "1000" {
				t.Errorf("after a crash %q rows", got)
			}

			standby := s.Standby(t)
			s.Psql("INSERT INTO kept VALUES (0)")
			standby.Follow(s)
			if got := standby.Psql("SELECT count(*), pg_is_in_recovery() FROM kept"); got != "1001|t" {
				t.Errorf("the standby has %q", got)
			}
			standby.Promote()
			standby.Psql("CHECKPOINT")
			if got := standby.Psql("SELECT timeline_id FROM pg_control_checkpoint()"); got != "2" {
				t.Errorf("timeline %s after promotion", got)
			}

			s.Stop("fast")
			dir := filepath.Join(filepath.Dir(s.Dir), "clone")
			s.CopyTo(t, dir)
			clone := cluster.Open(t, dir, cluster.Options{})
			if got := clone.Psql("SELECT count(*) FROM kept"); got != "1001" {
				t.Errorf("the clone has %q rows", got)
			}
			if a, b := system(clone), system(standby); a != b {
				t.Errorf("systems %s and %s", a, b)
			}
		})
	}
}

func system(s *cluster.Server) string {
	return s.Psql("SELECT system_identifier FROM pg_control_system()")
}

func TestPrograms(t *testing.T) {
	s := cluster.Start(t, cluster.Options{Superuser: "boss", Password: "secret", HBA: "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"})
	s.Run("pgbench", "-i", "-q", "-s", "1")
	if got := s.Psql("SELECT count(*) FROM pgbench_accounts"); got != "100000" {
		t.Errorf("%q accounts", got)
	}
	if _, err := s.TryRun("psql", "-w", "-d", s.DSN("postgres"), "-c", "SELECT 1"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("without a password: %v", err)
	}
	info, err := os.Stat(s.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory: %v, %v", info.Mode(), err)
	}
}

// TestWriter has an application write while its server is killed and another one takes over.
func TestWriter(t *testing.T) {
	s := cluster.Start(t, cluster.Options{})
	w := cluster.StartWriter(t, s, cluster.WriterOptions{Connections: 3, Pause: time.Millisecond})
	w.Await(20)
	s.Kill9()
	s.Restart()
	w.Await(20)
	standby := s.Standby(t)
	w.Await(5)
	rows := w.Stop()
	if lost := cluster.Missing(t, s, "postgres", rows); len(lost) > 0 || len(rows) < 45 {
		t.Errorf("%d of %d are lost: %+v", len(lost), len(rows), lost)
	}
	standby.Follow(s)
	s.Stop("immediate")
	standby.Promote()
	again := cluster.StartWriter(t, standby, cluster.WriterOptions{})
	again.Await(3)
	rows = append(rows, again.Stop()...)
	if lost := cluster.Missing(t, standby, "postgres", rows); len(lost) > 0 {
		t.Errorf("%d of %d are lost: %+v", len(lost), len(rows), lost)
	}
	for _, r := range rows {
		if r.Acked.Before(r.Sent) || !strings.Contains(r.Upto, "/") {
			t.Errorf("%+v", r)
		}
	}
}
