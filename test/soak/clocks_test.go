package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockSource is added to a package of the product in the build under test. The clock of the machine itself belongs to
// everybody, and what fakes it for a process (libfaketime) works on the C library, which no Go program asks for the time.
const clockSource = `package %s

import (
	"os"
	"time"
)

func clockUnderTest(variable string) time.Time {
	d, _ := time.ParseDuration(os.Getenv(variable))
	return time.Now().Add(d)
}
`

// buildClocked builds the product with two clocks that the environment moves: that of the host (HOLDFAST_TEST_CLOCK) and
// that of the file system of a repository in a directory (HOLDFAST_TEST_DISK_CLOCK).
func buildClocked(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	overlay := map[string]string{}
	patch := func(file, pkg string, replace ...string) {
		path, err := filepath.Abs(filepath.Join("../..", file))
		must(t, err)
		b, err := os.ReadFile(path) //nolint:gosec // our own source
		must(t, err)
		for i := 0; i < len(replace); i += 2 {
			if !strings.Contains(string(b), replace[i]) {
				t.Fatalf("%s has no %q any more: this test replaces it", file, replace[i])
			}
		}
		patched, clock := filepath.Join(dir, pkg+".go"), filepath.Join(dir, pkg+"_clock.go")
		must(t, os.WriteFile(patched, []byte(strings.NewReplacer(replace...).Replace(string(b))), 0o600))
		must(t, os.WriteFile(clock, fmt.Appendf(nil, clockSource, pkg), 0o600))
		overlay[path], overlay[filepath.Join(filepath.Dir(path), "moved_clock.go")] = patched, clock
	}
	patch("hostagent/cli/cli.go", "cli", "now: time.Now,", `now: func() time.Time { return clockUnderTest("HOLDFAST_TEST_CLOCK") },`)
	patch("shared/objstore/file/put.go", "file", "func link(root *os.Root, name, key string) error {", `func link(root *os.Root, name, key string) error {
	now := clockUnderTest("HOLDFAST_TEST_DISK_CLOCK")
	_ = root.Chtimes(name, now, now)`)
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	must(t, err)
	file := filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(file, b, 0o600))
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-overlay", file, "-o", test.clocked, "../../hostagent") //nolint:gosec // a fixed command
	build.Env = append(os.Environ(), "CGO_ENABLED=0")                                                                             // so that all but the two packages is compiled already
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// at runs a command on a host whose clock is off by d; the disk's as well if it is the same clock.
func (h *host) at(d time.Duration, disk bool, args ...string) answer {
	h.t.Helper()
	env := []string{"HOLDFAST_TEST_CLOCK=" + d.String()}
	if disk {
		env = append(env, "HOLDFAST_TEST_DISK_CLOCK="+d.String())
	}
	a := h.start(0, env, args...)()
	if a.code != 0 {
		h.t.Fatalf("clock off by %s: %v", d, a)
	}
	return a
}

// pruned is what prune says of one source.
type pruned struct {
	Condemned []uint64 `json:"condemned"`
	Removed   []uint64 `json:"removed"`
	Packs     int      `json:"packs"`
}

func (h *host) prunes(d time.Duration, disk bool) pruned {
	h.t.Helper()
	var all []pruned
	h.at(d, disk, "prune", "--keep-last", "1", "--force", "--json").json(h.t, &all)
	return all[0]
}

func TestClocks(t *testing.T) {
	buildClocked(t)
	to2099 := time.Date(2099, 6, 1, 12, 0, 0, 0, time.UTC).Sub(time.Now().Truncate(time.Second))
	kinds := []struct {
		name string
		test func(*testing.T)
	}{
		{"host in 2099", func(t *testing.T) { testHostClock(t, to2099) }},
		{"host and disk a month ahead", func(t *testing.T) { testDiskClock(t, 31*day) }},
		{"days pass", testDays},
		{"host an hour behind", func(t *testing.T) { testHostClock(t, -time.Hour) }},
		{"host and disk in 2099", func(t *testing.T) { testDiskClock(t, to2099) }},
		{"host an hour ahead", func(t *testing.T) { testHostClock(t, time.Hour) }},
		{"host and disk an hour behind", func(t *testing.T) { testDiskClock(t, -time.Hour) }},
		{"host and disk an hour ahead", func(t *testing.T) { testDiskClock(t, time.Hour) }},
	}
	for _, k := range kinds[:min(len(kinds), test.jumps)] {
		t.Run(k.name, k.test)
	}
}

// clockedHost is a host with a tree that is backed up once at the right time.
func clockedHost(t *testing.T) (*host, *workload, []string) {
	t.Helper()
	h := newHost(t, "")
	h.program = test.clocked
	tree := newWorkload(t, dice(t))
	h.run("init")
	backup := []string{"backup", "--files", tree.top, "--name", "tree"}
	h.run(backup...)
	return h, tree, backup
}

// testHostClock: the store's clock is right, the host's is not. Its snapshots are marked and nothing builds on them;
// prune goes by the store's clock.
func testHostClock(t *testing.T, d time.Duration) {
	h, tree, backup := clockedHost(t)
	tree.edit()
	wrong := tree.remember()
	h.at(d, false, backup...)
	tree.edit()
	h.run(backup...)
	tree.edit()
	h.run(backup...)
	all := h.snapshots()
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	for i, l := range all {
		if off := strings.Contains(fmt.Sprint(l.States), "clock off"); off != (i == 1) {
			t.Errorf("%s: %v", l.Snapshot, l.States)
		}
		if l.Parent == 2 {
			t.Errorf("%s builds on the one whose clock was off", l.Snapshot)
		}
	}
	if all[3].Parent != 3 {
		t.Errorf("%+v is no incremental: the wrong clock still counts", all[3])
	}
	if p := h.prunes(0, false); len(p.Condemned) == 0 {
		t.Fatalf("%+v", p)
	}
	for range 3 {
		if p := h.prunes(d, false); len(p.Removed) > 0 || p.Packs > 0 {
			t.Fatalf("removed early: %+v", p)
		}
	}
	h.run("verify", "--level", "content")
	h.run("restore", "tree@2", "--to", h.path("restored"))
	compare(t, "tree@2", wrong, h.path("restored"))
}

// testDiskClock: the repository is a directory, so that its clock jumps with the host's. Nothing is removed early, not by
// runs at the wrong time nor after it, and backups go on.
func testDiskClock(t *testing.T, d time.Duration) {
	h, tree, backup := clockedHost(t)
	tree.edit()
	h.run(append(backup, "--type", "full")...)
	if p := h.prunes(0, true); len(p.Condemned) == 0 {
		t.Fatalf("%+v", p)
	}
	for range 3 {
		if p := h.prunes(d, true); len(p.Removed) > 0 || p.Packs > 0 {
			t.Fatalf("removed early: %+v", p)
		}
		tree.edit()
		h.at(d, true, backup...)
	}
	for range 3 {
		if p := h.prunes(0, true); len(p.Removed) > 0 || p.Packs > 0 {
			t.Fatalf("removed early, by the right clock: %+v", p)
		}
	}
	tree.edit()
	h.run(backup...)
	h.run("verify", "--level", "content")
	if all := h.snapshots(); len(all) != 6 {
		t.Fatalf("%+v", all)
	}
	h.run("restore", "tree", "--to", h.path("restored"))
	compare(t, "tree", tree.remember(), h.path("restored"))
}

// testDays: with daily runs a directory's clock is believed, and removal comes after 7 days.
func testDays(t *testing.T) {
	h, tree, backup := clockedHost(t)
	tree.edit()
	h.run(append(backup, "--type", "full")...)
	for today := range 9 {
		p := h.prunes(time.Duration(today)*day, true)
		if removed := len(p.Removed) > 0; removed != (today == 7) {
			t.Fatalf("day %d: %+v", today, p)
		}
	}
	h.run("verify", "--level", "content")
}
