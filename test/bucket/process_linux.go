package bucket

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the server die with a test that is killed and can stop nothing any more.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
