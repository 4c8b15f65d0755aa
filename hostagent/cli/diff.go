package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const diffLong = `Show what changed between two snapshots. With one argument: between that snapshot and the one before it.

  +  added        -  removed      M  content changed
  m  only metadata changed (mode, owner, times, attributes)
  T  the type changed

Within a chain content is compared by what is stored. Between chains, which share nothing, it is compared by size and
modification time.`

func (a *app) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "diff SOURCE[@N] [SOURCE@M]",
		Short:   "Show what changed between two snapshots",
		Long:    diffLong,
		Example: "  holdfast diff etc                # the last two snapshots\n  holdfast diff etc@40 etc@42",
		GroupID: groupUse,
		Args:    arguments(1, 2, "one or two of SOURCE[@N]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			older, newer, err := a.diffPair(cmd.Context(), repo, args)
			if err != nil {
				return err
			}
			return a.diff(cmd.Context(), repo, older, newer)
		},
	}
	return cmd
}

// diffPair finds the two snapshots to compare.
func (a *app) diffPair(ctx context.Context, repo *repository.Repository, args []string) (older, newer *repository.Stored, err error) {
	last, err := a.find(ctx, repo, args[len(args)-1], "")
	if err != nil {
		return nil, nil, err
	}
	if len(args) == 2 {
		first, err := a.find(ctx, repo, args[0], "")
		return first, last, err
	}
	listed, err := repo.Sequences(ctx, last.ID().Source)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(listed, func(l repository.Listed) bool { return l.Sequence == last.Sequence })
	if i < 1 {
		return nil, nil, fmt.Errorf("diff: %s is the first snapshot that is there: %w", last.ID(), repository.ErrNoSnapshot)
	}
	first, err := repo.Manifest(ctx, snapshot.ID{Source: last.ID().Source, Sequence: listed[i-1].Sequence})
	return first, last, err
}

// change is one difference.
type change struct {
	Change string   `json:"change"` // added, removed, content, metadata, type
	Path   string   `json:"path"`
	Bytes  []byte   `json:"path_bytes,omitempty"`
	Before *uint64  `json:"size_before,omitempty"`
	After  *uint64  `json:"size_after,omitempty"`
	What   []string `json:"what,omitempty"` // which metadata
}

// diffSummary ends the list.
type diffSummary struct {
	Older    string `json:"older"`
	Newer    string `json:"newer"`
	Added    uint64 `json:"added"`
	Removed  uint64 `json:"removed"`
	Content  uint64 `json:"content"`
	Metadata uint64 `json:"metadata"`
	Type     uint64 `json:"type"`
}

func (a *app) diff(ctx context.Context, repo *repository.Repository, older, newer *repository.Stored) error {
	x, err := openContent(ctx, repo, older)
	if err != nil {
		return err
	}
	y, err := openContent(ctx, repo, newer)
	if err != nil {
		return err
	}
	sum := diffSummary{Older: older.ID().String(), Newer: newer.ID().String()}
	enc := json.NewEncoder(a.stdio.Out)
	sameChain := older.Chain == newer.Chain && older.ID().Source == newer.ID().Source
	err = merge(x.Entries(ctx, ""), y.Entries(ctx, ""), func(b, c *snapshot.Entry) error {
		d := compareEntries(b, c, sameChain)
		if d == nil {
			return nil
		}
		sum.count(d.Change)
		if a.flags.json {
			return enc.Encode(d)
		}
		if a.flags.quiet {
			return nil
		}
		_, err := fmt.Fprintln(a.stdio.Out, d.text())
		return err
	})
	if err != nil {
		return err
	}
	return a.print(sum, func(w io.Writer) {
		fmt.Fprintf(w, "%s to %s: %d added, %d removed, %d changed, %d of them only in metadata\n",
			a.name(older.ID()), a.name(newer.ID()), sum.Added, sum.Removed, sum.Content+sum.Metadata+sum.Type, sum.Metadata)
	})
}

func (s *diffSummary) count(what string) {
	switch what {
	case "added":
		s.Added++
	case "removed":
		s.Removed++
	case "content":
		s.Content++
	case "metadata":
		s.Metadata++
	case "type":
		s.Type++
	}
}

// merge walks two sorted trees and calls fn for each path with what either has of it.
func merge(xs, ys iter.Seq2[*snapshot.Entry, error], fn func(x, y *snapshot.Entry) error) error {
	nextX, stopX := iter.Pull2(xs)
	defer stopX()
	nextY, stopY := iter.Pull2(ys)
	defer stopY()
	x, err, okX := nextX()
	if err != nil {
		return err
	}
	y, err, okY := nextY()
	if err != nil {
		return err
	}
	for okX || okY {
		c := 0
		switch {
		case !okY:
			c = -1
		case !okX:
			c = 1
		default:
			c = snapshot.ComparePaths(x.Path, y.Path)
		}
		var a, b *snapshot.Entry
		if c <= 0 {
			a = x
			if x, err, okX = nextX(); err != nil {
				return err
			}
		}
		if c >= 0 {
			b = y
			if y, err, okY = nextY(); err != nil {
				return err
			}
		}
		if err := fn(a, b); err != nil {
			return err
		}
	}
	return nil
}

// compareEntries says how y differs from x; either may be nil. It returns nil if they are the same.
func compareEntries(x, y *snapshot.Entry, sameChain bool) *change {
	some := y
	if y == nil {
		some = x
	}
	d := &change{Path: some.Path}
	if printable(some.Path) != some.Path {
		d.Bytes = []byte(some.Path)
	}
	if x != nil && x.Type == snapshot.File {
		d.Before = &x.Size
	}
	if y != nil && y.Type == snapshot.File {
		d.After = &y.Size
	}
	switch {
	case x == nil:
		d.Change = "added"
	case y == nil:
		d.Change = "removed"
	case x.Type != y.Type:
		d.Change = "type"
	case contentDiffers(x, y, sameChain):
		d.Change = "content"
	default:
		d.What = differences(x, y)
		if x.Type != snapshot.Directory && x.MTime != y.MTime {
			d.What = append(d.What, "mtime")
		}
		if len(d.What) == 0 {
			return nil
		}
		d.Change = "metadata"
	}
	return d
}

// contentDiffers compares content by what is stored within a chain, else by size and time.
func contentDiffers(x, y *snapshot.Entry, sameChain bool) bool {
	switch {
	case x.Type == snapshot.Symlink:
		return x.Target != y.Target
	case x.Type == snapshot.CharDevice || x.Type == snapshot.Device:
		return x.Major != y.Major || x.Minor != y.Minor
	case x.Type != snapshot.File:
		return false
	case x.Size != y.Size:
		return true
	case !sameChain:
		return x.MTime != y.MTime
	case x.HasFileID && y.HasFileID:
		return x.FileID != y.FileID
	}
	return !slices.EqualFunc(x.Maps, y.Maps, func(a, b snapshot.MapRef) bool { return a.Ref.ID == b.Ref.ID }) ||
		!slices.EqualFunc(x.Extents, y.Extents, func(a, b snapshot.Extent) bool {
			return a.Hole == b.Hole && a.Ref.ID == b.Ref.ID && a.Offset == b.Offset && a.Length == b.Length
		})
}

// differences names the metadata in which two entries differ, without the times, which change with content.
func differences(x, y *snapshot.Entry) []string {
	var what []string
	if x.Type != y.Type {
		what = append(what, "type")
	}
	if x.Mode != y.Mode {
		what = append(what, "mode")
	}
	if x.UID != y.UID || x.GID != y.GID || x.User != y.User || x.Group != y.Group {
		what = append(what, "owner")
	}
	same := func(a, b snapshot.Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }
	if !slices.EqualFunc(x.Xattrs, y.Xattrs, same) {
		what = append(what, "attributes")
	}
	if x.Target != y.Target {
		what = append(what, "target")
	}
	return what
}

func (d *change) text() string {
	sign := map[string]string{"added": "+", "removed": "-", "content": "M", "metadata": "m", "type": "T"}[d.Change]
	line := sign + " " + printable(d.Path)
	switch {
	case d.Change == "content" && d.Before != nil && d.After != nil:
		line += fmt.Sprintf("  (%s -> %s)", size(*d.Before), size(*d.After))
	case d.Change == "metadata":
		line += "  (" + strings.Join(d.What, ", ") + ")"
	}
	return line
}
