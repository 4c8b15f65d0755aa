package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
)

// The exit codes; scripts rely on them and they never change. docs/guide.md lists them.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2
	exitPartial      = 3
	exitDamaged      = 4
	exitObjectives   = 5
	exitConfirm      = 6
	exitNoRepository = 10
	exitLocked       = 11
	exitIdentity     = 12
	exitSuperseded   = 13
	exitInterrupted  = 130
)

const exitHelp = `Exit codes:
  0    done
  1    an error
  2    the command was called wrongly
  3    a backup left files out, or a restore is not complete
  4    verification failed: damage or a rollback was found
  5    objectives of the policy are not met (status)
  6    nothing was done: the command asks for confirmation (prune)
  10   the repository does not exist
  11   another run of the same source is going on
  12   the identity is missing or is not one that opens the repository
  13   another host or process writes the same log (replicate)
  130  interrupted`

// exitLine ends the help of each command.
const exitLine = "Exit codes: 0 done, 1 error, 2 usage, 3 partial, 4 damage, 5 objectives not met, 6 asks for confirmation,\n" +
	"10 no repository, 11 locked, 12 identity, 13 log taken over, 130 interrupted"

// usageError says that a command was called wrongly.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// hinted adds what the user can do to an error.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

// Hint is what the user can do.
func (e hinted) Hint() string { return e.hint }

// afterError says that a hook after a backup failed: something that was stopped may still be. It is told also when the
// backup was interrupted.
type afterError struct{ error }

func (e *afterError) Unwrap() error { return e.error }

// outcome ends a command that did its work and has printed its result, with a code that says how it went.
type outcome int

func (o outcome) Error() string { return fmt.Sprintf("ended with exit code %d", int(o)) }

// several are errors of works that have nothing to do with each other, such as those of several sources.
type several []error

func (s several) Error() string { return errors.Join(s...).Error() }

func (s several) Unwrap() []error { return s }

// together joins what is not nil.
func together(errs ...error) error {
	var s several
	for _, err := range errs {
		if err != nil {
			s = append(s, err)
		}
	}
	if len(s) == 0 {
		return nil
	}
	return s
}

// code is that of all, or 1 where they differ: that one source is locked must not hide that another failed.
func (s several) code(ctx context.Context) (n int, hint string) {
	var hints []string
	for i, err := range s {
		one, hint := code(ctx, err)
		if i > 0 && one != n {
			one = exitError
		}
		n = one
		if hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	return n, strings.Join(hints, "; ")
}

// code maps an error to its exit code and a hint, which is empty where none is known. It is the only place that does.
func code(ctx context.Context, err error) (int, string) {
	if err == nil {
		return exitOK, ""
	}
	if o, ok := err.(outcome); ok { //nolint:errorlint // an outcome is never wrapped: it is the end of a command
		return int(o), ""
	}
	if s, ok := err.(several); ok { //nolint:errorlint // only at the top: what is within one of them belongs together
		return s.code(ctx)
	}
	var hint string
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		hint = h.Hint()
	}
	if ctx.Err() != nil {
		return exitInterrupted, "" // whatever the work ended with: a hook that was killed, a request that was given up
	}
	var u usageError
	if errors.As(err, &u) {
		return exitUsage, hint
	}
	var damage *repository.DamageError
	var rollback *repository.RollbackError
	var diverged *copier.DivergedError
	if errors.As(err, &diverged) {
		return exitDamaged, "something else was backed up into one of the two: look at both with `holdfast snapshots -r`, then copy the one that is right to a new place"
	}
	if errors.As(err, &damage) || errors.As(err, &rollback) {
		if hint == "" {
			hint = "`holdfast verify` names everything that is hit; `holdfast repair --from COPY` puts back what a copy has; restore, cat and ls read it from there with --also COPY"
		}
		return exitDamaged, hint
	}
	var none *recovery.NotFoundError
	if errors.As(err, &none) && hint == "" {
		hint = "`holdfast snapshots` lists them; --points shows the moments that can be had"
	}
	for _, row := range exitTable() {
		if errors.Is(err, row.is) {
			if hint == "" {
				hint = row.hint
			}
			return row.code, hint
		}
	}
	return exitError, hint
}

// report prints a command's error, if there is one to print, and returns the exit code.
func report(ctx context.Context, w io.Writer, err error, asJSON bool) int {
	n, hint := code(ctx, err)
	text := ""
	if err != nil {
		text = err.Error()
		// Some errors of the packages below carry their hint in their text.
		if before, after, ok := strings.Cut(text, "; hint: "); ok {
			text, hint = before, after
		}
	}
	if n == exitInterrupted {
		text, hint = "interrupted", ""
		var after *afterError
		if errors.As(err, &after) {
			text += "\n" + after.Error()
		}
	}
	_, done := err.(outcome) //nolint:errorlint // as in code
	switch {
	case err == nil || done:
		return n
	case asJSON:
		line, _ := json.Marshal(struct {
			Error string `json:"error"`
			Hint  string `json:"hint,omitempty"`
			Code  int    `json:"code"`
		}{text, hint, n})
		fmt.Fprintf(w, "%s\n", line)
		return n
	}
	// Joined errors, such as those of several sources, are one a line.
	fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(text, "\n", "\nerror: "))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	return n
}
