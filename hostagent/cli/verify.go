package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const verifyLong = `Check what the repository holds: all snapshots of all sources, or those named. Levels, each of the first three with those
before it:

  structure  every object is there with its size; all documents are signed and linked (one listing; proves no bytes)
  bytes      every object is read again and its bytes match its name
  content    everything is opened: each chunk's id is computed again, trees are complete, files whole; needs the identity
  restore    the newest state of a database, or a snapshot of it, is restored to a scratch file or on a server that is started
             for it, must pass what the policy asks for, and is removed; only sqlite and postgres

--sample 1/30 reads a thirtieth of the packs; run every day, all packs are read once in 30 days.

Whatever is damaged, missing, swapped, replayed or rolled back is named, with the snapshots and the files that it hits,
and the exit code is 4. The result is kept in the repository as a receipt; packs that are damaged are stored again by the
next backup.`

func (a *app) verifyCommand() *cobra.Command {
	var level, sample, scratch string
	var all, noReceipts bool
	cmd := &cobra.Command{
		Use:     "verify [SOURCE[@N]...]",
		Short:   "Check that snapshots are whole",
		Long:    verifyLong,
		Example: "  holdfast verify\n  holdfast verify --level content --all\n  holdfast verify governance-sqlite --level restore\n  holdfast verify etc@42 --level content\n  holdfast verify --level bytes --sample 1/30",
		GroupID: groupTend,
		RunE: func(cmd *cobra.Command, args []string) error {
			options := verify.Options{Record: !noReceipts && a.flags.asOf == "", Now: a.now}
			var err error
			if level == levelRestore {
				if sample != "" {
					return usagef("verify: --sample chooses what is read; level restore reads what it needs")
				}
				return a.verifyRestores(cmd.Context(), args, scratch, options.Record)
			}
			if scratch != "" {
				return usagef("verify: --scratch is for level restore")
			}
			if options.Level, err = verify.ParseLevel(level); err != nil {
				return usagef("%w, or for databases restore", err)
			}
			// The day is the cursor: whoever runs this daily rotates through all packs.
			if options.Sample, err = verify.ParseSample(sample, uint64(a.now().Unix()/86400)); err != nil {
				return usageError{err}
			}
			if sample != "" && options.Level == verify.Structure {
				return usagef("verify: --sample chooses what is read; level structure reads no packs")
			}
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.verifyWhat(cmd.Context(), repo, args, &options); err != nil {
				return err
			}
			if options.Record {
				if options.Record, err = a.mayRecord(cmd.Context(), repo, options); err != nil {
					return err
				}
			}
			done := a.resume(repo, &options)
			result, err := a.verify(cmd.Context(), repo, options)
			done(err == nil)
			if err != nil {
				return err
			}
			if result.Unrecorded != nil {
				a.warn("receipts could not be written: %v", result.Unrecorded)
			}
			if result.Archived > 0 {
				a.note("not read: %s archived and must be thawed first; snapshots that use them get no receipt", count(uint64(result.Archived), "pack is", "packs are"))
			}
			if err := a.printVerify(result, all || len(options.Snapshots) > 0); err != nil {
				return err
			}
			if !good(result) {
				return outcome(exitDamaged)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&level, "level", string(verify.Structure), "how deep, a `LEVEL`: structure, bytes, content or restore")
	cmd.Flags().StringVar(&sample, "sample", "", "read only `K/N` of the packs, others each day")
	cmd.Flags().BoolVar(&all, "all", false, "print PASS or FAIL for each snapshot")
	cmd.Flags().StringVar(&scratch, "scratch", "", "with level restore, the `DIR` to restore below (default: in the state directory)")
	cmd.Flags().BoolVar(&noReceipts, "no-receipts", false, "write nothing to the repository")
	return cmd
}

// verifyWhat fills in what the arguments select and what this host has seen of it.
func (a *app) verifyWhat(ctx context.Context, repo *repository.Repository, args []string, o *verify.Options) error {
	for _, arg := range args {
		sel, err := selector(arg)
		if err != nil {
			return err
		}
		if sel.Sequence == 0 && !sel.Latest {
			src, err := a.source(ctx, repo, sel)
			if err != nil {
				return err
			}
			o.Sources = append(o.Sources, src)
			continue
		}
		m, err := a.find(ctx, repo, arg, "")
		if err != nil {
			return err
		}
		o.Snapshots = append(o.Snapshots, m.ID())
	}
	if len(o.Sources) > 0 && len(o.Snapshots) > 0 {
		return usagef("verify: name sources or snapshots, not both")
	}
	if len(args) == 0 && a.flags.host != "" {
		sources, err := a.sources(ctx, repo, nil)
		if err != nil {
			return err
		}
		if len(sources) == 0 {
			return fmt.Errorf("host %s: %w", a.flags.host, repository.ErrNoSnapshot)
		}
		o.Sources = sources
	}
	if !a.elsewhere(repo) {
		o.Expect = a.seen(repo.ID(), o)
	}
	if address, err := a.address(); err == nil && a.flags.asOf == "" {
		o.Access = state.Open(a.statePath(), repo.ID()).Access(absolute(address))
	}
	return nil
}

// mayRecord reports whether receipts of what is checked would count.
func (a *app) mayRecord(ctx context.Context, repo *repository.Repository, o verify.Options) (bool, error) {
	sources := o.Sources
	for _, id := range o.Snapshots {
		sources = append(sources, id.Source)
	}
	if len(sources) == 0 {
		var err error
		if sources, err = repo.Sources(ctx); err != nil {
			return false, err
		}
	}
	for _, src := range sources {
		if maySign(repo, src.Host, "receipts/host") != nil {
			a.note("no receipts are written: they would not count for %s", src)
			return false, nil //nolint:nilerr // that receipts would not count is no error of verify
		}
	}
	return true, nil
}

// seen is what this host has seen of the sources that are checked, also of those that are gone.
func (a *app) seen(repo snapshot.RepositoryID, o *verify.Options) map[snapshot.Source]verify.Seen {
	out := map[snapshot.Source]verify.Seen{}
	dirs, err := filepath.Glob(filepath.Join(a.statePath(), repo.String(), "*", "*"))
	if err != nil {
		return out
	}
	for _, dir := range dirs {
		src := snapshot.Source{Host: filepath.Base(filepath.Dir(dir)), Name: filepath.Base(dir)}
		if n, hash, ok := repository.LastSeen(a.statePath(), repo, src); ok && src.Check() == nil && selected(o, src) {
			out[src] = verify.Seen{Sequence: n, Manifest: hash}
		}
	}
	return out
}

func selected(o *verify.Options, src snapshot.Source) bool {
	if len(o.Sources) == 0 && len(o.Snapshots) == 0 {
		return true
	}
	for _, s := range o.Sources {
		if s == src {
			return true
		}
	}
	for _, id := range o.Snapshots {
		if id.Source == src {
			return true
		}
	}
	return false
}

func (a *app) verify(ctx context.Context, repo *repository.Repository, o verify.Options) (result *verify.Result, err error) {
	meter := a.meter()
	at := readMeter(meter)
	o.Progress = func(p verify.Progress) { at(p.Source, p.Bytes, p.TotalBytes) }
	err = meter.Run("verify "+string(o.Level), func() error {
		var err error
		result, err = verify.Run(ctx, repo, o)
		return err
	})
	return result, err
}

// known reports whether a finding is a pack that is on record as damaged. Level structure reads no pack: for a listing
// it is a warning. Until somebody has read it again, what needs it does not pass.
func known(f *verify.Finding) bool { return f.Problem == verify.KnownDamaged && len(f.Snapshots) > 0 }

// good reports whether nothing is damaged, as far as is known.
func good(r *verify.Result) bool {
	for i := range r.Findings {
		if known(&r.Findings[i]) {
			return false
		}
	}
	return r.OK()
}

// verifyDoc is the result for programs.
type verifyDoc struct {
	Level     verify.Level       `json:"level"`
	Sample    string             `json:"sample,omitempty"`
	Pass      bool               `json:"pass"`
	Started   time.Time          `json:"started"`
	Finished  time.Time          `json:"finished"`
	Snapshots []verifiedSnapshot `json:"snapshots"`
	Findings  []findingLine      `json:"findings"`
	Packs     int                `json:"packs"`
	Bytes     int64              `json:"bytes"`
	Chunks    uint64             `json:"chunks"`
	Documents int                `json:"documents"`
	Recorded  bool               `json:"recorded"`
	Unnamed   int                `json:"unnamed_packs"`
	Restores  []restoredSnapshot `json:"restores,omitempty"` // at level restore
}

type verifiedSnapshot struct {
	Snapshot string   `json:"snapshot"`
	Pass     bool     `json:"pass"`
	Problems []string `json:"problems"`
}

type findingLine struct {
	Object       string   `json:"object"`
	Problem      string   `json:"problem"`
	Detail       string   `json:"detail,omitempty"`
	Warning      bool     `json:"warning"`
	Snapshots    []string `json:"snapshots"`
	Files        []string `json:"files"`
	FileCount    int      `json:"file_count"`
	Spans        []string `json:"unreadable_parts,omitempty"`
	FilesUnknown bool     `json:"files_unknown,omitempty"`
}

func verifyDocument(r *verify.Result, name func(snapshot.ID) string) verifyDoc {
	doc := verifyDoc{
		Level: r.Level, Sample: r.Sample, Pass: good(r), Started: r.Started, Finished: r.Finished, Snapshots: []verifiedSnapshot{},
		Findings: []findingLine{}, Packs: r.Packs, Bytes: r.Bytes, Chunks: r.Chunks, Documents: r.Documents, Recorded: r.Recorded,
	}
	onRecord := map[snapshot.ID][]string{}
	for i := range r.Findings {
		if f := &r.Findings[i]; known(f) {
			for _, id := range f.Snapshots {
				onRecord[id] = append(onRecord[id], f.Key+": "+string(f.Problem))
			}
		}
	}
	for _, s := range r.Snapshots {
		problems := append(append([]string{}, s.Problems...), onRecord[s.ID]...)
		doc.Snapshots = append(doc.Snapshots, verifiedSnapshot{name(s.ID), s.Pass && len(onRecord[s.ID]) == 0, problems})
	}
	for _, s := range r.Sources {
		doc.Unnamed += s.UnnamedPacks
	}
	for _, f := range r.Findings {
		line := findingLine{
			Object: f.Key, Problem: string(f.Problem), Detail: f.Detail, Warning: f.Warning && !known(&f), Snapshots: []string{},
			Files: []string{}, FileCount: f.FileCount, FilesUnknown: f.FilesUnknown,
		}
		for _, id := range f.Snapshots {
			line.Snapshots = append(line.Snapshots, name(id))
		}
		for _, p := range f.Files {
			line.Files = append(line.Files, printable(p))
		}
		for _, s := range f.Spans {
			span := name(s.Snapshot)
			if s.From != "" {
				span += " from " + printable(s.From)
			}
			if s.Before != "" {
				span += " to before " + printable(s.Before)
			}
			line.Spans = append(line.Spans, span)
		}
		doc.Findings = append(doc.Findings, line)
	}
	return doc
}

func (a *app) printVerify(r *verify.Result, each bool) error {
	if a.flags.json {
		return a.print(verifyDocument(r, snapshot.ID.String), nil)
	}
	doc := verifyDocument(r, a.name)
	w := a.stdio.Out
	for _, f := range doc.Findings {
		f.write(a, w)
	}
	passed := 0
	for _, s := range doc.Snapshots {
		switch {
		case !s.Pass:
			fmt.Fprintf(w, "%s %s\n", a.paint(w, red, "FAIL"), s.Snapshot)
		case each && !a.flags.quiet:
			fmt.Fprintf(w, "%s %s\n", a.paint(w, green, "PASS"), s.Snapshot)
		}
		if s.Pass {
			passed++
		}
	}
	return a.print(nil, func(w io.Writer) {
		fmt.Fprintf(w, "%d of %s good, by level %s", passed, count(uint64(len(doc.Snapshots)), "snapshot", "snapshots"), doc.Level)
		if doc.Sample != "" {
			fmt.Fprintf(w, ", %s of the packs", doc.Sample)
		}
		fmt.Fprintf(w, ": %s, %s", count(uint64(doc.Documents), "document", "documents"), count(uint64(doc.Packs), "pack", "packs"))
		if doc.Level != verify.Structure {
			fmt.Fprintf(w, ", %s read", size(uint64(doc.Bytes)))
		}
		fmt.Fprintf(w, " in %s\n", duration(doc.Finished.Sub(doc.Started)))
		if doc.Unnamed > 0 {
			fmt.Fprintf(w, "%s of interrupted runs not checked; the next backup uses them or prune removes them\n", count(uint64(doc.Unnamed), "pack", "packs"))
		}
	})
}

// namedFiles is how many files of a finding are printed; --json has more.
const namedFiles = 10

func (f findingLine) write(a *app, w io.Writer) {
	if f.Warning && a.flags.quiet {
		return
	}
	word := a.paint(w, red, "damaged:")
	if f.Warning {
		word = a.paint(w, yellow, "note:")
	}
	fmt.Fprintf(w, "%s %s: %s", word, f.Object, f.Problem)
	if f.Detail != "" {
		fmt.Fprintf(w, " (%s)", printable(f.Detail))
	}
	fmt.Fprintln(w)
	if len(f.Snapshots) > 0 {
		fmt.Fprintf(w, "  hits %s\n", strings.Join(f.Snapshots, ", "))
	}
	if f.FileCount > 0 {
		fmt.Fprintf(w, "  %s:\n", count(uint64(f.FileCount), "file", "files"))
		for _, p := range f.Files[:min(len(f.Files), namedFiles)] {
			fmt.Fprintf(w, "    %s\n", p)
		}
		if more := f.FileCount - min(len(f.Files), namedFiles); more > 0 {
			fmt.Fprintf(w, "    … and %d more\n", more)
		}
	}
	for _, s := range f.Spans {
		fmt.Fprintf(w, "  the tree can not be read: %s\n", s)
	}
	if f.FilesUnknown {
		fmt.Fprintln(w, "  which files can not be told without the key")
	}
}
