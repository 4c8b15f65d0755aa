package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const snapshotsLong = `List the snapshots of all sources, or of those named, oldest first.

SIZE is the content of all files, ADDED what the snapshot stored that was not there before. VERIFIED is the deepest level
that passed, and its day; or the last check that failed, until one as deep or deeper passes. STATE is ok, or what is wrong:

  partial     files were left out; the backup named them
  unfinished  its backup was still at work: it lacks things, or has them as they were before; the next backup goes on from it
  failed      a verification found damage, and none as deep has passed since
  damaged     it uses packs that failed a check; repair puts them back from a copy
  condemned   prune has announced the removal
  clock off   the host's clock was off by more than 5 minutes when the snapshot was made
  unreadable  the manifest is damaged or not signed by a trusted key
  rollback    the repository shows less than this host has seen before

--points shows to which times each source can be restored, from the oldest to the newest, and the gaps between with their
causes: spans of which every moment can be had, as long as a log is kept, and the moments of single snapshots. Of a PostgreSQL
cluster that has gone over to another timeline, the times along each timeline follow: restore's --timeline chooses one.`

func (a *app) snapshotsCommand() *cobra.Command {
	var tags []string
	var last int
	var points bool
	cmd := &cobra.Command{
		Use:     "snapshots [SOURCE...]",
		Short:   "List snapshots",
		Long:    snapshotsLong,
		Example: "  holdfast snapshots\n  holdfast snapshots etc --last 5\n  holdfast snapshots web-1/etc --json\n  holdfast snapshots governance-sqlite --points",
		GroupID: groupUse,
		RunE: func(cmd *cobra.Command, args []string) error {
			if points && (last != 0 || len(tags) > 0) {
				return usagef("snapshots: --points goes with neither --last nor --tag")
			}
			if last < 0 {
				return usagef("snapshots: --last %d: want 0 or more", last)
			}
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			sources, err := a.sources(cmd.Context(), repo, args)
			if err != nil {
				return err
			}
			if len(sources) == 0 && a.flags.host != "" {
				if err := a.noneOfHost(cmd.Context(), repo); err != nil {
					return err
				}
			}
			if points {
				return a.printPoints(cmd.Context(), repo, sources)
			}
			lines := []snapshotLine{}
			for _, src := range sources {
				of, err := a.snapshotLines(cmd.Context(), repo, src)
				if err != nil {
					return err
				}
				of = slices.DeleteFunc(of, func(l snapshotLine) bool { return !hasTags(l.Tags, tags) })
				if last > 0 && len(of) > last {
					of = of[len(of)-last:]
				}
				lines = append(lines, of...)
			}
			return a.printSnapshots(lines)
		},
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only those with the `TAG` (repeatable: with all of them)")
	cmd.Flags().BoolVar(&points, "points", false, "the times to which sources can be restored, and the gaps")
	cmd.Flags().IntVar(&last, "last", 0, "only the last `N` of each source")
	return cmd
}

// noneOfHost says whose snapshots there are, where the host that was named has none.
func (a *app) noneOfHost(ctx context.Context, repo *repository.Repository) error {
	sources, err := repo.Sources(ctx)
	if err != nil || len(sources) == 0 {
		return err
	}
	names := make([]string, 0, len(sources))
	for _, src := range sources {
		names = append(names, src.String())
	}
	a.note("none of host %s; there are %s", a.flags.host, strings.Join(names, ", "))
	return nil
}

func hasTags(have, want []string) bool {
	for _, t := range want {
		if !slices.Contains(have, t) {
			return false
		}
	}
	return true
}

// snapshotLine is one snapshot in a listing.
type snapshotLine struct {
	Snapshot string                `json:"snapshot"`
	Type     string                `json:"type"`
	Parent   uint64                `json:"parent"`
	Chain    string                `json:"chain"`
	Started  time.Time             `json:"started"`
	Finished time.Time             `json:"finished"`
	Arrived  time.Time             `json:"arrived"`
	Counts   snapshot.Counts       `json:"counts"`
	Tags     []string              `json:"tags"`
	Verified *observe.Verification `json:"verified"`
	States   []string              `json:"states"`
	Error    string                `json:"error,omitempty"`

	name string
}

func (a *app) snapshotLines(ctx context.Context, repo *repository.Repository, src snapshot.Source) ([]snapshotLine, error) {
	h, err := observe.ReadReceipts(ctx, repo, src)
	if err != nil {
		return nil, err
	}
	if err := h.ReadMarks(ctx, repo); err != nil {
		return nil, err
	}
	var rollback *repository.RollbackError
	if !a.elsewhere(repo) {
		if rollback, err = a.rollback(ctx, repo, src); err != nil {
			return nil, err
		}
	}
	var lines []snapshotLine
	for _, m := range h.Manifests {
		lines = append(lines, a.snapshotLine(h, m))
	}
	if h.Bad != nil {
		for n, err := range h.Bad.Errors {
			id := snapshot.ID{Source: src, Sequence: n}
			lines = append(lines, snapshotLine{Snapshot: id.String(), States: []string{"unreadable"}, Tags: []string{}, Error: err.Error(), name: a.name(id)})
		}
		slices.SortFunc(lines, func(x, y snapshotLine) int { return naturalID(x.Snapshot, y.Snapshot) })
	}
	if rollback != nil {
		a.warn("%v", rollback)
		if n := len(lines); n > 0 {
			lines[n-1].States = append(lines[n-1].States, "rollback")
		}
	}
	return lines, nil
}

// naturalID compares two ids of the same source by their numbers.
func naturalID(x, y string) int {
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return strings.Compare(x, y)
}

func (a *app) snapshotLine(h *observe.History, m *repository.Stored) snapshotLine {
	l := snapshotLine{
		Snapshot: m.ID().String(), Type: string(m.Type), Parent: m.Parent, Chain: m.Chain, Started: m.Started,
		Finished: m.Finished, Arrived: m.Arrived.UTC(), Counts: m.Counts, States: []string{}, name: a.name(m.ID()),
	}
	var set []tagMark
	for _, mark := range h.Marks[m.Sequence] {
		if mark.Mark == record.Tag {
			set = append(set, tagMark{tag: mark.Value})
		}
	}
	l.Tags = tagsOf(m, set)
	switch {
	case m.Unfinished:
		l.States = append(l.States, "unfinished", "partial")
	case m.Partial:
		l.States = append(l.States, "partial")
	}
	l.Verified = h.Verified[m.Sequence]
	if _, failed := h.Verdict(m); failed {
		l.States = append(l.States, "failed")
	}
	if len(h.Damaged[m.Sequence]) > 0 {
		l.States = append(l.States, "damaged")
	}
	if h.Condemned[m.Sequence] {
		l.States = append(l.States, "condemned")
	}
	if repository.ClockOff(m) {
		l.States = append(l.States, "clock off")
	}
	return l
}

func (a *app) printSnapshots(lines []snapshotLine) error {
	return a.print(lines, func(w io.Writer) {
		if len(lines) == 0 {
			fmt.Fprintln(w, "no snapshots")
			return
		}
		columns := []string{"SNAPSHOT", "TYPE", "PARENT", "STARTED", ">FILES", ">SIZE", ">ADDED", ">DURATION", "VERIFIED", "STATE"}
		tagged := slices.ContainsFunc(lines, func(l snapshotLine) bool { return len(l.Tags) > 0 })
		if tagged {
			columns = append(columns, "TAGS")
		}
		t := newTable(columns...)
		for _, l := range lines {
			if l.Error != "" {
				t.row(append([]string{l.name, "", "", "", "", "", "", "", "", "unreadable"}, make([]string, len(columns)-10)...)...)
				continue
			}
			parent := ""
			if l.Parent > 0 {
				parent = fmt.Sprintf("@%d", l.Parent)
			}
			state := strings.Join(l.States, ", ")
			if state == "" {
				state = "ok"
			}
			row := []string{
				l.name, l.Type, parent, stamp(l.Started), fmt.Sprint(l.Counts.Files), size(l.Counts.Bytes),
				size(l.Counts.AddedBytes), duration(l.Finished.Sub(l.Started)), l.Verified.String(), state,
			}
			if tagged {
				row = append(row, strings.Join(l.Tags, ", "))
			}
			t.row(row...)
		}
		t.write(w)
		for _, l := range lines {
			if l.Error != "" {
				fmt.Fprintf(w, "%s: %s\n", l.name, l.Error)
			}
		}
	})
}
