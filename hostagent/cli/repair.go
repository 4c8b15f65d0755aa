package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const repairLong = `Make the repository whole again, or the sources named.

Packs that failed a check are on record; until they are in order, "snapshots" shows what uses them as damaged, and the
next backup stores their content again. repair reads them once more: the record of one that is in order is removed. With
--from, a copy of the repository, whatever is missing or damaged here and proven there is put back, the identical bytes:
packs, lists, manifests, keys, marks and the repository's own documents. --check reads every pack, not only those that
are on record, missing or of the wrong size. What stays damaged is named with the snapshots and files that it hits, and
the exit code is 4.

--undelete is for buckets that keep versions: it removes delete markers and garbage that somebody has put over objects,
so that the newest version that authenticates is current again. To look first, read with --as-of TIME.

--accept-missing SOURCE@N puts on record that a snapshot is gone for good, where no copy has it: verify and status speak of
it no more. It brings nothing back.`

// repairFlags are the flags of repair.
type repairFlags struct {
	from, acceptMissing     string
	check, dryRun, undelete bool
}

func (a *app) repairCommand() *cobra.Command {
	var f repairFlags
	cmd := &cobra.Command{
		Use:   "repair [--from REPOSITORY] [SOURCE...]",
		Short: "Put back what is damaged or missing",
		Long:  repairLong,
		Example: `  holdfast repair --dry-run
  holdfast repair --from /mnt/usb/backup --check
  holdfast repair --undelete --dry-run
  holdfast repair --accept-missing etc@41`,
		GroupID: groupTend,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.asOf != "" {
				return usagef("repair: --as-of only reads")
			}
			if f.acceptMissing != "" {
				if f.from != "" || f.check || f.undelete || f.dryRun || len(args) > 0 {
					return usagef("repair: --accept-missing stands alone")
				}
				return a.acceptMissing(cmd.Context(), f.acceptMissing)
			}
			if f.undelete {
				if f.from != "" || f.check || len(args) > 0 {
					return usagef("repair: --undelete stands alone or with --dry-run")
				}
				return a.undelete(cmd.Context(), f)
			}
			return a.repair(cmd.Context(), f, args)
		},
	}
	cmd.Flags().StringVar(&f.from, "from", "", "a copy of this `REPOSITORY` to put back from")
	cmd.Flags().BoolVar(&f.check, "check", false, "read every pack again")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing, show what would be done")
	cmd.Flags().StringVar(&f.acceptMissing, "accept-missing", "", "put on record that the snapshot `SOURCE@N` is gone for good")
	cmd.Flags().BoolVar(&f.undelete, "undelete", false, "remove what was put over objects of a bucket with versions")
	return cmd
}

func (a *app) repair(ctx context.Context, f repairFlags, args []string) error {
	address, err := a.address()
	if err != nil {
		return err
	}
	if f.from != "" && absolute(f.from) == absolute(address) {
		return usagef("repair: --from names the repository itself")
	}
	store, err := a.store(ctx, address)
	if err != nil {
		return err
	}
	identity, err := a.identity()
	if err != nil {
		return err
	}
	o := repair.Options{Check: f.check, DryRun: f.dryRun, Workers: a.flags.connections, Now: a.now}
	if f.from != "" {
		if o.From, err = a.store(ctx, f.from); err != nil {
			return err
		}
	}
	if o.Sources, err = a.repairWhat(ctx, args); err != nil {
		return err
	}
	meter := a.meter()
	at := readMeter(meter)
	o.Progress = func(p repair.Progress) { at(p.Source, p.Bytes, p.TotalBytes) }
	var result *repair.Result
	err = meter.Run("repair", func() error {
		var err error
		result, err = repair.Run(ctx, store, identity, o)
		return err
	})
	doc := a.repairDocument(result)
	if perr := a.printRepair(doc, f); perr != nil || err != nil {
		return errors.Join(repairHint(err), perr)
	}
	if !result.OK() {
		return outcome(exitDamaged)
	}
	return nil
}

func repairHint(err error) error {
	switch {
	case errors.Is(err, repair.ErrNotCopy):
		return hinted{err, "name a copy that `holdfast copy` made of this repository"}
	case errors.Is(err, repair.ErrDiverged):
		return hinted{err, "one of them was rolled back, or written by somebody else; nothing of this source was changed"}
	case err == nil:
		return nil
	}
	return fmt.Errorf("repair: %w", err)
}

// repairWhat turns arguments into sources. A repository that can not be opened has no sources to choose from: then each
// must be named with its host.
func (a *app) repairWhat(ctx context.Context, args []string) ([]snapshot.Source, error) {
	if len(args) == 0 && a.flags.host == "" {
		return nil, nil
	}
	var named []snapshot.Source
	for _, arg := range args {
		if src, err := snapshot.ParseSource(arg); err == nil {
			named = append(named, src)
		}
	}
	if len(args) > 0 && len(named) == len(args) {
		return named, nil
	}
	repo, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	return a.sources(ctx, repo, args)
}

// repairDoc is the result for programs.
type repairDoc struct {
	DryRun bool         `json:"dry_run"`
	Items  []repairItem `json:"items"`
	Packs  int          `json:"packs"`
	Bytes  int64        `json:"bytes"`
	Marked int          `json:"marked"`

	Archived int `json:"archived,omitempty"`

	putBack, cleared, left int
}

type repairItem struct {
	Object       string   `json:"object"`
	Problem      string   `json:"problem"`
	Outcome      string   `json:"outcome"`
	Reason       string   `json:"reason,omitempty"`
	Size         int64    `json:"size"`
	Snapshots    []string `json:"snapshots"`
	Files        []string `json:"files"`
	FileCount    int      `json:"file_count"`
	FilesUnknown bool     `json:"files_unknown,omitempty"`
}

func (a *app) repairDocument(r *repair.Result) *repairDoc {
	doc := &repairDoc{
		DryRun: r.DryRun, Items: []repairItem{}, Packs: r.Packs, Bytes: r.Bytes, Marked: r.Marked, Archived: r.Archived,
		putBack: r.Count(repair.PutBack), cleared: r.Count(repair.Cleared), left: r.Count(repair.Left),
	}
	for _, i := range r.Items {
		item := repairItem{
			Object: i.Key, Problem: i.Problem, Outcome: string(i.Outcome), Reason: i.Reason, Size: i.Size,
			Snapshots: []string{}, Files: []string{}, FileCount: i.FileCount, FilesUnknown: i.FilesUnknown,
		}
		for _, id := range i.Snapshots {
			if a.flags.json {
				item.Snapshots = append(item.Snapshots, id.String())
			} else {
				item.Snapshots = append(item.Snapshots, a.name(id))
			}
		}
		for _, p := range i.Files {
			item.Files = append(item.Files, printable(p))
		}
		doc.Items = append(doc.Items, item)
	}
	return doc
}

func (a *app) printRepair(doc *repairDoc, f repairFlags) error {
	if a.flags.json {
		return a.print(doc, nil)
	}
	w := a.stdio.Out
	for _, i := range doc.Items {
		i.write(a, w)
	}
	return a.print(nil, func(w io.Writer) {
		verb := "repaired"
		if doc.DryRun {
			verb = "would repair"
		}
		fmt.Fprintf(w, "%s: %s put back, %s cleared, %s left damaged\n", verb, count(uint64(doc.putBack), "object", "objects"),
			count(uint64(doc.cleared), "record", "records"), count(uint64(doc.left), "object", "objects"))
		if doc.Marked > 0 {
			fmt.Fprintf(w, "%s put on record: the next backup stores their content again\n", count(uint64(doc.Marked), "pack was", "packs were"))
		}
		if doc.Archived > 0 {
			fmt.Fprintf(w, "%s not looked at: they must be thawed first\n", count(uint64(doc.Archived), "archived object was", "archived objects were"))
		}
		if doc.left > 0 && f.from == "" {
			fmt.Fprintln(w, "a copy of the repository may have them: --from REPOSITORY")
		}
	})
}

func (i repairItem) write(a *app, w io.Writer) {
	if i.Outcome != string(repair.Left) {
		if !a.flags.quiet {
			fmt.Fprintf(w, "%s: %s: %s\n", i.Outcome, i.Object, printable(i.Problem))
		}
		return
	}
	line := findingLine{Object: i.Object, Problem: printable(i.Problem), Detail: i.Reason, Snapshots: i.Snapshots, Files: i.Files, FileCount: i.FileCount, FilesUnknown: i.FilesUnknown}
	line.write(a, w)
}

func (a *app) undelete(ctx context.Context, f repairFlags) error {
	address, err := a.address()
	if err != nil {
		return err
	}
	store, err := a.store(ctx, address)
	if err != nil {
		return err
	}
	identity, err := a.identity()
	if err != nil {
		return err
	}
	result, err := repair.Undelete(ctx, store, identity, repair.UndeleteOptions{DryRun: f.dryRun, Workers: a.flags.connections})
	if errors.Is(err, objstore.ErrNoVersions) {
		return hinted{fmt.Errorf("undelete %s: %w", address, err), "`holdfast repair --from COPY` puts back from a copy"}
	}
	if perr := a.printUndeleted(result); perr != nil || err != nil {
		return errors.Join(err, perr)
	}
	if len(result.Left) > 0 {
		return outcome(exitDamaged)
	}
	return nil
}

func (a *app) printUndeleted(r *repair.Undeleted) error {
	if a.flags.json {
		return a.print(r, nil)
	}
	for _, i := range r.Left {
		findingLine{Object: i.Key, Problem: i.Problem, Detail: i.Reason}.write(a, a.stdio.Out)
	}
	return a.print(nil, func(w io.Writer) {
		for _, h := range r.Healed {
			var over []string
			if h.Markers > 0 {
				over = append(over, count(uint64(h.Markers), "delete marker", "delete markers"))
			}
			if h.Garbage > 0 {
				over = append(over, count(uint64(h.Garbage), "garbage version", "garbage versions"))
			}
			how := "from under"
			if h.Rewritten {
				how = "stored again over"
			}
			fmt.Fprintf(w, "undeleted: %s: %s %s\n", h.Key, how, strings.Join(over, ", "))
		}
		verb := "undeleted"
		if r.DryRun {
			verb = "would undelete"
		}
		fmt.Fprintf(w, "%s %s, %s left\n", verb, count(uint64(len(r.Healed)), "object", "objects"), count(uint64(len(r.Left)), "damaged one", "damaged ones"))
	})
}
