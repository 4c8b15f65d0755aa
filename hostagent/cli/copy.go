package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/hostagent/progress"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const copyLong = `Copy the repository, or the sources named, to another place: the same objects under the same keys, so that the same
identity opens the copy. Without --to, the copies of the policy are brought up to date.

What is there already is not copied again; a copy that was interrupted goes on. Everything is checked before it is
written: what is damaged in the original is named, is not copied, and the exit code is 4. To read a copy, name it as the
repository.`

func (a *app) copyCommand() *cobra.Command {
	var to []string
	cmd := &cobra.Command{
		Use:   "copy [--to REPOSITORY] [SOURCE...]",
		Short: "Copy snapshots to another repository",
		Long:  copyLong,
		Example: `  holdfast copy --to /mnt/usb/backup
  holdfast copy --to "s3://second-bucket?region=eu-west-1" etc
  holdfast snapshots -r /mnt/usb/backup`,
		GroupID: groupTend,
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := a.copyTargets(to)
			if err != nil {
				return err
			}
			repo, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			var sources []snapshot.Source
			if len(args) > 0 || a.flags.host != "" {
				if sources, err = a.sources(cmd.Context(), repo, args); err != nil {
					return err
				}
			}
			results, errs := a.copyAll(cmd.Context(), repo, targets, sources)
			err = a.print(results, func(w io.Writer) {
				for _, r := range results {
					r.write(w)
				}
			})
			if a.flags.quiet && !a.flags.json {
				for _, r := range results {
					r.writeFindings(a.stdio.Out)
				}
			}
			if err := together(append(errs, err)...); err != nil {
				return err
			}
			return copyOutcome(results)
		},
	}
	cmd.Flags().StringArrayVar(&to, "to", nil, "the `REPOSITORY` to copy to (repeatable; default: the copies of the policy)")
	return cmd
}

func (a *app) copyTargets(to []string) ([]string, error) {
	if len(to) > 0 {
		return to, nil
	}
	p, err := a.loadPolicy()
	if err != nil {
		return nil, err
	}
	if p == nil || len(p.Repository.Copies) == 0 {
		return nil, hinted{usagef("copy: where to?"), "name a repository with --to, or copies in the policy"}
	}
	return a.elsewhereThan(p.Repository.Copies), nil
}

// elsewhereThan are those of the places that are not the repository of this command, which may be one of its copies.
func (a *app) elsewhereThan(places []string) []string {
	from, err := a.address()
	if err != nil {
		return places // who opens it says so
	}
	return slices.DeleteFunc(slices.Clone(places), func(to string) bool { return samePlace(from, to) })
}

// copyResult is what a copy to one place did.
type copyResult struct {
	To        string        `json:"to"`
	Objects   int           `json:"objects"`
	Bytes     int64         `json:"bytes"`
	Present   int           `json:"present"`
	Had       int           `json:"had"`       // snapshots that the copy had before
	Committed []string      `json:"committed"` // snapshots that the copy has since this run
	Withheld  []string      `json:"withheld"`  // snapshots that are not whole in the original
	Findings  []copyFinding `json:"findings"`
	Failed    bool          `json:"failed,omitempty"` // it ended with an error: what is named here is not all
}

type copyFinding struct {
	Object    string   `json:"object"`
	Problem   string   `json:"problem"`
	InCopy    bool     `json:"in_copy"`
	Snapshots []string `json:"snapshots"`
}

func (c copyResult) write(w io.Writer) {
	c.writeFindings(w)
	if !c.Failed && c.Objects == 0 && len(c.Findings)+len(c.Withheld) == 0 {
		fmt.Fprintf(w, "%s is up to date: %s, nothing to copy\n", c.To, count(uint64(c.Had), "snapshot", "snapshots"))
		return
	}
	done := "copied"
	if c.Failed {
		done = "NOT complete: only copied"
	}
	fmt.Fprintf(w, "%s to %s: %s, %s in %s", done, c.To, count(uint64(len(c.Committed)), "snapshot", "snapshots"),
		size(uint64(c.Bytes)), count(uint64(c.Objects), "object", "objects"))
	if c.Had > 0 {
		fmt.Fprintf(w, "; %s there before", count(uint64(c.Had), "snapshot was", "snapshots were"))
	}
	fmt.Fprintln(w)
}

// writeFindings prints what is not in order.
func (c copyResult) writeFindings(w io.Writer) {
	for _, f := range c.Findings {
		where := ""
		if f.InCopy {
			where = " (in the copy)"
		}
		fmt.Fprintf(w, "damaged: %s%s: %s\n", f.Object, where, f.Problem)
		if len(f.Snapshots) > 0 {
			fmt.Fprintf(w, "  not copied because of it: %s\n", strings.Join(f.Snapshots, ", "))
		}
	}
}

func copyOutcome(results []copyResult) error {
	for _, r := range results {
		if len(r.Findings)+len(r.Withheld) > 0 {
			return outcome(exitDamaged)
		}
	}
	return nil
}

// copyAll copies to each place; a place that fails does not keep the others back.
func (a *app) copyAll(ctx context.Context, repo *repository.Repository, targets []string, sources []snapshot.Source) ([]copyResult, []error) {
	results := []copyResult{}
	var errs []error
	for _, to := range targets {
		result, err := a.copyTo(ctx, repo, to, sources)
		if result != nil {
			results = append(results, *result)
		}
		if err != nil {
			errs = append(errs, copyError(to, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return results, errs
}

// copyError says to which place a copy failed. Of a full one the room is wanted there: pruning the original makes none.
func copyError(to string, err error) error {
	if errors.Is(err, copier.ErrSamePlace) {
		return fmt.Errorf("copy to %s: %w", to, errSamePlace)
	}
	err = fmt.Errorf("copy to %s: %w", to, err)
	if errors.Is(err, objstore.ErrFull) {
		return hinted{err, "make room there; the same command goes on from where it stopped"}
	}
	if errors.Is(err, objstore.ErrOverwrites) {
		return hinted{err, hintOverwrites}
	}
	return err
}

// errSamePlace says that a copy would go to where the repository is. It would say there that the place is a copy.
var errSamePlace = hinted{usageError{errors.New("that is the repository itself")}, "name another place with --to; -r names the repository to copy from"}

func (a *app) copyTo(ctx context.Context, repo *repository.Repository, to string, sources []snapshot.Source) (*copyResult, error) {
	from, err := a.address()
	if err != nil {
		return nil, err
	}
	if samePlace(from, to) {
		return nil, errSamePlace
	}
	store, err := a.store(ctx, to)
	if err != nil {
		return nil, err
	}
	meter := a.meter()
	var before progress.Counts
	_, local := localPath(to)
	options := copier.Options{Sources: sources, Workers: a.flags.connections, Probe: !local, Temp: a.tempPath(), Progress: func(p copier.Progress) {
		meter.Current(p.Source.String())
		meter.Total(0, uint64(p.TotalBytes))
		meter.Add(0, uint64(p.Bytes)-before.Bytes, 0)
		before.Bytes = uint64(p.Bytes)
	}}
	var got *copier.Result
	err = meter.Run("copy to "+to, func() error {
		var err error
		got, err = copier.Run(ctx, repo, store, options)
		return err
	})
	if other := (*copier.OtherRepositoryError)(nil); errors.As(err, &other) {
		err = hinted{err, "name an empty place, or one that holds a copy of this repository"}
	}
	if got == nil {
		return nil, err
	}
	result := a.copyResult(to, got)
	result.Failed = err != nil
	return result, err
}

// tempPath is where packs of a copy wait: the state directory, as the system's own may be in memory, or that one if there
// can't be a state directory.
func (a *app) tempPath() string {
	path := a.statePath()
	if os.MkdirAll(path, 0o700) != nil {
		return ""
	}
	return path
}

func (a *app) copyResult(to string, got *copier.Result) *copyResult {
	name := a.name
	if a.flags.json {
		name = snapshot.ID.String // for programs a name is the same on each host
	}
	names := func(ids []snapshot.ID) []string {
		out := []string{}
		for _, id := range ids {
			out = append(out, name(id))
		}
		return out
	}
	r := &copyResult{
		To: to, Objects: got.Objects, Bytes: got.Bytes, Present: got.Present, Had: got.Had,
		Committed: names(got.Committed), Withheld: names(got.Withheld), Findings: []copyFinding{},
	}
	for _, f := range got.Findings {
		r.Findings = append(r.Findings, copyFinding{f.Key, f.Problem, f.InCopy, names(f.Snapshots)})
	}
	return r
}

// runCopies brings the copies of the policy up to date for the sources that were backed up.
func (a *app) runCopies(ctx context.Context, repo *repository.Repository, targets []string, jobs []job) ([]copyResult, []error) {
	if len(targets) == 0 || len(jobs) == 0 {
		return nil, nil
	}
	var sources []snapshot.Source
	for _, j := range jobs {
		sources = append(sources, j.source)
	}
	return a.copyAll(ctx, repo, a.elsewhereThan(targets), sources)
}
