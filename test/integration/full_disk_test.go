package integration

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/trees"
)

// onSmallDisk runs a shell script in a mount namespace of its own in which $DISK is a file system of 12 MiB; `enlarge`
// makes it large. It needs no root: user namespaces lend it.
func onSmallDisk(t *testing.T, h *host, disk, script string) string {
	t.Helper()
	must(t, os.MkdirAll(disk, 0o700))
	// With a name and a place, mount repeats none of the options that are in force: the owner would not be one of the
	// namespace's users.
	prelude := `set -u
mount -t tmpfs -o size=12m,mode=0700 holdfast-test "$DISK"
enlarge() { mount -o remount,size=400m holdfast-test "$DISK"; }
hf() { "$HOLDFAST" "$@" 2>&1; echo "exit code $?"; }
`
	needNamespace(t)
	cmd := inNamespace(prelude + script)
	cmd.Env = append(h.env, "HOLDFAST="+holdfast, "DISK="+disk)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("unshare: %v\n%s", err, out)
	}
	return string(out)
}

// inNamespace is a shell that may mount.
func inNamespace(script string) *exec.Cmd {
	args := []string{"--mount", "--propagation", "private", "sh", "-c", script}
	if os.Geteuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	return exec.Command("unshare", args...)
}

// needNamespace says what a machine lacks on which no small disk can be made.
func needNamespace(t *testing.T) {
	t.Helper()
	probe := inNamespace(`mount -t tmpfs -o size=1m holdfast-test "$DISK"`)
	probe.Env = append(os.Environ(), "DISK="+t.TempDir())
	if out, err := probe.CombinedOutput(); err != nil {
		t.Fatalf(`this test mounts a small disk in a namespace of its own, which is not permitted here: %v
%sneeded: root with CAP_SYS_ADMIN, or a kernel that lends ordinary users namespaces (kernel.unprivileged_userns_clone=1,
user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0), and a container that permits unshare and mount`, err, out)
	}
}

// bigTree makes a tree of 40 MiB that do not compress.
func bigTree(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	must(t, os.MkdirAll(tree, 0o755))
	for _, name := range []string{"a", "b", "c", "d"} {
		b := make([]byte, 10<<20)
		_, _ = rand.Read(b)
		must(t, os.WriteFile(filepath.Join(tree, name), b, 0o600))
	}
	return tree
}

func wantText(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		at := strings.Index(out, text)
		if at < 0 {
			t.Fatalf("%q is missing, or not in its place:\n%s", text, out)
		}
		out = out[at+len(text):]
	}
}

func TestFullDiskOfRepository(t *testing.T) {
	h := newHost(t, "")
	tree := bigTree(t)
	out := onSmallDisk(t, h, h.path("repository"), `
hf init
hf backup --files "`+tree+`" --name tree
hf snapshots
enlarge
hf backup --files "`+tree+`" --name tree
hf verify --level content
hf restore tree --to "`+h.path("restored")+`"
`)
	wantText(t, out, "exit code 0", "no space left", "exit code 1", "exit code 0", "tree@1 saved", "exit code 0", "exit code 0", "tree@1 restored", "exit code 0")
	if strings.Count(out, "tree@1 saved") != 1 {
		t.Errorf("the backup on the full disk is listed:\n%s", out)
	}
	compareTrees(t, tree, h.path("restored"))
}

func TestFullDiskOfState(t *testing.T) {
	h := newHost(t, "")
	tree := bigTree(t)
	fill := `dd if=/dev/zero of="$DISK/fill" bs=1M count=20 2>/dev/null; `
	out := onSmallDisk(t, h, h.path("state"), `
hf init
`+fill+`
hf backup --files "`+tree+`" --name tree
hf verify --level content
rm "$DISK/fill"
hf backup --files "`+tree+`" --name tree
hf verify --level content
hf restore tree --to "`+h.path("restored")+`"
`)
	wantText(t, out, "exit code 0", "no space left", "exit code 1", "exit code 0", "saved", "exit code 0", "exit code 0", "restored", "exit code 0")
	compareTrees(t, tree, h.path("restored"))
}

func TestFullDiskOfTarget(t *testing.T) {
	h := newHost(t, "")
	tree := bigTree(t)
	h.run("init")
	h.run("backup", "--files", tree, "--name", "tree")
	disk := h.path("target")
	out := onSmallDisk(t, h, disk, `
hf restore tree --to "$DISK"
enlarge
hf restore tree --to "$DISK"
cp -a "$DISK" "`+h.path("restored")+`"
`)
	wantText(t, out, "space", "exit code 1", "restored", "exit code 0")
	compareTrees(t, tree, h.path("restored"))
}

func compareTrees(t *testing.T, want, got string) {
	t.Helper()
	for _, diff := range trees.Compare(want, got) {
		t.Errorf("restored tree: %s", diff)
	}
}

// TestFullDiskOfFollower commits more than the disk of the state has room for: the follower says so, goes on when there is
// room, and has lost nothing.
func TestFullDiskOfFollower(t *testing.T) {
	h := newHost(t, "")
	db := h.path("app.db")
	sqlite3(t, db, "PRAGMA journal_mode = WAL; CREATE TABLE t(x BLOB)")
	out := onSmallDisk(t, h, h.path("state"), `
hf init
mkfifo "$DISK.in"
sqlite3 "`+db+`" <"$DISK.in" >"$DISK.rows" &
exec 3>"$DISK.in"
echo "INSERT INTO t VALUES (1); SELECT * FROM t;" >&3  # keeps the database open, so that its log stays
for i in $(seq 1200); do grep -q 1 "$DISK.rows" && break; sleep 0.1; done  # before anybody follows it
"$HOLDFAST" replicate --sqlite "`+db+`" --name app --interval 50ms --json >"$DISK.out" 2>&1 &
follower=$!
await() { for i in $(seq 1200); do grep -q "$1" "$DISK.out" && { echo "met $1"; return; }; sleep 0.1; done; echo "never met $1"; cat "$DISK.out"; }
await '"event":"snapshot"'
sqlite3 -cmd ".timeout 60000" "`+db+`" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) INSERT INTO t SELECT randomblob(3000) FROM n"
await 'no space left'
await '"state":"failing"'
enlarge
await '"event":"shipped"'
kill "$follower"
wait "$follower"; echo "exit code $?"
hf restore app --to "`+h.path("restored.db")+`"
`)
	wantText(t, out, "exit code 0", `met "event":"snapshot"`, "met no space left", `met "state":"failing"`, `met "event":"shipped"`, "exit code 0", "restored", "exit code 0")
	if said := sqlite3(t, h.path("restored.db"), "SELECT count(*) FROM t"); said != "10001\n" {
		t.Errorf("%s rows of 10001\n%s", said, out)
	}
	if b, err := os.ReadFile(h.path("state.out")); err != nil || strings.Count(string(b), `"event":"snapshot"`) != 1 || !strings.Contains(string(b), "make room") {
		t.Errorf("%v\n%s", err, b)
	}
}
