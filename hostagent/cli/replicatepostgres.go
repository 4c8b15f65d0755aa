package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	postgreslog "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// clusterFollower makes the follower of a cluster.
func (a *app) clusterFollower(repo *repository.Repository, one followed, renew bool, tell func(replicate.Event)) replicate.Follower {
	return postgreslog.New(postgreslog.Options{
		Options: a.followOptions(repo, one, renew, tell), Service: serviceWord(one.cluster.Connection), Slot: one.slot,
		Config: func() (*pgconn.Config, error) { return pgsource.Config(one.cluster.Connection) },
		Base: func(ctx context.Context) (postgreslog.Base, error) {
			result, err := a.backupOne(ctx, repo, job{source: one.source, cluster: one.cluster}, "", nil)
			if err != nil {
				return postgreslog.Base{}, err
			}
			m := result.stored
			return postgreslog.Base{Number: m.Sequence, Place: m.Log, Stop: m.Postgres.Stop}, nil
		},
	})
}

// serviceWord says how a cluster is reached, without anything that is secret.
func serviceWord(connection string) string {
	if pgsource.IsService(connection) {
		return connection
	}
	config, err := pgsource.Config(connection)
	if err != nil {
		return "a connection string"
	}
	return pgsource.Describe(config)
}

// logPlaces knows how far the log of a cluster was when a backup began.
type logPlaces struct{ tail *postgreslog.Tail }

// Proof is how the server is known whose WAL is followed; nil: nothing tells.
func (l logPlaces) Proof() *pgsource.Proof { return l.tail.Proof() }

// Place is where a snapshot that has WAL from start to end stands in the log; nil: the log is of another system or timeline,
// does not go on from there, or there is none.
func (l logPlaces) Place(_ context.Context, system uint64, timeline uint32, start, end postgres.LSN) (*snapshot.LogPlace, error) {
	return l.tail.Place(system, timeline, start, end), nil
}

// walTail looks how far the log of a cluster is, in whichever process that is written: right before a backup begins.
func (a *app) walTail(repo *repository.Repository, src snapshot.Source) (walTail, error) {
	tail, err := postgreslog.ReadTail(a.followDir(repo.ID(), src))
	return logPlaces{tail}, err
}

// droppedSlot tells of a slot that is gone.
type droppedSlot struct {
	Source string `json:"source"`
	Slot   string `json:"slot"`
	Found  bool   `json:"found"` // it was there
}

// dropSlots removes the slots of clusters from their servers.
func (a *app) dropSlots(ctx context.Context, f replicateFlags, args []string) error {
	if f.renew || f.interval != 0 {
		return usagef("replicate: --drop-slot does not follow: it goes without --new-stream and --interval")
	}
	if len(args) == 0 && f.cluster == "" {
		return usagef("replicate: --drop-slot wants the source whose slot is to go")
	}
	list, err := a.toFollow(f, args)
	if err != nil {
		return err
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	out := []droppedSlot{}
	var errs []error
	for _, one := range list {
		if one.cluster == nil {
			errs = append(errs, usagef("replicate %s: only clusters of PostgreSQL have slots", one.source))
			continue
		}
		config, err := pgsource.Config(one.cluster.Connection)
		found := false
		if err == nil {
			found, err = postgreslog.DropSlot(ctx, config, a.followDir(repo.ID(), one.source), one.slot)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("replicate %s: %w", one.source, err))
			continue
		}
		out = append(out, droppedSlot{one.source.String(), one.slot, found})
	}
	perr := a.print(struct {
		Slots []droppedSlot `json:"slots"`
	}{out}, func(w io.Writer) {
		for _, d := range out {
			if d.Found {
				fmt.Fprintf(w, "%s: slot %s is gone: the server keeps no WAL for it any more\n", d.Source, d.Slot)
			} else {
				fmt.Fprintf(w, "%s: the server has no slot %s\n", d.Source, d.Slot)
			}
		}
	})
	return together(append(errs, perr)...)
}
