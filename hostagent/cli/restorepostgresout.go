package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
)

// clusterRestored is what a restore of a cluster did, or with --dry-run would do.
type clusterRestored struct {
	*clusterRestore
	*postgres.Result

	Target  string
	Seconds float64
}

// bytes is how much the base has; 0: nothing was restored.
func (r *clusterRestored) bytes() uint64 {
	if r.Result == nil {
		return 0
	}
	return r.Result.Bytes
}

// document is the result for programs. Members that a restore of another kind has too mean the same.
func (r *clusterRestored) document() any {
	doc := struct {
		Snapshot    string                `json:"snapshot"` // the base
		DryRun      bool                  `json:"dry_run"`
		InPlace     bool                  `json:"in_place"`
		Target      string                `json:"target"`
		Point       string                `json:"point"` // what was wanted
		Reason      string                `json:"reason"`
		Reached     time.Time             `json:"reached"`                // the state's time; with another target than a time that of its last transaction
		LSN         string                `json:"lsn,omitempty"`          // replayed
		Timeline    uint32                `json:"timeline"`               // that was recovered
		NewTimeline uint32                `json:"new_timeline,omitempty"` // of the restored cluster
		Words       string                `json:"server,omitempty"`       // why it stopped there, as the server says
		Files       uint64                `json:"files"`
		Bytes       uint64                `json:"bytes"`
		Written     uint64                `json:"written_bytes"`
		WAL         uint64                `json:"wal_bytes"`
		Failed      uint64                `json:"failed"`
		Seconds     float64               `json:"seconds"`
		Steps       []stepLine            `json:"steps"`
		Checks      []stepLine            `json:"checks"` // all have passed
		Tablespaces []postgres.Tablespace `json:"tablespaces"`
		Socket      string                `json:"socket,omitempty"` // directory of the server that was left paused
		Port        string                `json:"port,omitempty"`
		Safety      string                `json:"safety,omitempty"`
		Problems    []problemLine         `json:"problems"`
		Warnings    []string              `json:"warnings"`
	}{
		Snapshot: r.moment.base.ID().String(), DryRun: r.flags.dryRun, InPlace: r.flags.inPlace, Target: r.Target, Point: r.want.target.String(),
		Reason: r.moment.chosen.Reason, Reached: r.moment.chosen.Reached.UTC(), Timeline: r.moment.timelineOf(), Seconds: r.Seconds,
		Bytes: r.moment.base.Counts.Bytes, Files: r.moment.base.Counts.Files, Steps: []stepLine{}, Checks: checkLines(r.report), Tablespaces: []postgres.Tablespace{}, Problems: []problemLine{},
		Warnings: append([]string{}, r.moment.chosen.Warnings...),
	}
	if got := r.Result; got != nil {
		doc.Target, doc.Files, doc.Bytes, doc.Written, doc.WAL = got.Path, got.Files, got.Bytes, got.Written, got.WAL
		doc.LSN, doc.Timeline, doc.NewTimeline, doc.Words = got.Reached.LSN.String(), got.Reached.Timeline, got.Reached.Now, got.Reached.Words
		doc.Reached = r.reached()
		doc.Steps, doc.Safety = stepLines(got.Steps), got.Safety
		doc.Tablespaces = append(doc.Tablespaces, got.Tablespaces...)
		doc.Warnings = append(doc.Warnings, got.Warnings...)
		if got.Socket != "" {
			doc.Socket, doc.Port = got.Socket, pgserver.Port
		}
	}
	return doc
}

// reached is the time whose state the cluster has.
func (r *clusterRestored) reached() time.Time {
	switch {
	case r.want.target.Kind == postgres.Time || r.want.target.Kind == postgres.Latest:
		return r.moment.chosen.Reached.UTC()
	case !r.Result.Reached.Time.IsZero():
		return r.Result.Reached.Time.UTC()
	}
	return r.moment.base.Finished.UTC()
}

func (a *app) printCluster(r clusterRestored) error {
	if r.Result != nil {
		a.warnings(r.Settled, r.Warnings)
	}
	return a.print(r.document(), func(w io.Writer) { r.write(a, w) })
}

func (r *clusterRestored) write(a *app, w io.Writer) {
	name := a.name(r.moment.base.ID())
	if r.flags.dryRun {
		fmt.Fprintf(w, "%s would be restored to %s, to %s; nothing was changed\n  %s\n", name, printable(r.Target), printable(r.want.target.String()), r.moment.chosen.Reason)
		return
	}
	fmt.Fprintf(w, "%s restored to %s: %s, LSN %s, the state of %s, %s in %s\n", r.moment.src.Name, printable(r.Path), printable(r.want.target.String()),
		r.Result.Reached.LSN, exact(r.reached()), size(r.Bytes), duration(secondsOf(r.Seconds)))
	fmt.Fprintf(w, "  from %s", name)
	if r.WAL > 0 {
		fmt.Fprintf(w, " and %s of the log", size(r.WAL))
	}
	fmt.Fprintf(w, "; %s\n", printable(r.Result.Reached.Words))
	if r.Result.Reached.Now > 0 {
		fmt.Fprintf(w, "  timeline %d, which goes on from timeline %d\n", r.Result.Reached.Now, r.Result.Reached.Timeline)
	}
	fmt.Fprintf(w, "  %s\n", stepText(r.Steps))
	if r.report == nil {
		fmt.Fprintln(w, "  no queries of a policy to ask; --checks amcheck looks through tables and indexes, `holdfast verify "+r.moment.src.Name+" --level restore` tries it beside")
	} else {
		fmt.Fprintf(w, "  passed %s\n", checkText(r.report))
	}
	for _, s := range r.Tablespaces {
		if s.From != s.Place {
			fmt.Fprintf(w, "  the tablespace of %s is in %s\n", printable(s.From), printable(s.Place))
			if r.flags.inPlace && r.Safety != "" {
				fmt.Fprintf(w, "  what is in %s belongs to what was there before\n", printable(s.From))
			}
		}
	}
	switch {
	case r.Socket != "":
		fmt.Fprintf(w, "  the server is paused there and may be read: psql -h %s -p %s -U %s postgres\n", printable(r.Socket), pgserver.Port, printable(r.Superuser))
		fmt.Fprintln(w, "  `SELECT pg_promote()` ends the recovery at this point; stop it by `pg_ctl stop -D` of the directory, then remove that, to give it up")
		fmt.Fprintln(w, "  whoever keeps it removes holdfast.recovery in it, and what the restore has added at the end of postgresql.auto.conf: archive_mode is off there")
	case r.flags.inPlace && r.Safety != "":
		fmt.Fprintf(w, "  what was there before is in %s; remove it when it is not needed any more\n", printable(r.Safety))
	case !r.flags.inPlace:
		fmt.Fprintln(w, "  the server is stopped; start it on that directory where you want it")
	}
}
