package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/btcdecoded/holdfast/test/cluster"
)

// TestDumps runs testdata/dumps/*.txt beside a real server, which is reached by the services admin and app. Passwords are
// asked for, and stand in .pgpass.
func TestDumps(t *testing.T) { serverScripts(t, "testdata/dumps") }

// TestOutOfCluster runs testdata/out/*.txt beside a server of its own: single databases and tables out of base backups.
func TestOutOfCluster(t *testing.T) { serverScripts(t, "testdata/out") }

func serverScripts(t *testing.T, dir string) {
	t.Helper()
	s := cluster.Start(t, cluster.Options{Password: "secret-of-admin", HBA: "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n"})
	owner := cluster.Account(t)
	scratch := owner.Dir(t)
	// Servers that restores start run it themselves, to fetch WAL.
	path, err := exec.LookPath("holdfast")
	if err != nil {
		t.Fatal(err)
	}
	program := owner.Program(t, path, "holdfast")
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("HOLDFAST_STATE", scratch+"/state") // servers that restores start must be able to enter it
			e.Setenv("HOLDFAST_HOST", "testhost")
			e.Setenv("HOLDFAST_POLICY", "")
			e.Setenv("TMPDIR", scratch)
			e.Setenv("GORACE", quickEnd)
			e.Setenv("PGSERVICEFILE", e.WorkDir+"/home/pg_service.conf")
			e.Setenv("PGPASSFILE", e.WorkDir+"/home/pgpass")
			e.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+filepath.Dir(cluster.Bin(t, 0, "psql"))+string(os.PathListSeparator)+e.Getenv("PATH"))
			if err := os.MkdirAll(e.WorkDir+"/home", 0o700); err != nil {
				return err
			}
			service := fmt.Sprintf("[admin]\nhost=127.0.0.1\nport=%d\nuser=postgres\ndbname=postgres\n[app]\nhost=127.0.0.1\nport=%d\nuser=app\ndbname=governance\n", s.Port, s.Port)
			if err := os.WriteFile(e.WorkDir+"/home/pg_service.conf", []byte(service), 0o644); err != nil {
				return err
			}
			pass := "*:*:*:postgres:secret-of-admin\n*:*:*:app:secret-of-app\n"
			return os.WriteFile(e.WorkDir+"/home/pgpass", []byte(pass), 0o600)
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": status},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
