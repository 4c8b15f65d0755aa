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
