package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// tagDoc is what tag prints.
type tagDoc struct {
	Snapshot string   `json:"snapshot"`
	Tags     []string `json:"tags"` // now
	Added    []string `json:"added"`
	Removed  []string `json:"removed"`
}

func (a *app) tagCommand() *cobra.Command {
	var add, remove []string
	cmd := &cobra.Command{
		Use:   "tag SOURCE@N",
		Short: "Show, add and remove tags of a snapshot",
		Long: `Tags are words for a snapshot, such as release or env=test. snapshots shows them and finds by them (--tag), and
retention keeps what has one of its keep_tags. Without flags the tags are shown.

--remove KEY also removes all tags KEY=VALUE; removing comes before adding. What the backup itself gave a snapshot is part
of it and stays. Tags do not touch what is stored.`,
		Example: `  holdfast tag etc@42 --add release=1.4
  holdfast tag etc@42 --remove release --add release=1.5
  holdfast snapshots etc --tag release=1.5`,
		GroupID: groupTend,
		Args:    arguments(1, 1, "one SOURCE@N"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTags(add); err != nil {
				return err
			}
			return a.tag(cmd.Context(), args[0], add, remove)
		},
	}
	cmd.Flags().StringArrayVar(&add, "add", nil, "a `TAG` to add (repeatable)")
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "a `TAG`, or the key of some, to remove (repeatable)")
	return cmd
}

func (a *app) tag(ctx context.Context, arg string, add, remove []string) error {
	repo, m, set, err := a.tagged(ctx, arg, len(add)+len(remove) > 0)
	if err != nil {
		return err
	}
	doc := tagDoc{Snapshot: m.ID().String(), Added: []string{}, Removed: []string{}}
	for _, want := range remove {
		found := slices.ContainsFunc(set, func(t tagMark) bool { return fitsTag(want, t.tag) })
		if !found && slices.ContainsFunc(m.Tags, func(t string) bool { return fitsTag(want, t) }) {
			return usagef("tag %s: the backup gave the snapshot %q, which stays", a.name(m.ID()), want)
		}
	}
	rest := set[:0:0]
	for _, t := range set {
		if !slices.ContainsFunc(remove, func(want string) bool { return fitsTag(want, t.tag) }) {
			rest = append(rest, t)
			continue
		}
		if err := putMark(ctx, repo, m, record.Mark{Mark: record.Tag, Value: t.tag, Ends: t.id}, a.now()); err != nil {
			return err
		}
		doc.Removed = append(doc.Removed, t.tag)
	}
	for _, tag := range add {
		if slices.Contains(m.Tags, tag) || slices.ContainsFunc(rest, func(t tagMark) bool { return t.tag == tag }) {
			continue
		}
		if err := putMark(ctx, repo, m, record.Mark{Mark: record.Tag, Value: tag}, a.now()); err != nil {
			return err
		}
		doc.Added = append(doc.Added, tag)
		rest = append(rest, tagMark{tag: tag})
	}
	doc.Tags = tagsOf(m, rest)
	return a.print(doc, func(w io.Writer) { doc.write(w) })
}

func (d *tagDoc) write(w io.Writer) {
	if len(d.Tags) == 0 {
		fmt.Fprintf(w, "%s: no tags\n", d.Snapshot)
		return
	}
	fmt.Fprintf(w, "%s: %s\n", d.Snapshot, strings.Join(d.Tags, ", "))
}

// tagMark is a tag that a mark gives, and the mark's id.
type tagMark struct{ tag, id string }

// tagged opens the repository, the snapshot and its tags; for a change the identity must be one that may mark.
func (a *app) tagged(ctx context.Context, arg string, change bool) (*repository.Repository, *repository.Stored, []tagMark, error) {
	repo, err := a.open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := a.find(ctx, repo, arg, "")
	if err != nil {
		return nil, nil, nil, err
	}
	if change {
		if err := maySign(repo, m.Host, "marks"); err != nil {
			return nil, nil, nil, err
		}
	}
	marks, err := marksOf(ctx, repo, m)
	if err != nil {
		return nil, nil, nil, err
	}
	var set []tagMark
	for id, mark := range record.Active(marks, a.now()) {
		if mark.Mark == record.Tag {
			set = append(set, tagMark{mark.Value, id})
		}
	}
	slices.SortFunc(set, func(x, y tagMark) int { return strings.Compare(x.tag+"\x00"+x.id, y.tag+"\x00"+y.id) })
	return repo, m, set, nil
}

// marksOf reads all marks of a snapshot.
func marksOf(ctx context.Context, repo *repository.Repository, m *repository.Stored) (map[string]record.Mark, error) {
	inv, err := inventory.TakeParts(ctx, repo.Store(), m.ID().Source, layout.MarkPrefix(m.ID().Source))
	if err != nil {
		return nil, err
	}
	all := map[string]record.Mark{}
	for _, id := range inv.MarksOf(m.Sequence) {
		var mark record.Mark
		if _, err := repo.Document(ctx, layout.MarkKey(m.ID(), id), &mark); err != nil {
			return nil, err
		}
		all[id] = mark
	}
	return all, nil
}

// fitsTag reports whether want names the tag: the tag itself, or its key.
func fitsTag(want, tag string) bool {
	return tag == want || strings.HasPrefix(tag, want+"=")
}

// tagsOf are the tags that the backup gave, and then those of marks, each once.
func tagsOf(m *repository.Stored, set []tagMark) []string {
	out := append([]string{}, m.Tags...)
	var later []string
	for _, t := range set {
		if !slices.Contains(out, t.tag) {
			later = append(later, t.tag)
		}
	}
	slices.Sort(later)
	return append(out, slices.Compact(later)...)
}
