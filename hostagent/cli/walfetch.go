package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// walFetchName is the command that restore_command runs.
const walFetchName = "wal-fetch"

// The exit codes of wal-fetch. PostgreSQL takes 1 to 125 for “there is no such file”, and ends its recovery with that;
// from 126 on it ends itself.
const (
	exitAbsent = 1
	exitFault  = 126
)

const walFetchLong = `Give a server that recovers a file of its log. ` + "`holdfast restore`" + ` writes the command into its restore_command; nobody else
needs it.

A segment is given only if all of its records are proven: unaltered, in order, none missing. The last one of the log, which
is not whole, is filled with zeros. While a restore is at work it is asked, and has it ready; otherwise the repository is
read, with the settings of the restore, and some segments more are fetched.

Exit code 0 means that the file is there, 1 that it is known that no such file exists (behind the end of the log, or the
history of a timeline of which none is stored), 126 or more anything else: damage, a store out of reach, a wrong call, a
signal. PostgreSQL goes on after 1, and stops after 126.`

func (a *app) walFetchCommand() *cobra.Command {
	var plan string
	cmd := &cobra.Command{
		Use:     walFetchName + " --plan FILE NAME PATH",
		Short:   "Give a recovering PostgreSQL server its WAL",
		Long:    walFetchLong,
		Example: "  holdfast wal-fetch --plan holdfast.recovery/plan.json %f %p",
		GroupID: groupUse,
		Args:    arguments(2, 2, "NAME and PATH, which restore_command has as %f and %p"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if plan == "" {
				return usagef("wal-fetch: --plan says which recovery it is for")
			}
			found, err := postgres.Fetch(cmd.Context(), plan, args[0], args[1], a.openFetch)
			if err == nil && !found {
				return outcome(exitAbsent)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&plan, "plan", "", "the `FILE` in which the restore has written what it is for")
	return cmd
}

// walFetchCode makes an exit code one that says to PostgreSQL what it means.
func walFetchCode(ctx context.Context, err error, code int) int {
	var known outcome
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &known) && known == exitAbsent && ctx.Err() == nil:
		return exitAbsent
	case ctx.Err() != nil:
		return 128 + int(syscall.SIGTERM) // as if it had ended it
	}
	return max(code, exitFault)
}

// walFetch runs the command. Whatever ends it, also a panic, has an exit code that PostgreSQL does not take for the end of
// its WAL.
func walFetch(ctx context.Context, root *cobra.Command, stdio Stdio) (code int) {
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintf(stdio.Err, "error: wal-fetch: %v\n%s", fault, debug.Stack())
			code = exitFault
		}
	}()
	err := root.ExecuteContext(ctx)
	return walFetchCode(ctx, err, report(ctx, stdio.Err, err, false))
}

// isWalFetch reports whether the arguments call wal-fetch, however wrongly.
func isWalFetch(root *cobra.Command, args []string) bool {
	if cmd, _, err := root.Find(args); err == nil && cmd != root {
		return cmd.Name() == walFetchName
	}
	return slices.Contains(args, walFetchName)
}

// fetchSettings is what `wal-fetch` needs to read the log by itself.
type fetchSettings struct {
	Repository string            `json:"repository"`
	Identity   string            `json:"identity"`
	State      string            `json:"state"`
	Host       string            `json:"host"`
	Source     string            `json:"source"`
	Through    snapshot.LogPlace `json:"through"`
}

func absolutePath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// fetchSettings are those of this run, for `wal-fetch`.
func (a *app) fetchSettings(src snapshot.Source, through snapshot.LogPlace) (fetchSettings, error) {
	address, err := a.address()
	if err != nil {
		return fetchSettings{}, err
	}
	host, err := a.host()
	if err != nil {
		return fetchSettings{}, err
	}
	return fetchSettings{
		Repository: absolute(address), Identity: absolutePath(a.identityPath()), State: absolutePath(a.statePath()), Host: host, Source: src.String(), Through: through,
	}, nil
}

// openFetch opens the log with the settings of the restore.
func (a *app) openFetch(ctx context.Context, p *postgres.Plan) (*postgres.Log, error) {
	var s fetchSettings
	if err := json.Unmarshal(p.Reader, &s); err != nil {
		return nil, fmt.Errorf("the plan does not say where the log is: %w", err)
	}
	for flag, value := range map[*string]string{&a.flags.repository: s.Repository, &a.flags.identity: s.Identity, &a.flags.state: s.State, &a.flags.host: s.Host} {
		if *flag == "" {
			*flag = value
		}
	}
	if _, err := os.Stat(a.identityPath()); err != nil {
		return nil, fmt.Errorf("the identity can not be read by the user that the server runs as: %w; do the restore again, which fetches for it", err)
	}
	src, err := selector(s.Source)
	if err != nil {
		return nil, err
	}
	repo, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	m, err := a.readMoments(ctx, repo, snapshot.Source{Host: src.Host, Name: src.Name})
	if err != nil {
		return nil, err
	}
	return m.log(ctx, p.From, s.Through, nil)
}
