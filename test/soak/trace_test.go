package soak

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tracedCalls are the system calls that change a directory or a file's bytes, or make a change last.
const tracedCalls = "write,pwrite64,writev,pwritev,ftruncate,copy_file_range,sendfile,fsync,fdatasync,link,linkat,rename,renameat,renameat2," +
	"unlink,unlinkat,mkdir,mkdirat,rmdir"

// strace returns the program.
func strace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace, which is not installed: `bash .ci/run` installs it")
	}
	return path
}

// event is one system call. Others may have run between its start and its end; both count lines of the trace.
type event struct {
	call       string
	paths      []string
	removesDir bool
	start, end int
}

var (
	beginning  = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumption = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	// A descriptor with its path and perhaps a name in that directory, or a name alone.
	argument = regexp.MustCompile(`(?:\d+|AT_FDCWD)<([^>]*)>(?:\(deleted\))?(?:, "([^"]*)")?|"([^"]*)"`)
	failure  = regexp.MustCompile(`\) += -1 `)
)

// parseTrace reads what strace -f -y has written.
func parseTrace(t *testing.T, file string) []event {
	t.Helper()
	b, err := os.ReadFile(file) //nolint:gosec // the test's own file
	must(t, err)
	var all []*event
	open := map[string]*event{} // by process
	finish := func(e *event, line int, rest string) {
		e.end = line
		if !failure.MatchString(rest) {
			all = append(all, e)
		}
	}
	for i, line := range strings.Split(string(b), "\n") {
		if m := resumption.FindStringSubmatch(line); m != nil {
			if e := open[m[1]]; e != nil {
				delete(open, m[1])
				finish(e, i, m[3])
			}
			continue
		}
		m := beginning.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		e := &event{call: m[2], start: i, removesDir: m[2] == "rmdir" || strings.Contains(m[3], "AT_REMOVEDIR")}
		for _, a := range argument.FindAllStringSubmatch(m[3], -1) {
			switch {
			case a[3] != "":
				e.paths = append(e.paths, a[3])
			case filepath.IsAbs(a[2]):
				e.paths = append(e.paths, a[2])
			default:
				e.paths = append(e.paths, filepath.Join(a[1], a[2]))
			}
		}
		if strings.Contains(m[3], "<unfinished ...>") {
			open[m[1]] = e
			continue
		}
		finish(e, i, m[3])
	}
	out := make([]event, 0, len(all))
	for _, e := range all {
		out = append(out, *e)
	}
	if len(out) == 0 {
		t.Fatalf("strace has seen nothing:\n%s", b)
	}
	return out
}

// change is an object that a command made or removed in a repository.
type change struct {
	key        string
	start, end int // of the system call
	lasts      int // from when on it outlives a power failure; never: math.MaxInt
}

// history is what a command did to the repository in a directory.
type history struct {
	made, removed []change
	lines         int
}

// newHistory models what must be assumed of a disk: bytes last after the fsync of their file, names after that of their
// directory; until then each of them may be lost or not.
func newHistory(t *testing.T, root string, events []event) *history {
	t.Helper()
	h := &history{}
	for _, e := range events {
		h.lines = max(h.lines, e.end)
		last := ""
		if n := len(e.paths); n > 0 {
			last = e.paths[n-1]
		}
		key, inside := strings.CutPrefix(last, root+"/v1/")
		key = "v1/" + key
		switch e.call {
		case "linkat", "link":
			if !inside {
				continue
			}
			if !contentSynced(events, e.paths[0], e.start) {
				t.Errorf("%s gets its name before its bytes are synced", key)
			}
			h.made = append(h.made, change{key, e.start, e.end, entryLasts(events, root, last, e.end)})
		case "unlink", "unlinkat":
			if inside && !e.removesDir {
				h.removed = append(h.removed, change{key, e.start, e.end, removalLasts(events, root, last, e.end)})
			}
		case "rename", "renameat", "renameat2":
			if inside {
				t.Errorf("%s is renamed into its place: what was there would be lost", key)
			}
		}
	}
	return h
}

func isSync(e event) bool { return e.call == "fsync" || e.call == "fdatasync" }

func isWrite(e event) bool {
	return strings.Contains(e.call, "write") || e.call == "ftruncate" || e.call == "copy_file_range" || e.call == "sendfile"
}

// contentSynced reports whether all that was written to a file before a moment was synced before it.
func contentSynced(events []event, path string, before int) bool {
	written, synced := -1, -1
	for _, e := range events {
		if e.start >= before || len(e.paths) == 0 || e.paths[0] != path && e.paths[len(e.paths)-1] != path {
			continue
		}
		switch {
		case isWrite(e):
			written = max(written, e.end)
		case isSync(e) && e.end < before:
			synced = max(synced, e.start)
		}
	}
	return synced > written
}

// syncedAfter is when a sync of the directory has ended that began after a moment.
func syncedAfter(events []event, dir string, moment int) int {
	at := math.MaxInt
	for _, e := range events {
		if isSync(e) && len(e.paths) > 0 && e.paths[0] == dir && e.start > moment {
			at = min(at, e.end)
		}
	}
	return at
}

// entryLasts is from when on a name is sure: its directory was synced, and those in which directories above it were made.
func entryLasts(events []event, root, path string, made int) int {
	at := syncedAfter(events, filepath.Dir(path), made)
	for dir := filepath.Dir(path); dir != root && len(dir) > len(root); dir = filepath.Dir(dir) {
		for _, e := range events {
			if strings.HasPrefix(e.call, "mkdir") && e.start < made && e.paths[len(e.paths)-1] == dir {
				at = max(at, syncedAfter(events, filepath.Dir(dir), e.end))
			}
		}
	}
	return at
}

// removalLasts is from when on a removal is sure: its directory was synced, or removed for good itself.
func removalLasts(events []event, root, path string, gone int) int {
	dir := filepath.Dir(path)
	at := syncedAfter(events, dir, gone)
	if dir == root {
		return at
	}
	for _, e := range events {
		if e.removesDir && e.start > gone && e.paths[len(e.paths)-1] == dir {
			at = min(at, removalLasts(events, root, dir, e.end))
		}
	}
	return at
}
