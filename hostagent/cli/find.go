package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func (a *app) findCommand() *cobra.Command {
	var at string
	var all, long, fold bool
	cmd := &cobra.Command{
		Use:   "find SOURCE[@N] PATTERN...",
		Short: "Find files in snapshots",
		Long: `Find what fits a pattern, in one snapshot or with --all in every snapshot of the source. A pattern that
begins with a slash is compared with the whole path, one with a slash elsewhere with the end of the path, any other
with the name: "/etc/ssh/*", "ssh/*.pub", "*.conf". '*' does not cross a slash; '**' between slashes stands for any
number of directories, as in the patterns of backup.

With --all each version is shown once, with the first and the last snapshot that has it.`,
		Example: "  holdfast find etc '*.conf'\n  holdfast find etc sshd_config --all --long",
		GroupID: groupUse,
		Args:    arguments(2, -1, "SOURCE[@N] and at least one PATTERN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matcher(args[1:], fold)
			if err != nil {
				return err
			}
			if !all {
				snap, err := a.openSnapshot(cmd.Context(), args[0], at)
				if err != nil {
					return err
				}
				show := a.entryPrinter(long)
				return search(cmd.Context(), snap, match, show)
			}
			if at != "" {
				return usagef("find: --all and --at exclude each other")
			}
			return a.findAll(cmd.Context(), args[0], match, long)
		},
	}
	cmd.Flags().StringVar(&at, "at", "", atHelp)
	cmd.Flags().BoolVar(&all, "all", false, "in every snapshot of the source")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, owner, size and time")
	cmd.Flags().BoolVarP(&fold, "ignore-case", "i", false, "upper and lower case are the same")
	return cmd
}

func search(ctx context.Context, snap *repository.Snapshot, match func(string) bool, show func(*snapshot.Entry) error) error {
	for e, err := range snap.Entries(ctx, "") {
		if err != nil {
			return err
		}
		if match(e.Path) {
			if err := show(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// matcher compiles patterns; a path matches if any of them fits.
func matcher(patterns []string, fold bool) (func(string) bool, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usagef("pattern %q: %w", p, err)
		}
	}
	return func(full string) bool {
		if fold {
			full = strings.ToLower(full)
		}
		for _, p := range patterns {
			if fold {
				p = strings.ToLower(p)
			}
			if fits(p, full) {
				return true
			}
		}
		return false
	}, nil
}

// fits compares a pattern with a path.
func fits(pattern, full string) bool {
	if !strings.Contains(pattern, "/") {
		ok, err := path.Match(pattern, path.Base(full))
		return err == nil && ok
	}
	rest, absolute := strings.CutPrefix(pattern, "/")
	if full == "/" {
		return pattern == "/"
	}
	segments := strings.Split(rest, "/")
	if !absolute {
		segments = append([]string{"**"}, segments...)
	}
	return fitsComponents(segments, strings.Split(strings.TrimPrefix(full, "/"), "/"))
}

// fitsComponents compares component by component. It goes along the path once with all states that the pattern can be
// in, so that its time grows with the product of both lengths at most. A "**" at the end stands for one component at
// least, any other also for none.
func fitsComponents(pattern, components []string) bool {
	at := make([]bool, len(pattern)+1) // at[i]: the first i segments fit what was seen
	at[0] = true
	skip := func() {
		for i, p := range pattern {
			if p == "**" && at[i] && i < len(pattern)-1 {
				at[i+1] = true
			}
		}
	}
	skip()
	for _, c := range components {
		next := make([]bool, len(at))
		for i, p := range pattern {
			if !at[i] {
				continue
			}
			if p == "**" {
				next[i] = true
				next[i+1] = next[i+1] || i == len(pattern)-1
				continue
			}
			if ok, err := path.Match(p, c); err == nil && ok {
				next[i+1] = true
			}
		}
		at = next
		skip()
	}
	return at[len(pattern)]
}

// version is one state of a file and the snapshots that have it.
type version struct {
	entryLine
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`

	entry *snapshot.Entry
}

func (a *app) findAll(ctx context.Context, arg string, match func(string) bool, long bool) error {
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	sel, err := selector(arg)
	if err != nil {
		return err
	}
	if sel.Sequence != 0 {
		return usagef("find: --all searches every snapshot; drop @%d", sel.Sequence)
	}
	src, err := a.source(ctx, repo, sel)
	if err != nil {
		return err
	}
	manifests, err := repo.Manifests(ctx, src)
	var bad *repository.BadManifestError
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if bad != nil {
		a.warn("%v", err)
	}
	var order []string
	versions := map[string][]*version{}
	for _, m := range manifests {
		snap, err := openContent(ctx, repo, m)
		if err != nil {
			return err
		}
		err = search(ctx, snap, match, func(e *snapshot.Entry) error {
			of := versions[e.Path]
			if len(of) == 0 {
				order = append(order, e.Path)
			}
			if n := len(of); n > 0 && sameEntry(of[n-1].entry, e) {
				of[n-1].Last = m.Sequence
				return nil
			}
			versions[e.Path] = append(of, &version{entryLine: lineOf(e), First: m.Sequence, Last: m.Sequence, entry: e})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return a.printVersions(order, versions, long)
}

func (a *app) printVersions(order []string, versions map[string][]*version, long bool) error {
	enc := json.NewEncoder(a.stdio.Out)
	for _, p := range order {
		for _, v := range versions[p] {
			if a.flags.json {
				if err := enc.Encode(v); err != nil {
					return err
				}
				continue
			}
			span := fmt.Sprintf("@%d", v.First)
			if v.Last != v.First {
				span += fmt.Sprintf("-@%d", v.Last)
			}
			if _, err := fmt.Fprintf(a.stdio.Out, "%-11s %s\n", span, textLine(v.entry, long)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameEntry reports whether two entries of a path are the same to a user: type, metadata, size and time.
func sameEntry(x, y *snapshot.Entry) bool {
	return len(differences(x, y)) == 0 && x.Size == y.Size && x.MTime == y.MTime
}
