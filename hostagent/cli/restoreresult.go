package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// restoreResult is what a restore did.
type restoreResult struct {
	Snapshot string
	DryRun   bool
	Actions  []actionLine
	Seconds  float64
	Unlisted []string // directories of which the backup does not know the whole content
	Result   *restorer.Result

	name  string
	place func(path string) string // where a path of the snapshot goes
}

type actionLine struct {
	Operation string `json:"operation"`
	Path      string `json:"path"`   // in the snapshot
	Target    string `json:"target"` // on this host
	Bytes     uint64 `json:"bytes"`
}

func (a *app) printRestore(r restoreResult) error {
	err := a.print(r.document(), func(w io.Writer) { r.write(w) })
	if a.flags.quiet && !a.flags.json {
		r.writeProblems(a.stdio.Err)
	}
	if err == nil && (r.Result.Failed > 0 || len(r.Unlisted) > 0) {
		return outcome(exitPartial)
	}
	return err
}

func (r restoreResult) document() any {
	type warning struct {
		Kind  string `json:"kind"`
		Count uint64 `json:"count"`
		Path  string `json:"path"`
		Error string `json:"error,omitempty"`
	}
	doc := struct {
		Snapshot    string        `json:"snapshot"`
		DryRun      bool          `json:"dry_run"`
		Files       uint64        `json:"files"`
		Directories uint64        `json:"directories"`
		Others      uint64        `json:"others"`
		Bytes       uint64        `json:"bytes"`
		Unchanged   uint64        `json:"unchanged"`
		Created     uint64        `json:"created"`
		Updated     uint64        `json:"updated"`
		Metadata    uint64        `json:"metadata"`
		Deleted     uint64        `json:"deleted"`
		Written     uint64        `json:"written_bytes"`
		Reused      uint64        `json:"reused_bytes"`
		Failed      uint64        `json:"failed"`
		Resumed     bool          `json:"resumed"`
		Seconds     float64       `json:"seconds"`
		Problems    []problemLine `json:"problems"`
		Unlisted    []string      `json:"unlisted"` // directories of which the backup does not know the whole content
		Warnings    []warning     `json:"warnings"`
		Actions     []actionLine  `json:"actions,omitempty"`
	}{
		r.Snapshot, r.DryRun, r.Result.Files, r.Result.Directories, r.Result.Others, r.Result.Bytes, r.Result.Unchanged,
		r.Result.Created, r.Result.Updated, r.Result.Metadata, r.Result.Deleted, r.Result.Written, r.Result.Reused,
		r.Result.Failed, r.Result.Resumed, r.Seconds,
		[]problemLine{},
		[]string{},
		[]warning{},
		r.Actions,
	}
	for _, p := range r.Result.Problems {
		doc.Problems = append(doc.Problems, problemLine{Path: p.Path, Target: r.place(p.Path), Operation: p.Operation, Error: p.Err.Error()})
	}
	for _, path := range r.Unlisted {
		doc.Unlisted = append(doc.Unlisted, printable(path))
	}
	for _, w := range r.Result.Warnings {
		one := warning{Kind: w.Kind, Count: w.Count, Path: w.Path}
		if w.Err != nil {
			one.Error = w.Err.Error()
		}
		doc.Warnings = append(doc.Warnings, one)
	}
	return doc
}

func (r restoreResult) write(w io.Writer) {
	r.writeProblems(w)
	done := "restored"
	switch {
	case r.DryRun:
		done = "would be restored; nothing was changed"
	case r.Result.Failed > 0:
		done = "restored, INCOMPLETE: " + count(r.Result.Failed, "thing", "things") + " could not be"
	case len(r.Unlisted) > 0:
		done = "restored, INCOMPLETE: what was in " + count(uint64(len(r.Unlisted)), "directory", "directories") + " is not known"
	}
	fmt.Fprintf(w, "%s %s: %s, %s in %s\n", r.name, done, count(r.Result.Files, "file", "files"), size(r.Result.Bytes),
		duration(time.Duration(r.Seconds*float64(time.Second))))
	fmt.Fprintf(w, "  %d new, %d changed, %d only metadata, %d as they were", r.Result.Created, r.Result.Updated, r.Result.Metadata, r.Result.Unchanged)
	if r.Result.Deleted > 0 {
		fmt.Fprintf(w, ", %d removed", r.Result.Deleted)
	}
	fmt.Fprintf(w, "; %s written\n", size(r.Result.Written))
}

func (r restoreResult) writeProblems(w io.Writer) {
	for i, p := range r.Result.Problems {
		if i == shownProblems {
			fmt.Fprintf(w, "… and %s\n", count(r.Result.Failed-uint64(i), "more problem", "more problems"))
			break
		}
		fmt.Fprintf(w, "%s: %s: %s", p.Operation, printable(p.Path), printable(p.Err.Error()))
		if at := r.place(p.Path); at != p.Path {
			fmt.Fprintf(w, " (to %s)", printable(at))
		}
		fmt.Fprintln(w)
	}
	if slices.ContainsFunc(r.Result.Problems, func(p restorer.Problem) bool {
		var damage *repository.DamageError
		return errors.As(p.Err, &damage)
	}) {
		fmt.Fprintln(w, "what is damaged here may be whole in a copy: --also REPOSITORY reads it from there, `holdfast repair --from REPOSITORY` puts it back")
	}
	for i, path := range r.Unlisted {
		if i == shownProblems {
			fmt.Fprintf(w, "… and %s\n", count(uint64(len(r.Unlisted)-i), "more directory", "more directories"))
			break
		}
		fmt.Fprintf(w, "warning: the backup could not list %s: what it does not have of it is missing\n", printable(path))
	}
	for _, warn := range r.Result.Warnings {
		fmt.Fprintf(w, "warning: %s: %s, the first is %s\n", warn.Kind, count(warn.Count, "case", "cases"), printable(warn.Path))
	}
}
