package cli

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func (a *app) catCommand() *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "cat SOURCE[@N] PATH...",
		Short: "Print a file of a snapshot",
		Long: `Print the content of files of a snapshot (the newest without @N or --at). Holes are printed as zeros.

A source of kind sqlite has one file, the database, which needs no PATH. Its snapshots are whole by themselves; the log after
them is for restore. Of dumps of PostgreSQL databases the names of databases are paths too.`,
		Example: "  holdfast cat etc /etc/fstab\n  holdfast cat etc@42 /etc/fstab | diff - /etc/fstab\n  holdfast cat governance-sqlite@42 > /tmp/governance.db\n  holdfast cat governance-dump governance_production | pg_restore --list",
		GroupID: groupUse,
		Args:    arguments(1, -1, "SOURCE[@N] and at least one PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			snap, err := a.openSnapshot(cmd.Context(), args[0], at)
			if err != nil {
				return err
			}
			paths := args[1:]
			if isDump(snap.Manifest().Manifest) {
				if paths, err = dumpPaths(cmd.Context(), snap, paths); err != nil {
					return err
				}
			}
			if err := absolutePaths(paths); err != nil {
				return err
			}
			if len(paths) == 0 {
				only, err := databaseEntry(cmd.Context(), snap)
				if err != nil || snap.Manifest().Kind != policy.KindSQLite {
					return hinted{usagef("cat %s: want at least one PATH", a.name(snap.Manifest().ID())), "`holdfast ls` shows what is in the snapshot"}
				}
				paths = []string{only.Path}
			}
			for _, p := range paths {
				e, err := snap.Lookup(cmd.Context(), path.Clean(p))
				if err != nil {
					return err
				}
				if e.Type != snapshot.File {
					return fmt.Errorf("print %s: it is a %s", printable(e.Path), typeWord(e.Type))
				}
				if e.Unreadable {
					return fmt.Errorf("print %s: the backup could not read it", printable(e.Path))
				}
				if err := writeContent(cmd.Context(), snap, e, a.stdio.Out); err != nil {
					return fmt.Errorf("print %s: %w", printable(e.Path), err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&at, "at", "", atHelp)
	a.alsoFlag(cmd)
	return cmd
}

// catAhead is how many plain bytes are read before they are written.
const catAhead = 16 << 20

// writeContent writes a file's content to w in order, some chunks at a time.
func writeContent(ctx context.Context, snap *repository.Snapshot, e *snapshot.Entry, w io.Writer) error {
	var batch []snapshot.Extent
	var pending uint64
	flush := func() error {
		err := writeExtents(ctx, snap, batch, w)
		batch, pending = batch[:0], 0
		return err
	}
	err := snap.Extents(ctx, e, func(x snapshot.Extent) error {
		batch = append(batch, x)
		if !x.Hole {
			pending += uint64(x.Ref.Plain)
		}
		if pending < catAhead && len(batch) < 1024 {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func writeExtents(ctx context.Context, snap *repository.Snapshot, extents []snapshot.Extent, w io.Writer) error {
	var refs []repository.KindRef
	var of []int // index of the extent of each ref
	for i, x := range extents {
		if !x.Hole {
			refs = append(refs, repository.KindRef{Kind: snapshot.Content, Ref: x.Ref})
			of = append(of, i)
		}
	}
	parts := make([][]byte, len(extents))
	err := snap.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
		if err != nil {
			return err
		}
		x := extents[of[i]]
		end := uint64(x.Offset) + x.Length
		if end > uint64(len(plain)) {
			return fmt.Errorf("%w: an extent leads past the end of its chunk", snapshot.ErrFormat)
		}
		parts[of[i]] = append([]byte(nil), plain[x.Offset:end]...)
		return nil
	})
	if err != nil {
		return err
	}
	for i, x := range extents {
		if x.Hole {
			if err := writeZeros(w, x.Length); err != nil {
				return err
			}
			continue
		}
		if _, err := w.Write(parts[i]); err != nil {
			return err
		}
	}
	return nil
}

func writeZeros(w io.Writer, n uint64) error {
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		k, err := w.Write(zeros[:min(n, uint64(len(zeros)))])
		if err != nil {
			return err
		}
		n -= uint64(k)
	}
	return nil
}
