package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is the variable that names the small disk to the test within its namespace.
const smallDisk = "HOLDFAST_SOAK_DISK"

// TestFollowerFullDisk fills the disk on which the repository and the state of the host are, again and again, and empties
// it: the follower goes on by itself, and has lost nothing. The disk is one of a mount namespace of its own.
func TestFollowerFullDisk(t *testing.T) {
	disk := os.Getenv(smallDisk)
	if disk == "" {
		onSmallDisk(t)
		return
	}
	random := dice(t)
	h := newHost(t, filepath.Join(disk, "repository"))
	h.env = append(h.env, "HOLDFAST_STATE="+filepath.Join(disk, "state"))
	d := newDatabase(t, h, random)
	d.state = filepath.Join(disk, "state")
	d.start()
	d.awaitDatabase()
	d.follow()
	d.awaitFollowing()
	for range test.fills {
		fill(t, filepath.Join(disk, "fill"))
		time.Sleep(time.Duration(500+random.IntN(1500)) * time.Millisecond)
		must(t, os.Remove(filepath.Join(disk, "fill")))
		d.awaitFollowing()
		d.check(1)
	}
	d.endAll()
	d.run("verify", "--level", "content")
	t.Logf("%d times full; %d snapshots, %d gaps", test.fills, d.snapshots, d.gaps)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	for size := 1 << 20; size > 0; size /= 4 {
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	must(t, f.Close())
}

// onSmallDisk runs the test once more in a namespace of its own, where it has a disk of 200 MiB. User namespaces lend an
// ordinary user what that needs.
func onSmallDisk(t *testing.T) {
	t.Helper()
	disk := t.TempDir()
	self, err := os.Executable()
	must(t, err)
	script := `mount -t tmpfs -o size=200m,mode=0700 holdfast-test "$` + smallDisk + `" && exec "$0" "$@"`
	args := []string{
		"--mount", "--propagation", "private", "sh", "-c", script, self, "-test.run", "^" + t.Name() + "$", "-test.v",
		"-seed", fmt.Sprint(test.seed), "-fills", fmt.Sprint(test.fills),
	}
	if os.Geteuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), smallDisk+"="+disk)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in a namespace with a small disk, which needs root or a kernel that lends users namespaces: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}
