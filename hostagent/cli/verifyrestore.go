package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon"
	"github.com/btcdecoded/holdfast/hostagent/proof"
	sqliteproof "github.com/btcdecoded/holdfast/hostagent/proof/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// levelRestore is the level of verification that restores.
const levelRestore = "restore"

// scratchDir is where databases are restored to look at them, below the state directory.
const scratchDir = "scratch"

// ownScratch is the directory below one that the user names in which databases are restored to look at them.
const ownScratch = "holdfast-scratch"

// restoredSnapshot is one restore that was tried.
type restoredSnapshot struct {
	Snapshot string        `json:"snapshot"` // the base
	Pass     bool          `json:"pass"`
	Problems []string      `json:"problems"`
	Reached  time.Time     `json:"reached,omitzero"`
	Records  int           `json:"records"`
	Bytes    uint64        `json:"bytes"`
	WAL      uint64        `json:"wal_bytes,omitempty"` // of a cluster's log
	Seconds  float64       `json:"seconds"`
	Steps    []record.Step `json:"steps"`

	name    string
	details []string // what SQLite says, for the person at the terminal
	base    *repository.Stored
	began   time.Time
	ended   time.Time
}

// verifyRestores restores databases to scratch files and looks at them: all of this host, or those that arguments name.
func (a *app) verifyRestores(ctx context.Context, args []string, scratch string, receipts bool) error {
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	ids, failed, err := a.databases(ctx, repo, args)
	if err != nil {
		return err
	}
	sources := verify.Options{}
	for _, id := range ids {
		sources.Sources = append(sources.Sources, id.Source)
	}
	if receipts {
		if receipts, err = a.mayRecord(ctx, repo, sources); err != nil {
			return err
		}
	}
	doc := verifyDoc{
		Level: levelRestore, Pass: len(failed) == 0, Started: a.now().UTC(), Recorded: receipts,
		Snapshots: []verifiedSnapshot{}, Findings: []findingLine{}, Restores: []restoredSnapshot{},
	}
	place := filepath.Join(a.statePath(), scratchDir)
	if scratch != "" {
		// One of its own: what killed processes have left is removed from it by its name alone, and there may be anything beside it.
		place = filepath.Join(scratch, ownScratch)
		defer func() { _ = os.Remove(place) }() // if nothing is in it
	}
	for _, id := range ids {
		try := a.verifyRestore
		switch {
		case id.cluster:
			try = a.verifyCluster
		case id.dumps:
			try = a.verifyDumps
		}
		r, err := try(ctx, repo, id.ID, place)
		if err != nil {
			err = fmt.Errorf("verify %s by a restore: %w", id.Source, err)
			if failed = append(failed, err); ctx.Err() != nil || len(ids) == 1 {
				return together(failed...)
			}
			// The others get their verdict.
			doc.Pass = false
			continue
		}
		if receipts {
			if err := r.record(ctx, repo); err != nil {
				return err
			}
		}
		doc.Pass = doc.Pass && r.Pass
		doc.Restores = append(doc.Restores, *r)
		doc.Snapshots = append(doc.Snapshots, verifiedSnapshot{r.Snapshot, r.Pass, r.Problems})
	}
	doc.Finished = a.now().UTC()
	if err := a.printRestores(doc); err != nil {
		return err
	}
	if len(failed) > 0 {
		return together(failed...)
	}
	if !doc.Pass {
		return outcome(exitDamaged)
	}
	return nil
}

// databases are the snapshots that arguments name, without a number where the newest state is meant; without arguments all
// databases of this host, but for those of which nothing can be said: failed has why.
func (a *app) databases(ctx context.Context, repo *repository.Repository, args []string) (out []databaseID, failed []error, err error) {
	all := len(args) == 0
	if all {
		own, err := a.host()
		if err != nil {
			return nil, nil, err
		}
		sources, err := repo.Sources(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, src := range sources {
			if src.Host == own {
				args = append(args, src.String())
			}
		}
	}
	for _, arg := range args {
		sel, err := selector(arg)
		if err != nil {
			return nil, nil, err
		}
		m, err := a.find(ctx, repo, arg, "")
		if all && err != nil && ctx.Err() == nil {
			if !errors.Is(err, repository.ErrNoSnapshot) {
				failed = append(failed, fmt.Errorf("verify %s by a restore: %w", arg, err))
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		id := m.ID()
		cluster := m.Kind == policy.KindPostgres && m.Postgres != nil
		dumps := isDump(m.Manifest)
		if m.Kind != policy.KindSQLite && !cluster && !dumps {
			if all {
				continue
			}
			return nil, nil, hinted{
				usagef("verify %s: level restore is for databases, it is of kind %s", id.Source, m.Kind),
				fmt.Sprintf("`holdfast restore %s --to DIR` restores it to an empty directory, and measures the time", id.Source.Name),
			}
		}
		if sel.Sequence == 0 && !sel.Latest {
			id.Sequence = 0 // with its log
		}
		out = append(out, databaseID{id, cluster, dumps})
	}
	return out, failed, nil
}

// databaseID names a snapshot of a database.
type databaseID struct {
	snapshot.ID
	cluster bool // of PostgreSQL, physical
	dumps   bool // of PostgreSQL, logical
}

// verifyRestore tries one restore. Its error says that there is no verdict.
func (a *app) verifyRestore(ctx context.Context, repo *repository.Repository, id snapshot.ID, scratch string) (*restoredSnapshot, error) {
	source, err := a.policySource(id.Source)
	if err != nil {
		return nil, err
	}
	began := a.now()
	all, err := a.readMoments(ctx, repo, id.Source)
	if err != nil {
		return nil, err
	}
	m, err := all.choose(ctx, recovery.Selector{Sequence: id.Sequence})
	if m != nil && errors.As(err, new(*lostError)) {
		return a.fallsShort(m, began, err), nil
	}
	if err != nil {
		return nil, err
	}
	var report *proof.Report
	meter := a.meter()
	options := sqlite.Options{Progress: meter, Now: a.now, Began: meter.Current, Prove: func(ctx context.Context, path string) (err error) {
		checks := policyChecks(source)
		checks.Began = meter.Current
		report, err = sqliteproof.Prove(ctx, path, checks)
		return err
	}}
	var got *sqlite.Result
	err = meter.Run("verify "+id.Source.Name, func() (err error) {
		got, err = sqlite.Scratch(ctx, scratch, m.open, options)
		return err
	})
	r := a.tried(m.base, began)
	switch {
	case err == nil:
		r.took(got)
	case ctx.Err() != nil || !rotten(err):
		return nil, err
	default:
		r.Problems = append(r.Problems, cause(err))
	}
	r.found(report)
	if report != nil {
		for _, n := range report.Notes {
			a.warn("%s", n)
		}
	}
	r.Pass = len(r.Problems) == 0
	return r, nil
}

// fallsShort is the verdict on a source whose log is not whole.
func (a *app) fallsShort(m *moment, began time.Time, err error) *restoredSnapshot {
	r := a.tried(m.base, began)
	r.Problems = append(r.Problems, err.Error())
	return r
}

// tried is a restore of a snapshot, with what is on top of it, that has just ended; nothing is wrong with it so far.
func (a *app) tried(base *repository.Stored, began time.Time) *restoredSnapshot {
	r := &restoredSnapshot{
		Snapshot: base.ID().String(), Problems: []string{}, Steps: []record.Step{}, name: a.name(base.ID()), base: base, began: began.UTC(), ended: a.now().UTC(),
	}
	r.Seconds = r.ended.Sub(r.began).Seconds()
	return r
}

// rotten reports whether an error is a verdict on what the repository holds.
func rotten(err error) bool {
	var damage *repository.DamageError
	var hole *log.HoleError
	return errors.As(err, &damage) || errors.As(err, &hole) || errors.Is(err, snapshot.ErrFormat) || errors.Is(err, sqlite.ErrLog) ||
		errors.Is(err, errNoDatabase) || errors.Is(err, errMissing)
}

// cause is the verdict without the place on this host.
func cause(err error) string {
	var f *steps.Failure
	if errors.As(err, &f) {
		return f.Cause()
	}
	return err.Error()
}

// steps notes the steps of a restore, but for that of which the parts follow.
func (r *restoredSnapshot) steps(list []steps.Step, but string) {
	for _, s := range list {
		if s.Name != but {
			r.Steps = append(r.Steps, record.Step{Name: s.Name, Result: record.Pass, Seconds: s.Took.Seconds()})
		}
	}
}

func (r *restoredSnapshot) took(got *sqlite.Result) {
	r.Reached, r.Records, r.Bytes = got.Reached.UTC(), got.Records, got.Bytes
	r.steps(got.Steps, sqlite.StepProve)
}

func (r *restoredSnapshot) found(report *proof.Report) {
	if report == nil {
		return
	}
	for _, s := range report.Steps {
		step := record.Step{Name: s.Name, Result: record.Pass, Seconds: s.Took.Seconds()}
		if s.Problem != "" {
			step.Result = record.Fail
		}
		r.Steps = append(r.Steps, step)
		for _, d := range s.Details {
			r.details = append(r.details, s.Name+": "+d)
		}
	}
	r.Problems = append(r.Problems, report.Problems()...)
}

// record writes the receipt.
func (r *restoredSnapshot) record(ctx context.Context, repo *repository.Repository) error {
	receipt := record.Receipt{
		Sequence: r.base.Sequence, Manifest: r.base.Hash.String(), Level: levelRestore, Result: record.Pass, Started: r.began,
		Finished: r.ended, Bytes: int64(min(r.Bytes, 1<<62)), Problems: r.Problems, Records: r.Records, Steps: r.Steps,
	}
	if !r.Reached.IsZero() {
		receipt.Reached = &r.Reached
	}
	if !r.Pass {
		receipt.Result = record.Fail
	}
	id := r.base.ID()
	if err := repo.PutDocument(ctx, layout.ReceiptKey(id, layout.ReceiptHost, r.ended, levelRestore), receipt); err != nil {
		return fmt.Errorf("write the receipt of %s: %w", id, err)
	}
	return nil
}

func (a *app) printRestores(doc verifyDoc) error {
	return a.printAlways(doc, !doc.Pass, func(w io.Writer) {
		for i := range doc.Restores {
			doc.Restores[i].write(a, w)
		}
		if len(doc.Restores) == 0 {
			fmt.Fprintln(w, "no databases")
		}
	})
}

// printAlways prints also with --quiet where something is wrong.
func (a *app) printAlways(v any, wrong bool, text func(w io.Writer)) error {
	if a.flags.quiet && !a.flags.json && wrong {
		text(a.stdio.Out)
		return nil
	}
	return a.print(v, text)
}

func (r *restoredSnapshot) write(a *app, w io.Writer) {
	verdict := a.paint(w, green, "PASS")
	if !r.Pass {
		verdict = a.paint(w, red, "FAIL")
	}
	fmt.Fprintf(w, "%s %s", verdict, r.name)
	if !r.Reached.IsZero() {
		if r.Records > 0 {
			fmt.Fprintf(w, " and %s of the log", count(uint64(r.Records), "record", "records"))
		}
		if r.WAL > 0 {
			fmt.Fprintf(w, " and %s of the log", size(r.WAL))
		}
		fmt.Fprintf(w, ": the state of %s, %s", exact(r.Reached), size(r.Bytes))
	}
	fmt.Fprintf(w, ", restored and checked in %s\n", duration(time.Duration(r.Seconds*float64(time.Second))))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s\n", printable(p))
	}
	for _, d := range r.details {
		fmt.Fprintf(w, "  %s\n", printable(d))
	}
	steps := make([]string, 0, len(r.Steps))
	for _, s := range r.Steps {
		steps = append(steps, fmt.Sprintf("%s %s", s.Name, duration(time.Duration(s.Seconds*float64(time.Second)))))
	}
	if len(steps) > 0 {
		fmt.Fprintf(w, "  %s\n", strings.Join(steps, ", "))
	}
}

// verifyDatabase runs `holdfast verify SOURCE --level restore` for the agent.
func (w *agentWork) verifyDatabase(ctx context.Context, a *app, source string) (daemon.Outcome, error) {
	text, err := w.command(ctx, a, a.verifyCommand(), "--level", levelRestore, "--", w.host+"/"+source)
	var doc verifyDoc
	if jerr := json.Unmarshal(text, &doc); len(text) == 0 || jerr != nil || len(doc.Restores) != 1 {
		return daemon.Outcome{}, together(err, errors.New("the restore said nothing about itself"))
	}
	r := doc.Restores[0]
	out := daemon.Outcome{Result: events.OK, Counts: &events.Counts{Files: 1, Bytes: r.Bytes, ReadBytes: r.Bytes}}
	switch {
	case !r.Pass:
		return out, fmt.Errorf("restore %s to try it: %s", r.Snapshot, strings.Join(r.Problems, "; "))
	case err == nil && !doc.Recorded:
		err = errors.New("no receipt could be written: the identity of this host is no signer for it, or may not write to the repository")
	}
	return out, err
}
