package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EndStray ends the server that an earlier restore has left on a data directory, if it is one: its process must have the
// directory as its own. Nothing is done to others.
func EndStray(dir string) error {
	pid := Postmaster(dir)
	if pid == 0 {
		return nil
	}
	_ = syscall.Kill(pid, syscall.SIGQUIT) // it may just have ended
	for end := time.Now().Add(stopTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if Postmaster(dir) == 0 {
			return nil
		}
	}
	return fmt.Errorf("the server that runs on %s (process %d) does not stop", dir, pid)
}

// Postmaster is the process of the server that runs on a data directory; 0: none does. It is found by its pid file, or by
// where it works: the file of a server in a container has a number that means something in there only.
func Postmaster(dir string) int {
	own, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	if pid := namedPostmaster(dir, own); pid != 0 {
		return pid
	}
	return workingPostmaster(own)
}

// namedPostmaster is the process that the pid file names, if it is a server on the directory.
func namedPostmaster(dir string, own fs.FileInfo) int {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return 0
	}
	at, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	switch {
	case errors.Is(err, fs.ErrPermission) && syscall.Kill(pid, 0) == nil:
		return pid // somebody else's: it can't be seen where it works
	case err != nil || !os.SameFile(at, own):
		return 0
	}
	return pid
}

// workingPostmaster looks for a server that works in the directory among the processes that can be seen.
func workingPostmaster(own fs.FileInfo) int {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var found []int
	parents := map[int]int{}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if at, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || !os.SameFile(at, own) {
			continue
		}
		if name, parent, ok := processOf(pid); ok && (name == "postgres" || name == "postmaster") {
			found = append(found, pid)
			parents[pid] = parent
		}
	}
	for _, pid := range found {
		if !slices.Contains(found, parents[pid]) {
			return pid
		}
	}
	return 0
}

// processOf reads the name and the parent of a process that has not ended; see proc(5), /proc/pid/stat.
func processOf(pid int) (name string, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	begin, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
	if begin < 0 || end < begin {
		return "", 0, false
	}
	rest := strings.Fields(string(b[end+1:]))
	if len(rest) < 2 || rest[0] == "Z" || rest[0] == "X" {
		return "", 0, false
	}
	parent, err = strconv.Atoi(rest[1])
	return string(b[begin+1 : end]), parent, err == nil
}
