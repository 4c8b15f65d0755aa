//go:build !linux

package bucket

import "os/exec"

func endWithParent(*exec.Cmd) {}

// listens can't tell here whose socket it is.
func listens(int, string) bool { return true }
