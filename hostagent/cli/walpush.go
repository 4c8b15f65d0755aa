package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	postgreslog "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const walPushLong = `Store a WAL segment in the repository, and return when it is durable: for archive_command of a PostgreSQL server that the
agent can't stream from:

  archive_command = 'holdfast wal-push governance-db %p'

Streaming is better where it can be had: a segment is given to archive_command only when it is full, so that a quiet database
is unprotected for as long as archive_timeout says, or for ever. Use one of the two for a source: while the agent follows it,
wal-push refuses. Who goes over from one to the other loses nothing.

Each segment must follow the one before it. Where one was left out, a gap is told and a new log begins, and a base backup
(holdfast backup) must make up for it. A segment that comes again is proven to be the one that is stored, by what is noted of
it or by the files beside it: a server that was put back to an older state is refused. Base backups and wal-push need the
same state directory: run both as the server's user, who must be able to read the identity and the policy, or give both the
same --state. A log counts from the first base backup after its first segment.

Any exit code but 0 makes the server keep the segment and try again.`

// walPushFlags are the flags of wal-push.
type walPushFlags struct {
	renew  bool
	within time.Duration
}

// walPushWithin is after how long a segment counts as not stored: the server then says so, and gives it again.
const walPushWithin = 2 * time.Minute

func (a *app) walPushCommand() *cobra.Command {
	var f walPushFlags
	cmd := &cobra.Command{
		Use:     "wal-push SOURCE PATH",
		Short:   "Store a WAL segment, as PostgreSQL's archive_command",
		Long:    walPushLong,
		Example: `  archive_command = 'holdfast wal-push governance-db %p'`,
		GroupID: groupUse,
		Args:    arguments(2, 2, "the source, and the file of pg_wal"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.walPush(cmd.Context(), f, args[0], args[1]) },
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.Var(span(&f.within, walPushWithin), "within", "give up after this `TIME`: the server tries again")
	p.BoolVar(&f.renew, "new-stream", false, "begin a new log")
	return cmd
}

// pushedFile is what became of a file.
type pushedFile struct {
	File   string `json:"file"`
	Stored int    `json:"stored_bytes"`
	Until  string `json:"durable_lsn"`
	Gap    string `json:"gap,omitempty"`
}

func (a *app) walPush(ctx context.Context, f walPushFlags, name, path string) error {
	host, err := a.host()
	if err != nil {
		return err
	}
	src := snapshot.Source{Host: host, Name: strings.TrimPrefix(name, host+"/")}
	if err := src.Check(); err != nil {
		return usageError{err}
	}
	if p, err := a.loadPolicy(); err != nil {
		return err
	} else if p != nil {
		s, err := p.Lookup(host, src.Name)
		if err != nil {
			return usageError{err}
		}
		if s.Postgres == nil || s.Postgres.Mode != policy.Physical {
			return usagef("wal-push %s: the source is no cluster of PostgreSQL in mode physical", src)
		}
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, f.within)
	defer cancel()
	p, err := postgreslog.Push(within, postgreslog.Options{
		Options: replicate.Options{
			Repository: repo, Source: src, Interval: time.Second, Dir: a.followDir(repo.ID(), src), Tool: "holdfast " + a.version, Renew: f.renew,
			Tell: func(e replicate.Event) {
				if e.Kind == replicate.Trouble {
					a.warn("%s", e.Why)
				}
			},
		},
		Service: "archive_command",
	}, path)
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = hinted{fmt.Errorf("not stored within %s: %w", f.within, err), "look whether the repository can be reached; the server tries again"}
		}
		return fmt.Errorf("wal-push %s: %w", src, err)
	}
	switch {
	case p.Gap != "":
		a.warn("the log of %s begins anew: %s; make a base backup: holdfast backup %s", src, p.Gap, src.Name)
	case p.Began:
		a.warn("the log of %s begins with %s: nothing can be restored from it before there is a base backup: holdfast backup %s", src, p.Name, src.Name)
	}
	if p.Slot != "" {
		a.warn("slot %s, from when the WAL of %s was streamed, keeps WAL until the server's disk is full: holdfast replicate %s --drop-slot", p.Slot, src, src.Name)
	}
	return a.print(pushedFile{p.Name, p.Stored, p.Until.String(), p.Gap}, func(w io.Writer) {
		if p.Stored > 0 {
			fmt.Fprintf(w, "%s: stored, durable up to %s\n", p.Name, p.Until)
		}
	})
}
