package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/hook"
	"github.com/btcdecoded/holdfast/hostagent/progress"
	"github.com/btcdecoded/holdfast/hostagent/source/files"
	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// shownProblems is how many problems are printed; the snapshot has them all.
const shownProblems = 20

// backupResult is what one backup did.
type backupResult struct {
	Snapshot     string          `json:"snapshot"`
	Type         string          `json:"type"`
	Why          string          `json:"why,omitempty"` // why it is not of the type that was asked for
	Parent       uint64          `json:"parent"`
	Counts       snapshot.Counts `json:"counts"`
	Seconds      float64         `json:"seconds"`
	Partial      bool            `json:"partial"`
	Rollback     bool            `json:"rollback"`
	ResumedPacks int             `json:"resumed_packs"`
	ResumedBytes uint64          `json:"resumed_bytes"`
	Problems     []problemLine   `json:"problems"`
	Database     *databaseResult `json:"database,omitempty"`
	Cluster      *clusterResult  `json:"cluster,omitempty"`
	Dumps        *dumpsResult    `json:"dumps,omitempty"`

	name   string // as this host calls the snapshot
	stored *repository.Stored
}

// problemLine is one thing that could not be captured as it should.
type problemLine struct {
	Path      string `json:"path"`
	Target    string `json:"target,omitempty"` // where it was to go, in a restore
	Operation string `json:"operation"`
	Error     string `json:"error"`
}

// backupOne backs up one source, with its hooks around it.
func (a *app) backupOne(ctx context.Context, repo *repository.Repository, j job, kind snapshot.SnapshotType, tags []string) (result *backupResult, err error) {
	if err := maySign(repo, j.source.Host, "snapshots", "keys"); err != nil {
		return nil, err
	}
	if err := a.refuseIdentity(j.roots()); err != nil {
		return nil, err
	}
	session, err := repo.Begin(ctx, repository.BeginOptions{
		Source: j.source, Kind: j.kind(), Type: kind, State: a.statePath(), Tool: "holdfast " + a.version, Now: a.now,
		Checkpoint: a.checkpoint(j),
	})
	if err != nil {
		return nil, missing(err)
	}
	defer func() {
		if cerr := session.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	j.options.Temp = a.statePath()
	for _, w := range session.Warnings() {
		a.warn("%v", w)
	}
	defer func() { a.remember(repo, j.source, err) }()
	// The hooks run under the source's lock: two runs never stop and start the same service.
	env := []string{"HOLDFAST_HOST=" + j.source.Host, "HOLDFAST_SOURCE=" + j.source.Name}
	defer func() {
		// What the hooks before stopped must be started again however the backup ended, also when it was interrupted.
		if herr := hook.Run(context.WithoutCancel(ctx), j.hooks.After, env, a.stdio.Err); herr != nil {
			err = errors.Join(err, &afterError{herr})
		}
	}()
	if err := hook.Run(ctx, j.hooks.Before, env, a.stdio.Err); err != nil {
		return nil, err
	}
	if j.cluster != nil {
		if j.followWAL, err = a.walTail(repo, j.source); err != nil {
			return nil, err
		}
	}
	return a.capture(ctx, session, j, tags)
}

// checkpoint says how a job commits unfinished snapshots on the way.
func (a *app) checkpoint(j job) repository.Checkpoint {
	c := repository.Checkpoint{Every: j.checkpoint, Committed: func(m *repository.Stored) {
		a.note("%s is saved, unfinished: %s so far; the backup goes on", a.name(m.ID()), count(m.Counts.Files, "file", "files"))
	}}
	if c.Every == 0 {
		c.Every = -1
	}
	if j.sqlite != nil || j.cluster != nil || j.dump != nil {
		c.Every = -1 // there is nothing on the way that could be restored
	}
	for _, root := range j.options.Roots {
		c.Roots = append(c.Roots, filepath.Clean(root))
	}
	return c
}

// refuseIdentity refuses roots that are an identity of this host: patterns leave out only what is below a root.
func (a *app) refuseIdentity(roots []string) error {
	for _, path := range []string{a.identityPath(), a.hostIdentityPath()} {
		identity, err := os.Stat(path)
		if err != nil {
			continue // none is there
		}
		for _, root := range roots {
			if info, err := os.Lstat(root); err == nil && os.SameFile(info, identity) {
				return hinted{
					usagef("the root %s is the identity, which opens the backup: it does not belong into it", root),
					"keep a copy of the file elsewhere, offline",
				}
			}
		}
	}
	return nil
}

// remember notes how a backup ended, for status. What can't be noted is only not known.
func (a *app) remember(repo *repository.Repository, src snapshot.Source, err error) {
	run := compliance.Run{Time: a.now().UTC()}
	if err != nil {
		run.Error = err.Error()
	}
	dir := state.Open(a.statePath(), repo.ID())
	if err := dir.SetLastRun(src, run); err != nil {
		a.warn("%v", err)
	}
	if address, aerr := a.address(); err == nil && aerr == nil {
		if err := dir.SetPlace(absolute(address)); err != nil {
			a.warn("%v", err)
		}
	}
}

// capture captures what the job names into the session and commits it.
func (a *app) capture(ctx context.Context, session *repository.Session, j job, tags []string) (*backupResult, error) {
	switch {
	case j.sqlite != nil:
		return a.captureDatabase(ctx, session, j, tags)
	case j.cluster != nil:
		return a.captureCluster(ctx, session, j, tags)
	case j.dump != nil:
		return a.captureDumps(ctx, session, j, tags)
	}
	absent := absentRoots(j.options.Roots)
	meter := a.meter()
	return a.captureWith(ctx, session, j, tags, meter, func() (*seen, error) {
		stop := estimate(ctx, meter, j.options)
		defer stop()
		captured, err := files.Capture(ctx, j.options, session, meter)
		if err != nil && len(absent) == len(j.options.Roots) {
			return nil, fmt.Errorf("%w: %s: does not exist", err, strings.Join(absent, ", "))
		}
		if err != nil {
			return nil, err
		}
		for i := range captured.Problems {
			if p := &captured.Problems[i]; slices.Contains(absent, string(p.Path)) {
				p.Error = "does not exist"
			}
		}
		return &seen{roots: captured.Roots, counts: captured.Counts, problems: captured.Problems}, nil
	})
}

// seen is what a source has captured.
type seen struct {
	roots    []string
	counts   snapshot.Counts
	problems []snapshot.Problem
	database *databaseResult
	cluster  *clusterResult
	dumps    *dumpsResult
	postgres *snapshot.Postgres // of a base backup
	until    time.Time          // by the source's own clock: nothing in it is later; zero: not known, or that is the host's
	log      *snapshot.LogPlace // of what the snapshot holds of the source's log; nil: it stands for itself
}

// captureWith captures into the session and commits it.
func (a *app) captureWith(ctx context.Context, session *repository.Session, j job, tags []string, meter *progress.Meter, capture func() (*seen, error)) (*backupResult, error) {
	started := a.now()
	var captured *seen
	var stored *repository.Stored
	err := meter.Run("backup "+j.source.Name, func() error {
		var err error
		if captured, err = capture(); err != nil {
			return err
		}
		stored, err = session.Commit(ctx, repository.Result{
			Roots: captured.roots, Counts: captured.counts, Problems: append(slices.Clone(j.left), captured.problems...),
			Partial: captured.counts.Errors > 0, Tags: tags, Started: started, Until: captured.until, Log: captured.log, Postgres: captured.postgres,
		})
		if stored != nil && err != nil {
			// The snapshot exists; only this host's memory of it does not, which the next run makes up for.
			meter.Clear()
			a.warn("%v", err)
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, missing(err)
	}
	return a.resultOf(session, stored, captured, a.now().Sub(started)), nil
}

// absentRoots are the roots that are not there when the capture begins: they did not vanish while it ran.
func absentRoots(roots []string) []string {
	var out []string
	for _, root := range roots {
		if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
			out = append(out, filepath.Clean(root))
		}
	}
	return out
}

// estimate counts beside the capture what there is to do, for the time that is left. A wrong or missing estimate only
// concerns what is shown.
func estimate(ctx context.Context, meter *progress.Meter, options files.Options) (stop func()) {
	if meter.Off() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n, size, err := files.Scan(ctx, options); err == nil {
			meter.Total(n, size)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (a *app) resultOf(session *repository.Session, m *repository.Stored, captured *seen, spent time.Duration) *backupResult {
	r := &backupResult{
		Snapshot: m.ID().String(), Parent: m.Parent, Counts: m.Counts, Seconds: spent.Seconds(), Partial: m.Partial,
		Problems: []problemLine{}, Database: captured.database, Cluster: captured.cluster, Dumps: captured.dumps, name: a.name(m.ID()), stored: m,
	}
	t, why := session.Type()
	r.Type, r.Why = string(t), why
	r.ResumedPacks, r.ResumedBytes = session.Resumed()
	for _, w := range session.Warnings() {
		r.Rollback = r.Rollback || isRollback(w)
	}
	for _, p := range captured.problems {
		r.Problems = append(r.Problems, problemLine{Path: string(p.Path), Operation: p.Operation, Error: p.Error})
	}
	return r
}

func (r backupResult) write(w io.Writer) {
	for i, p := range r.Problems {
		if i == shownProblems {
			fmt.Fprintf(w, "… and %s\n", count(uint64(len(r.Problems)-i), "more problem", "more problems"))
			break
		}
		fmt.Fprintf(w, "%s: %s: %s\n", p.Operation, printable(p.Path), printable(p.Error))
	}
	if r.ResumedPacks > 0 {
		fmt.Fprintf(w, "took up an interrupted run: %s, %s\n", count(uint64(r.ResumedPacks), "pack", "packs"), size(r.ResumedBytes))
	}
	kind := r.Type
	if r.Why != "" {
		kind += " (" + r.Why + ")"
	}
	state := "saved"
	if r.Partial {
		state = r.partialWord()
	}
	fmt.Fprintf(w, "%s %s: %s\n", r.name, state, kind)
	switch {
	case r.Database != nil:
		r.writeDatabase(w)
		return
	case r.Cluster != nil:
		r.writeCluster(w)
		return
	case r.Dumps != nil:
		r.writeDumps(w)
		return
	}
	changed := ""
	if r.Parent > 0 {
		changed = fmt.Sprintf(" (%s new, %s changed)", count(r.Counts.NewFiles, "file", "files"), count(r.Counts.ChangedFiles, "file", "files"))
	}
	fmt.Fprintf(w, "  %s, %s%s; read %s, added %s in %s\n",
		count(r.Counts.Files, "file", "files"), size(r.Counts.Bytes), changed, size(r.Counts.ReadBytes), size(r.Counts.AddedBytes),
		duration(time.Duration(r.Seconds*float64(time.Second))))
	if r.Counts.NotConsistent > 0 {
		fmt.Fprintf(w, "  %s captured while a database may have been writing: not consistent\n", count(r.Counts.NotConsistent, "file was", "files were"))
	}
}
