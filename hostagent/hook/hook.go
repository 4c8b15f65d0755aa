// Package hook runs the commands that a policy names around backups and restores. Use [Run], or [Until] for those that tell
// whether something is well again.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// grace is how long a command has to end after it was asked to, and how long its children may keep its output open.
const grace = 5 * time.Second

// Run runs the hooks in order and stops at the first that fails or takes longer than its limit. What they print goes
// to out. env is added to the environment of this process. No shell is involved.
func Run(ctx context.Context, hooks []policy.Hook, env []string, out io.Writer) error {
	for i, h := range hooks {
		if err := run(ctx, h, env, out); err != nil {
			return fmt.Errorf("%s: %w", name(hooks, i), err)
		}
	}
	return nil
}

// again is how long Until waits before it runs a hook once more.
const again = time.Second

// Until runs the hooks in order, each again and again until it succeeds, and fails when one has not within its limit.
func Until(ctx context.Context, hooks []policy.Hook, env []string, out io.Writer) error {
	for i, h := range hooks {
		if err := until(ctx, h, env, out); err != nil {
			return fmt.Errorf("%s: %w", name(hooks, i), err)
		}
	}
	return nil
}

func until(ctx context.Context, h policy.Hook, env []string, out io.Writer) error {
	limited, cancel := context.WithTimeout(ctx, h.Timeout.Std())
	defer cancel()
	for {
		err := run(limited, h, env, out)
		if err == nil {
			return nil
		}
		select {
		case <-limited.Done():
		case <-time.After(again):
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("it did not succeed within %s: %w", h.Timeout, err)
	}
}

// name is what messages call a hook: its program, and which of several it is, as those that a shell runs all have the same. Its
// arguments may hold passwords, and messages are kept and shown.
func name(hooks []policy.Hook, i int) string {
	program := ""
	if len(hooks[i].Command) > 0 {
		program = hooks[i].Command[0]
	}
	if len(hooks) == 1 {
		return fmt.Sprintf("hook %q", program)
	}
	return fmt.Sprintf("hook %d of %d, %q", i+1, len(hooks), program)
}

func run(ctx context.Context, h policy.Hook, env []string, out io.Writer) error {
	if len(h.Command) == 0 {
		return errors.New("names no command")
	}
	limited, cancel := context.WithTimeout(ctx, h.Timeout.Std())
	defer cancel()
	cmd := exec.CommandContext(limited, h.Command[0], h.Command[1:]...) //nolint:gosec // the policy's owner says what runs
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: what the command has started ends with it, and a Ctrl-C at the terminal is for the backup,
	// which then still runs the hooks after it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("took longer than %s", h.Timeout)
	}
	return err
}
