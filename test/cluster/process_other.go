//go:build !linux

package cluster

import (
	"os/exec"
	"syscall"
)

func (o *Owner) run(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if o.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)}
	}
}

func endWithParent(*exec.Cmd) {}

func children(int) []int { return nil }

func forget(string) {}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
