package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	sqlitelog "github.com/btcdecoded/holdfast/hostagent/replicate/sqlite"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const replicateLong = `Follow SQLite databases and PostgreSQL clusters, and ship what their applications commit, until it is stopped: the sources
of the policy that have "continuous", those that are named, the database of --sqlite, or the cluster of --postgres. The
agent does the same by itself.

A database of SQLite is only read: no lock is taken, no table is made, no checkpoint is held up. It must be in WAL mode. A
source begins with a snapshot; what is committed after it becomes a record of the log within the interval, and each record
is a point in time to which the source can be restored. Where something was missed, a snapshot begins a new stream, and the
gap is told.

The WAL of a PostgreSQL cluster is streamed from a replication slot, which is made if it is missing and keeps WAL on the
server until it is durable in the repository; the role needs REPLICATION. A standby can be followed as well as a primary,
and a promotion is gone along with. While the repository is away the slot keeps more and more: set max_slot_wal_keep_size
on the server to what its disk can spare. --drop-slot removes the slot, for when the source is not to be followed any more:
without, the slot keeps WAL until the server's disk is full.

SIGTERM and Ctrl-C end it in an orderly way: what was committed is shipped first. After a kill it goes on where it was.

Where another host writes the same stream, such as a clone of this machine, one of the two stops with exit code 13.
--new-stream begins anew once that is mended.`

// replicateFlags are the flags of replicate.
type replicateFlags struct {
	database, cluster, name string
	interval                time.Duration
	renew, dropSlot         bool
}

// defaultContinuous is the interval of a source whose policy names none.
const defaultContinuous = time.Second

func (a *app) replicateCommand() *cobra.Command {
	var f replicateFlags
	cmd := &cobra.Command{
		Use:   "replicate [SOURCE...]",
		Short: "Follow databases and ship each commit within seconds",
		Long:  replicateLong,
		Example: `  holdfast replicate
  holdfast replicate app-db --interval 50ms
  holdfast replicate --sqlite /srv/app/app.db --name app-db
  holdfast replicate --postgres governance --name governance-db
  holdfast replicate governance-db --drop-slot`,
		GroupID: groupUse,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.dropSlot {
				return a.dropSlots(cmd.Context(), f, args)
			}
			return a.replicate(cmd.Context(), f, args)
		},
	}
	p := cmd.Flags()
	p.SortFlags = false
	p.StringVar(&f.database, "sqlite", "", "an SQLite database, a `FILE`, to follow without a policy")
	p.StringVar(&f.cluster, "postgres", "", "a PostgreSQL cluster, a `SERVICE` or connection string, to follow without a policy")
	p.StringVar(&f.name, "name", "", "`NAME` of the source, with --sqlite or --postgres")
	p.Var(span(&f.interval, 0), "interval", "ship what was committed after this `TIME`, from 10ms (default: as the policy says, or 1s)")
	p.BoolVar(&f.renew, "new-stream", false, "begin a new stream, with a snapshot")
	p.BoolVar(&f.dropSlot, "drop-slot", false, "do not follow: remove the replication slots of clusters from their servers")
	return cmd
}

// logTail is what a snapshot needs of the follower of its database.
type logTail interface {
	sqlite.Tail
	// Tail reports whether there is a log; without, the snapshot stands for itself.
	Tail() bool
	// Place is the place in the log of what was captured, once that is durable; nil: the snapshot stands for itself.
	Place(ctx context.Context) (*snapshot.LogPlace, error)
}

// followed is a source to follow: a database of SQLite, or a cluster of PostgreSQL.
type followed struct {
	source   snapshot.Source
	sqlite   *sqlite.Options
	cluster  *pgsource.Options
	slot     string // of a cluster
	interval time.Duration
}

func (a *app) replicate(ctx context.Context, f replicateFlags, args []string) error {
	if f.interval != 0 && (f.interval < replicate.MinInterval || f.interval > replicate.MaxInterval) {
		return usagef("replicate: --interval %s: want %s to %s", f.interval, replicate.MinInterval, shortSpan(replicate.MaxInterval))
	}
	list, err := a.toFollow(f, args)
	if err != nil {
		return err
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	out := &followPrinter{app: a}
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, one := range list {
		if f.interval > 0 {
			one.interval = f.interval
		}
		all.Go(func() {
			err := a.follower(repo, one, f.renew, out.tell).Run(ctx)
			if err != nil {
				err = fmt.Errorf("replicate %s: %w", one.source, err)
			}
			errs[i] = err
		})
	}
	all.Wait()
	return together(append(errs, out.err)...)
}

// toFollow are the sources that the arguments name.
func (a *app) toFollow(f replicateFlags, args []string) ([]followed, error) {
	host, err := a.host()
	if err != nil {
		return nil, err
	}
	if f.database != "" || f.cluster != "" || f.name != "" {
		if (f.database == "") == (f.cluster == "") || f.name == "" || len(args) > 0 {
			return nil, usagef("replicate: --sqlite or --postgres, and --name, describe a source together, and by themselves")
		}
		jobs, err := a.adHocJob(backupFlags{database: f.database, cluster: f.cluster, name: f.name}, nil)
		if err != nil {
			return nil, err
		}
		one := followed{source: jobs[0].source, sqlite: jobs[0].sqlite, cluster: jobs[0].cluster, interval: defaultContinuous}
		one.slot = (&policy.Postgres{}).SlotOf(f.name)
		return []followed{one}, nil
	}
	p, err := a.needPolicy()
	if err != nil {
		return nil, err
	}
	var out []followed
	names := databasesOf(p.Hosts[host], host, args)
	if len(args) == 0 {
		names = continuousSources(p, host)
		if len(names) == 0 {
			return nil, hinted{fmt.Errorf("the policy has no source with continuous for host %s", host), "name a source, a database with --sqlite FILE --name NAME, or a cluster with --postgres SERVICE --name NAME"}
		}
	}
	for _, name := range names {
		name = strings.TrimPrefix(name, host+"/")
		s, err := p.Lookup(host, name)
		if err != nil {
			return nil, usageError{err}
		}
		one, ok := followedOf(snapshot.Source{Host: host, Name: name}, s)
		if !ok {
			return nil, usagef("replicate %s: only databases of SQLite that are there, and clusters of PostgreSQL in mode physical, can be followed", one.source)
		}
		out = append(out, one)
	}
	return out, nil
}

// followedOf is what the policy says of a source that can be followed.
func followedOf(src snapshot.Source, s *policy.Source) (one followed, ok bool) {
	one = followed{source: src, interval: s.Schedule.Continuous.Std()}
	if one.interval == 0 {
		one.interval = defaultContinuous
	}
	switch {
	case s.SQLite != nil && s.SQLite.Path != "":
		one.sqlite = databaseOptions(s.SQLite)
	case s.Postgres != nil && s.Postgres.Mode == policy.Physical:
		one.cluster, one.slot = clusterOptions(s.Postgres), s.Postgres.SlotOf(src.Name)
	default:
		return one, false
	}
	return one, true
}

// spec is what a follower must be made anew for.
func (f followed) spec() replicate.Spec {
	if f.cluster != nil {
		return replicate.Spec{Kind: policy.KindPostgres, Path: f.cluster.Connection, Slot: f.slot, Interval: f.interval}
	}
	return replicate.Spec{Kind: policy.KindSQLite, Path: f.sqlite.Path, Interval: f.interval}
}

// continuousSources are the databases and clusters of a host that the policy wants to be followed.
func continuousSources(p *policy.Policy, host string) (names []string) {
	p.Each(func(h, name string, s *policy.Source) {
		if h != host || s.Schedule.Continuous <= 0 {
			return
		}
		if _, ok := followedOf(snapshot.Source{Host: h, Name: name}, s); ok {
			names = append(names, name)
		}
	})
	return names
}

// followDir is where the state of a source lies; package repository has its own there.
func (a *app) followDir(repo snapshot.RepositoryID, src snapshot.Source) string {
	return filepath.Join(a.statePath(), repo.String(), src.Host, src.Name)
}

// follower makes the follower of a source. Its snapshots are incrementals, without the hooks of backups: nothing has to
// stand still for them, and they may be needed at any time.
func (a *app) follower(repo *repository.Repository, one followed, renew bool, tell func(replicate.Event)) replicate.Follower {
	if one.cluster != nil {
		return a.clusterFollower(repo, one, renew, tell)
	}
	return sqlitelog.New(sqlitelog.Options{
		Options: a.followOptions(repo, one, renew, tell), Path: one.sqlite.Path,
		Base: func(ctx context.Context, c *sqlitelog.Capture) (uint64, error) {
			return a.followBase(ctx, repo, job{source: one.source, sqlite: one.sqlite, follow: c})
		},
	})
}

// followOptions are what the follower of a source is told, whatever that is.
func (a *app) followOptions(repo *repository.Repository, one followed, renew bool, tell func(replicate.Event)) replicate.Options {
	return replicate.Options{
		Repository: repo, Source: one.source, Interval: one.interval, Dir: a.followDir(repo.ID(), one.source), Tool: "holdfast " + a.version,
		Renew: renew, Tell: tell,
	}
}

// followBase makes the snapshot with which a log begins, and returns its number.
func (a *app) followBase(ctx context.Context, repo *repository.Repository, j job) (uint64, error) {
	result, err := a.backupOne(ctx, repo, j, "", nil)
	if err != nil {
		return 0, err
	}
	id, err := snapshot.ParseSelector(result.Snapshot)
	return id.Sequence, err
}

// followPrinter prints what happens to followers: a line each for people, or a document.
type followPrinter struct {
	app *app

	mu     sync.Mutex
	err    error                // of the output; guarded by mu
	shown  map[string]time.Time // last line about records, by source; guarded by mu
	counts map[string]uint64    // records since then; guarded by mu
}

// recordsEvery is how often people are told of records.
const recordsEvery = 10 * time.Second

func (o *followPrinter) tell(e replicate.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.app.flags.json {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = o.app.stdio.Out.Write(append(b, '\n'))
		}
		o.err = errors.Join(o.err, err)
		return
	}
	text, bad := followText(e)
	if e.Kind == replicate.Shipped {
		if o.shown == nil {
			o.shown, o.counts = map[string]time.Time{}, map[string]uint64{}
		}
		o.counts[e.Source]++
		if e.Time.Sub(o.shown[e.Source]) < recordsEvery {
			return
		}
		text = fmt.Sprintf("%s; the last took %.0f ms from its oldest commit", count(o.counts[e.Source], "record is durable", "records are durable"), e.Lag)
		o.shown[e.Source], o.counts[e.Source] = e.Time, 0
	}
	if o.app.flags.quiet && !bad {
		return
	}
	w := o.app.stdio.Out
	if bad {
		w = o.app.stdio.Err
	}
	_, err := fmt.Fprintf(w, "%s %s: %s\n", e.Time.UTC().Format(time.TimeOnly), e.Source, text)
	o.err = errors.Join(o.err, err)
}

// followText says what happened, and whether it is something to look at.
func followText(e replicate.Event) (text string, bad bool) {
	switch e.Kind {
	case replicate.Shipped:
		return "", false
	case replicate.Based:
		return fmt.Sprintf("snapshot @%d begins the log, in %.1fs", e.Snapshot, e.Seconds), false
	case replicate.Missed:
		return printable(e.Why) + ": a snapshot makes up for it", true
	case replicate.Trouble:
		return printable(e.Why), true
	case replicate.Promoted:
		return fmt.Sprintf("the cluster was promoted: the log goes on with timeline %d from %s", e.Timeline, e.LSN), false
	case replicate.Warned:
		if e.Hint != "" {
			return printable(e.Why) + "; " + printable(e.Hint), true
		}
		return printable(e.Why), true
	}
	text = string(e.State)
	if e.Why != "" {
		text += ": " + printable(e.Why)
	}
	if e.Hint != "" {
		text += "; " + printable(e.Hint)
	}
	switch e.State {
	case replicate.Starting, replicate.Snapshot, replicate.Following, replicate.Stopped:
		return text, false
	}
	return text, true
}
