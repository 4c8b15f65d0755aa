package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// run lets a command run as the owner.
func (o *Owner) run(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if o.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)} //nolint:gosec // of the user database
	}
}

// endWithParent lets a server stop at once with a test that is killed and can stop nothing any more. SIGQUIT, an
// immediate stop, so that its processes and shared memory go too.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT }

// children are the processes that a server has started and that are alive.
func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// forget removes the shared memory that a killed server has left: the kernel keeps it for ever, and has only so many places. Line
// 7 of postmaster.pid, which is not there after an orderly end, has its key and number.
func forget(pidFile string) {
	b, err := os.ReadFile(pidFile) //nolint:gosec // of the test
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	var key int64
	var id int
	if len(lines) < 7 {
		return
	}
	if n, err := fmt.Sscan(lines[6], &key, &id); n != 2 || err != nil {
		return
	}
	var is unix.SysvShmDesc
	// Numbers come again: one with another key, or that somebody uses, is not this server's.
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &is); err == nil && int64(is.Perm.Key) == key && is.Nattch == 0 {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}

// alive says whether a process runs; one that only waits to be counted does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
