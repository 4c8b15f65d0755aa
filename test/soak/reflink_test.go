package soak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/writer"
)

// TestReflinks captures a database in a rollback mode, which an application writes to, on file systems that clone files:
// its writers wait for a moment only. Only those of -filesystems are tried, which takes root, a kernel that has them, their
// mkfs and loop devices.
func TestReflinks(t *testing.T) {
	for _, kind := range strings.Fields(strings.ReplaceAll(test.filesystems, ",", " ")) {
		t.Run(kind, func(t *testing.T) {
			d := newDatabase(t, newHost(t, ""), dice(t))
			d.path = filepath.Join(mounted(t, kind), "app.db")
			d.application = d.process(nil, d.app, "-db", d.path, "-notes", d.notes, "-rate", "100", "-journal", "delete", "-checkpoint", writer.None)
			d.awaitDatabase()
			longest := 0.0
			for range 10 {
				time.Sleep(time.Duration(d.random.IntN(300)) * time.Millisecond)
				notes, err := writer.Notes(d.notes)
				must(t, err)
				var said struct {
					Backups []struct {
						Database struct {
							Mode   string  `json:"mode"`
							Locked float64 `json:"locked_seconds"`
						} `json:"database"`
					} `json:"backups"`
				}
				d.run("backup", "--sqlite", d.path, "--name", "app", "--json", "--quiet").json(t, &said)
				if len(said.Backups) != 1 || said.Backups[0].Database.Mode != "reflink" {
					t.Fatalf("%+v", said)
				}
				longest = max(longest, said.Backups[0].Database.Locked)
				if got, want := d.restore(time.Time{}), notes[len(notes)-1].N; got < want {
					t.Errorf("%d transactions, %d were acknowledged", got, want)
				}
			}
			d.application.end()
			t.Logf("writers were kept waiting for %.3f ms at most", longest*1000)
		})
	}
}

// mounted makes a file system in a file, and mounts it until the test ends.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 400<<20))
	for _, command := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Error(fmt.Errorf("umount %s: %w\n%s", dir, err, out))
		}
	})
	return dir
}
