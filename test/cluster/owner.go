package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// Owner is the user that servers run as, and that data directories belong to.
type Owner struct {
	UID, GID int
	Name     string
	other    bool // not who runs the test
}

func (o *Owner) String() string { return fmt.Sprintf("the user %s", o.Name) }

// Account returns whom servers run as: who runs the test, or, where that is root, postgres or nobody.
func Account(t testing.TB) *Owner {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		name := strconv.Itoa(uid)
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return &Owner{UID: uid, GID: os.Getegid(), Name: name}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			continue
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			continue
		}
		return &Owner{UID: uid, GID: gid, Name: name, other: true}
	}
	t.Fatal("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")
	return nil
}

// Give makes files and directories, with all that is in them, the owner's.
func (o *Owner) Give(t testing.TB, paths ...string) {
	t.Helper()
	if !o.other {
		return
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, o.UID, o.GID)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Dir makes a directory of the test's that is the owner's, with mode 0700, in one that it can enter.
func (o *Owner) Dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if o.other {
		// The directory of the test is above that of the call; both are this user's alone.
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // to be entered, not listed
				t.Fatal(err)
			}
		}
	}
	dir = filepath.Join(dir, "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Give(t, dir)
	return dir
}

// Program copies a program to a directory of its own, under a name, where the owner can run it. Another process does the
// copying: a file that this one had open for writing could not be run while any child of it begins.
func (o *Owner) Program(t testing.TB, path, name string) string {
	t.Helper()
	to := filepath.Join(o.Dir(t), name)
	if out, err := exec.Command("cp", path, to).CombinedOutput(); err != nil { //nolint:gosec // a program of the test's
		t.Fatalf("copy %s: %v: %s", path, err, out)
	}
	if err := os.Chmod(to, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return to
}

// Command returns a command that runs as the owner, without the environment's settings for PostgreSQL.
func (o *Owner) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	for _, v := range os.Environ() {
		if len(v) < 2 || v[:2] != "PG" {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "TZ=UTC")
	o.run(cmd)
	return cmd
}
