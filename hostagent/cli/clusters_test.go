package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/cli"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestClusters runs testdata/clusters/*.txt beside a real server: base backups.
func TestClusters(t *testing.T) { serverScripts(t, "testdata/clusters") }

// A damaged page is named, the snapshot is kept and marked, and the exit code says so.
func TestDamagedCluster(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	// Nobody else reads the table: a page that is in the server's memory would be written over the damage.
	s := cluster.Start(t, cluster.Options{Checksums: true, Config: map[string]string{"autovacuum": "off"}})
	s.Psql("CREATE TABLE doc AS SELECT i, repeat('text ', 100) AS body FROM generate_series(1, 1000) i; CHECKPOINT")
	f, err := os.OpenFile(filepath.Join(s.Dir, s.Psql("SELECT pg_relation_filepath('doc')")), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("spoilt"), 3*8192+8000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (code int, out string) {
		t.Helper()
		var b bytes.Buffer
		common := []string{
			"--repository", filepath.Join(dir, "repo"), "--state", filepath.Join(dir, "state"), "--identity", filepath.Join(dir, "identity"),
			"--policy=", "--host", "testhost",
		}
		code = cli.Main(t.Context(), append(common, args...), cli.Stdio{In: strings.NewReader(""), Out: &b, Err: &b}, "test")
		return code, b.String()
	}
	if code, out := run("init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, out)
	}
	code, out := run("backup", "--postgres", s.DSN("postgres"), "--name", "db")
	if code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	for _, want := range []string{"check page: " + s.Dir + "/base/", "relation public.doc of database postgres: block 3: its checksum is ", "db@1 saved, with 1 DAMAGED PAGE: full"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
	if code, out := run("snapshots", "db"); code != 0 || !strings.Contains(strings.ToLower(out), "partial") {
		t.Errorf("snapshots: exit code %d\n%s", code, out)
	}
}
