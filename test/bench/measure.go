package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one process and those that it waited for used.
type usage struct {
	Wall float64 `json:"wall_s"`
	CPU  float64 `json:"cpu_s"`     // user and system
	RSS  int64   `json:"rss_bytes"` // peak of the largest process
	Exit int     `json:"exit"`
}

// invocation is a command to be measured, or one that prepares.
type invocation struct {
	args []string
	dir  string   // "": the harness's own
	env  []string // besides a minimal one
}

// measureFlag as the first argument makes this program a launcher: see [launch].
const measureFlag = "-measure-child"

// launcher starts processes to be measured.
type launcher struct {
	self string // this program
	dir  string // for results and logs
	cpus int
}

// run measures one command. Its output goes to a log; the end of it is part of the error if the command fails.
func (l *launcher) run(ctx context.Context, i invocation) (usage, error) {
	result, log := filepath.Join(l.dir, "usage.json"), filepath.Join(l.dir, "output.log")
	if err := os.Remove(result); err != nil && !errors.Is(err, os.ErrNotExist) {
		return usage{}, err
	}
	out, err := os.Create(log)
	if err != nil {
		return usage{}, err
	}
	defer func() { _ = out.Close() }()
	args := append([]string{measureFlag, result, fmt.Sprint(l.cpus)}, i.args...)
	cmd := exec.CommandContext(ctx, l.self, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = i.dir, environment(i.env), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return usage{}, fmt.Errorf("measure %s: %w\n%s", i, err, tail(log))
	}
	b, err := os.ReadFile(result)
	if err != nil {
		return usage{}, err
	}
	var u usage
	if err := json.Unmarshal(b, &u); err != nil {
		return usage{}, fmt.Errorf("measure %s: %w", i, err)
	}
	if u.Exit != 0 {
		return u, fmt.Errorf("run %s: exit code %d\n%s", i, u.Exit, tail(log))
	}
	return u, nil
}

func (i invocation) String() string { return strings.Join(i.args, " ") }

// run runs a command that is not measured and returns its standard output.
func (i invocation) run(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, i.args[0], i.args[1:]...)
	cmd.Dir, cmd.Env = i.dir, environment(i.env)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w\n%s%s", i, err, out, problems.String())
	}
	return string(out), nil
}

// environment is small and the same everywhere, so that no setting of the user changes a result.
func environment(extra []string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=" + os.TempDir()}
	return append(env, extra...)
}

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// launch is what the launcher process does: it starts the command on the wanted number of CPUs, waits for it and writes
// what it used. A process of its own is needed because Linux carries the peak memory of the process that forks over
// into the one that is started: a harness that has compared two trees would make every tool look as large as itself.
func launch(args []string) error {
	if len(args) < 3 {
		return errors.New("launch: want a result file, a number of CPUs and a command")
	}
	var cpus int
	if _, err := fmt.Sscan(args[1], &cpus); err != nil {
		return fmt.Errorf("launch: CPUs %q: %w", args[1], err)
	}
	runtime.LockOSThread() // the affinity is the thread's, and the child inherits it
	if err := pin(cpus); err != nil {
		return err
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := os.StartProcess(path, args[2:], &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ(),
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	u := usage{Wall: time.Since(began).Seconds(), CPU: (state.UserTime() + state.SystemTime()).Seconds(), Exit: state.ExitCode()}
	if r, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.RSS = r.Maxrss * 1024
	}
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], b, 0o600)
}

// pin leaves this thread, and what it starts, at most n of the CPUs that it may use.
func pin(n int) error {
	var have, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	if n <= 0 || have.Count() <= n {
		return nil
	}
	for cpu := 0; want.Count() < n; cpu++ {
		if have.IsSet(cpu) {
			want.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("set CPU affinity: %w", err)
	}
	return nil
}
