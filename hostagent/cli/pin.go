package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// pinDoc is what pin and unpin print.
type pinDoc struct {
	Snapshot string     `json:"snapshot"`
	Mark     string     `json:"mark"`
	Set      int        `json:"set"`     // marks written
	Removed  int        `json:"removed"` // marks ended
	Until    *time.Time `json:"until,omitempty"`
}

func (a *app) pinCommand() *cobra.Command {
	var why, until string
	var hold bool
	cmd := &cobra.Command{
		Use:   "pin SOURCE@N",
		Short: "Keep a snapshot whatever retention says",
		Long: `Pin a snapshot: prune keeps it until it is unpinned, or until the time that --until gives. A snapshot that was announced
for removal is kept as well, if it is pinned before it goes. --hold sets a legal hold instead, which only unpin --hold ends.`,
		Example: `  holdfast pin etc@42 --why "before the migration"
  holdfast pin web-1/etc@latest --until 2027-12-31T00:00:00Z
  holdfast pin etc@7 --hold --why "case 2026-118"`,
		GroupID: groupTend,
		Args:    arguments(1, 1, "one SOURCE@N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			end, err := a.pinEnd(cmd, until)
			if err != nil {
				return err
			}
			return a.pin(cmd.Context(), args[0], record.Mark{Mark: markKind(hold), Value: why, Until: end})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, shown by prune")
	cmd.Flags().StringVar(&until, "until", "", "the pin ends by itself at `TIME`, an RFC 3339 or local time that is to come, or after a time such as 30d")
	cmd.Flags().BoolVar(&hold, "hold", false, "a legal hold")
	return cmd
}

func markKind(hold bool) record.MarkKind {
	if hold {
		return record.Hold
	}
	return record.Pin
}

// pinEnd parses --until.
func (a *app) pinEnd(cmd *cobra.Command, until string) (*time.Time, error) {
	if !cmd.Flags().Changed("until") {
		return nil, nil
	}
	end := a.now()
	if d, err := policy.ParseDuration(until); err == nil {
		end = end.Add(d.Std()) // an age elsewhere; here it lies ahead
	} else if end, err = parseTime(until, end); err != nil {
		return nil, hinted{usagef("--until %q is no time", until), `want 2027-12-31T00:00:00Z, "2027-12-31 09:30" (local time) or how long, such as 30d`}
	}
	if !end.After(a.now()) {
		return nil, usagef("--until %q: that time is over", until)
	}
	end = end.UTC()
	return &end, nil
}

// markable opens the repository and the snapshot for a change of its marks.
func (a *app) markable(ctx context.Context, arg string) (*repository.Repository, *repository.Stored, error) {
	repo, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, err := a.find(ctx, repo, arg, "")
	if err != nil {
		return nil, nil, err
	}
	return repo, m, maySign(repo, m.Host, "marks")
}

func (a *app) pin(ctx context.Context, arg string, mark record.Mark) error {
	repo, m, err := a.markable(ctx, arg)
	if err != nil {
		return err
	}
	if err := putMark(ctx, repo, m, mark, a.now()); err != nil {
		return err
	}
	if err := a.stays(ctx, repo, m.ID()); err != nil {
		return err
	}
	doc := pinDoc{Snapshot: m.ID().String(), Mark: string(mark.Mark), Set: 1, Until: mark.Until}
	return a.print(doc, func(w io.Writer) {
		end := ""
		if mark.Until != nil {
			end = " until " + stamp(*mark.Until)
		}
		fmt.Fprintf(w, "%s: %s set%s\n", m.ID(), mark.Mark, end)
	})
}

// stays makes sure that a mark came in time: prune looks for marks once more when it has put the record of a removal, so that
// where there is none it has seen the mark. In a copy the record may be about the original.
func (a *app) stays(ctx context.Context, repo *repository.Repository, id snapshot.ID) error {
	_, err := repo.Store().Stat(ctx, layout.ExpiredKey(id))
	if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrDenied) {
		return nil // or who sets it may not ask
	}
	if err != nil {
		return err
	}
	if _, err := repo.Store().Stat(ctx, layout.ManifestKey(id)); errors.Is(err, objstore.ErrNotExist) {
		return fmt.Errorf("%s: %w: prune has removed it just now", id, repository.ErrNoSnapshot)
	}
	a.warn("%s: its removal is on record already: look in a minute with `holdfast snapshots` whether it is still there", id)
	return nil
}

// putMark writes a mark under a name of its own: marks never meet, so two at the same time are no conflict.
func putMark(ctx context.Context, repo *repository.Repository, m *repository.Stored, mark record.Mark, now time.Time) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("name a mark: %w", err)
	}
	mark.Sequence, mark.Manifest, mark.Time = m.Sequence, m.Hash.String(), now.UTC()
	return repo.PutDocument(ctx, layout.MarkKey(m.ID(), hex.EncodeToString(id[:])), mark)
}

func (a *app) unpinCommand() *cobra.Command {
	var hold bool
	cmd := &cobra.Command{
		Use:     "unpin SOURCE@N",
		Short:   "End the pins of a snapshot",
		Long:    `End all pins of a snapshot, or with --hold its legal holds. Retention decides on it again.`,
		Example: "  holdfast unpin etc@42",
		GroupID: groupTend,
		Args:    arguments(1, 1, "one SOURCE@N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.unpin(cmd.Context(), args[0], markKind(hold))
		},
	}
	cmd.Flags().BoolVar(&hold, "hold", false, "end legal holds")
	return cmd
}

func (a *app) unpin(ctx context.Context, arg string, kind record.MarkKind) error {
	repo, m, err := a.markable(ctx, arg)
	if err != nil {
		return err
	}
	inv, err := inventory.Take(ctx, repo.Store(), m.ID().Source)
	if err != nil {
		return err
	}
	all, err := marksOf(ctx, repo, m)
	if err != nil {
		return err
	}
	doc := pinDoc{Snapshot: m.ID().String(), Mark: string(kind)}
	for _, id := range activeOf(all, kind, inv.Newest) {
		end := record.Mark{Mark: kind, Ends: id}
		if err := putMark(ctx, repo, m, end, a.now()); err != nil {
			return err
		}
		doc.Removed++
	}
	return a.print(doc, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s ended\n", m.ID(), count(uint64(doc.Removed), string(kind), string(kind)+"s"))
	})
}

// activeOf returns the ids of the marks of a kind that are in force, ascending.
func activeOf(marks map[string]record.Mark, kind record.MarkKind, now time.Time) []string {
	var ids []string
	for id, mark := range record.Active(marks, now) {
		if mark.Mark == kind {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
