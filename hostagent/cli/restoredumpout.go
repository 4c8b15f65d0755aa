package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/dump"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// dumpRestored is what a restore of dumps did, or with DryRun would do.
type dumpRestored struct {
	*dump.Result

	Planned  []dump.Restored
	Moment   time.Time
	Roles    []string // that were made
	DryRun   bool
	InPlace  bool
	Seconds  float64
	Expected uint64 // bytes of the dumps
	Cluster  bool   // out of a base backup and its log
	name     string
	id       snapshot.ID
}

// bytes is how much was restored.
func (r *dumpRestored) bytes() uint64 {
	if r.Result == nil {
		return 0
	}
	return r.Result.Bytes
}

// document is the result for programs. Members that other restores have too mean the same.
func (r *dumpRestored) document() any {
	type line struct {
		Database string `json:"database"` // where it was dumped
		Target   string `json:"target"`   // what it is called now
		Safety   string `json:"safety,omitempty"`
	}
	doc := struct {
		Snapshot  string        `json:"snapshot"`
		DryRun    bool          `json:"dry_run"`
		InPlace   bool          `json:"in_place"`
		Reached   time.Time     `json:"reached"` // the moment of the first dump
		Databases []line        `json:"databases"`
		Roles     []string      `json:"roles"` // that were made
		Files     uint64        `json:"files"` // databases
		Bytes     uint64        `json:"bytes"`
		Written   uint64        `json:"written_bytes"`
		Failed    uint64        `json:"failed"`
		Seconds   float64       `json:"seconds"`
		Steps     []stepLine    `json:"steps"`
		Dropped   []string      `json:"dropped"` // what a restore had left that did not come to its end
		Problems  []problemLine `json:"problems"`
		Warnings  []string      `json:"warnings"`
	}{
		Snapshot: r.id.String(), DryRun: r.DryRun, InPlace: r.InPlace, Reached: r.Moment.UTC(), Databases: []line{}, Roles: append([]string{}, r.Roles...),
		Bytes: r.Expected, Seconds: r.Seconds, Steps: []stepLine{}, Dropped: []string{}, Problems: []problemLine{}, Warnings: []string{},
	}
	list := r.Planned
	if r.Result != nil {
		doc.Files, doc.Written = uint64(len(r.Databases)), r.Expected
		list = r.Databases
		doc.Steps = stepLines(r.Steps)
		doc.Dropped = append(doc.Dropped, r.Dropped...)
		doc.Warnings = append(doc.Warnings, r.Warnings...)
	}
	for _, d := range list {
		doc.Databases = append(doc.Databases, line{d.Database, d.Name, d.Safety})
	}
	return doc
}

func (a *app) printDumps(r dumpRestored) error {
	if r.Result != nil {
		for _, name := range r.Dropped {
			a.warn("database %s, left by a restore that did not come to its end, was dropped", name)
		}
		a.warnings("", r.Warnings)
	}
	return a.print(r.document(), func(w io.Writer) {
		if r.DryRun {
			for _, d := range r.Planned {
				fmt.Fprintf(w, "%s: database %s would be restored to %s, as of %s; nothing was changed\n", r.name, printable(d.Database), printable(d.Name), exact(r.Moment))
			}
			return
		}
		for _, name := range r.Roles {
			fmt.Fprintf(w, "role %s was made\n", printable(name))
		}
		for _, d := range r.Databases {
			what := "dump"
			if r.Cluster {
				what = "state"
			}
			fmt.Fprintf(w, "database %s restored to %s: the %s of %s\n", printable(d.Database), printable(d.Name), what, exact(r.Moment))
			if d.Safety != "" {
				fmt.Fprintf(w, "  what was there before is database %s; drop it when it is not needed any more\n", printable(d.Safety))
			}
		}
		fmt.Fprintf(w, "  from %s: %s in %s (%s)\n", r.name, size(r.Expected), duration(secondsOf(r.Seconds)), stepText(r.Steps))
	})
}
