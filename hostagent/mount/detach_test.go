package mount

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDetach has a script in the place of FUSE's tool, which needs a mount made by an ordinary user.
func TestDetach(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if err := detach("dir"); !errors.Is(err, unix.EPERM) {
		t.Errorf("without a tool: got %v", err)
	}
	for _, tool := range []string{"fusermount", "fusermount3"} { // the newer one goes first
		script := "#!/bin/sh\necho \"${0##*/} $*\" >" + filepath.Join(bin, "called") + "\n[ \"$4\" = dir ]\n"
		if err := os.WriteFile(filepath.Join(bin, tool), []byte(script), 0o755); err != nil { //nolint:gosec // it is executed
			t.Fatal(err)
		}
		if err := detach("dir"); err != nil {
			t.Errorf("%s: %v", tool, err)
		}
		called, err := os.ReadFile(filepath.Join(bin, "called"))
		if want := tool + " -u -z -- dir\n"; err != nil || string(called) != want {
			t.Errorf("got %q, %v, want %q", called, err, want)
		}
		if err := detach("other"); err == nil {
			t.Errorf("%s failed and that was not told", tool)
		}
	}
}
