package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const atHelp = "the newest that was finished at `TIME`: " + timeForms

func (a *app) lsCommand() *cobra.Command {
	var at string
	var long, recursive bool
	cmd := &cobra.Command{
		Use:   "ls SOURCE[@N] [PATH]",
		Short: "List what is in a snapshot",
		Long: `List a directory of a snapshot (the newest without @N or --at): its roots without PATH. With --json, one JSON document
a line; paths that are not UTF-8 come with their bytes in base64.`,
		Example: `  holdfast ls etc
  holdfast ls etc@42 /etc/ssh --long
  holdfast ls web-1/etc --at "2026-01-31 09:30" --recursive`,
		GroupID: groupUse,
		Args:    arguments(1, 2, "SOURCE[@N] and at most one PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := absolutePaths(args[1:]); err != nil {
				return err
			}
			snap, err := a.openSnapshot(cmd.Context(), args[0], at)
			if err != nil {
				return err
			}
			show := a.entryPrinter(long)
			if len(args) == 1 && !recursive {
				return listRoots(cmd.Context(), snap, show)
			}
			dir := ""
			if len(args) == 2 {
				dir = path.Clean(args[1])
			}
			return list(cmd.Context(), snap, dir, recursive, show)
		},
	}
	cmd.Flags().StringVar(&at, "at", "", atHelp)
	a.alsoFlag(cmd)
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, owner, size and time")
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "with everything below")
	return cmd
}

// absolutePaths refuses paths that no snapshot has.
func absolutePaths(paths []string) error {
	for _, p := range paths {
		if !path.IsAbs(p) {
			return hinted{usagef("%s: want the absolute path", p), "paths are those of the snapshot, such as /etc/ssh: `holdfast ls SOURCE` lists its roots, `holdfast find SOURCE NAME` names what is below"}
		}
	}
	return nil
}

// openSnapshot opens the snapshot that a selector and a time choose.
func (a *app) openSnapshot(ctx context.Context, arg, at string) (*repository.Snapshot, error) {
	repo, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.alsoRead(repo); err != nil {
		return nil, err
	}
	m, err := a.find(ctx, repo, arg, at)
	if err != nil {
		return nil, err
	}
	return openContent(ctx, repo, m)
}

func listRoots(ctx context.Context, snap *repository.Snapshot, show func(*snapshot.Entry) error) error {
	root, err := snap.Root(ctx)
	if err != nil {
		return err
	}
	for _, r := range root.Roots {
		e, err := snap.Lookup(ctx, r)
		if err != nil {
			return err
		}
		if err := show(e); err != nil {
			return err
		}
	}
	return nil
}

// list shows what is below dir (everything if it is empty), or the one entry that is no directory.
func list(ctx context.Context, snap *repository.Snapshot, dir string, recursive bool, show func(*snapshot.Entry) error) error {
	if dir != "" {
		e, err := snap.Lookup(ctx, dir)
		if err != nil {
			return err
		}
		if e.Type != snapshot.Directory {
			return show(e)
		}
	}
	if !recursive {
		return children(ctx, snap, dir, show)
	}
	for e, err := range snap.Entries(ctx, dir) {
		switch {
		case err != nil:
			return err
		case dir != "" && !snapshot.Within(dir, e.Path):
			return nil
		case e.Path == dir:
			continue
		}
		if err := show(e); err != nil {
			return err
		}
	}
	return nil
}

// skipAhead is how many entries of a subdirectory are read over before it is jumped over by a new search.
const skipAhead = 4000

// children shows the direct children of dir, and does not read through large subdirectories.
func children(ctx context.Context, snap *repository.Snapshot, dir string, show func(*snapshot.Entry) error) error {
	from := dir
	for from != "" {
		next := ""
		inside, skipped := "", 0
		for e, err := range snap.Entries(ctx, from) {
			if err != nil {
				return err
			}
			if !snapshot.Within(dir, e.Path) {
				return nil
			}
			if e.Path == dir {
				continue
			}
			if inside != "" && snapshot.Within(inside, e.Path) {
				if skipped++; skipped > skipAhead {
					next = inside + "\x01" // '/' sorts first: whatever is in the directory stands before this
					break
				}
				continue
			}
			if err := show(e); err != nil {
				return err
			}
			inside, skipped = e.Path, 0
		}
		from = next
	}
	return nil
}

// entryLine is an entry for programs.
type entryLine struct {
	Path   string    `json:"path"`
	Bytes  []byte    `json:"path_bytes,omitempty"` // base64, where Path is not UTF-8
	Type   string    `json:"type"`
	Mode   string    `json:"mode"`
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	User   string    `json:"user,omitempty"`
	Group  string    `json:"group,omitempty"`
	Size   uint64    `json:"size"`
	MTime  time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"`
	Marks  []string  `json:"marks,omitempty"`
}

func lineOf(e *snapshot.Entry) entryLine {
	l := entryLine{
		Path: e.Path, Type: typeWord(e.Type), Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID, User: e.User,
		Group: e.Group, Size: e.Size, MTime: time.Unix(e.MTime.Sec, int64(e.MTime.Nsec)).UTC(), Target: e.Target, Marks: marks(e),
	}
	if printable(e.Path) != e.Path {
		l.Bytes = []byte(e.Path)
	}
	return l
}

func marks(e *snapshot.Entry) []string {
	var out []string
	for _, m := range []struct {
		is   bool
		name string
	}{
		{e.NotConsistent, "not consistent"},
		{e.Unreadable, "unreadable"},
		{e.Changed, "changed while read"},
		{e.LacksXattrs, "without all attributes"},
		{e.Linked, "linked"},
	} {
		if m.is {
			out = append(out, m.name)
		}
	}
	return out
}

func typeWord(t snapshot.Type) string {
	switch t {
	case snapshot.File:
		return "file"
	case snapshot.Directory:
		return "directory"
	case snapshot.Symlink:
		return "symlink"
	case snapshot.FIFO:
		return "fifo"
	case snapshot.Socket:
		return "socket"
	case snapshot.CharDevice:
		return "character device"
	case snapshot.Device:
		return "block device"
	}
	return "unknown"
}

// entryPrinter prints entries one by one, as lines of text or of JSON.
func (a *app) entryPrinter(long bool) func(*snapshot.Entry) error {
	if a.flags.json {
		enc := json.NewEncoder(a.stdio.Out)
		return func(e *snapshot.Entry) error { return enc.Encode(lineOf(e)) }
	}
	return func(e *snapshot.Entry) error {
		_, err := io.WriteString(a.stdio.Out, textLine(e, long)+"\n")
		return err
	}
}

func textLine(e *snapshot.Entry, long bool) string {
	name := printable(e.Path)
	if e.Type == snapshot.Directory && e.Path != "/" {
		name += "/"
	}
	if !long {
		return name
	}
	if e.Type == snapshot.Symlink {
		name += " -> " + printable(e.Target)
	}
	for _, m := range marks(e) {
		if m != "linked" {
			name += " [" + m + "]"
		}
	}
	mtime := time.Unix(e.MTime.Sec, int64(e.MTime.Nsec)).UTC().Format("2006-01-02 15:04:05")
	return fmt.Sprintf("%s %-8s %-8s %12d %s %s", modeString(e), owner(e.User, e.UID), owner(e.Group, e.GID), e.Size, mtime, name)
}

func owner(name string, id uint32) string {
	if name != "" {
		return printable(name)
	}
	return fmt.Sprint(id)
}

// modeString is the mode as ls shows it.
func modeString(e *snapshot.Entry) string {
	b := []byte("-rwxrwxrwx")
	if e.Type != snapshot.File {
		b[0] = byte(e.Type)
	}
	for i := range 9 {
		if e.Mode&(1<<(8-i)) == 0 {
			b[i+1] = '-'
		}
	}
	for _, s := range []struct {
		bit   uint32
		at    int
		small byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		switch {
		case e.Mode&s.bit == 0:
		case b[s.at] == 'x':
			b[s.at] = s.small
		default:
			b[s.at] = s.small - 'a' + 'A'
		}
	}
	return string(b)
}
