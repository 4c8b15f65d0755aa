package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/proof"
	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
)

// settle finishes or takes back what a restore in place of the same database left that was killed, before anything else:
// also where the repository is out of reach, the application gets its database back.
func (a *app) settle(f restoreFlags, arg string) error {
	if !f.inPlace || f.dryRun {
		return nil
	}
	sel, err := selector(arg)
	if err != nil {
		return err
	}
	p, err := a.loadPolicy()
	if err != nil || p == nil {
		return err
	}
	own, err := a.host()
	if err != nil || sel.Host != "" && sel.Host != own {
		return err
	}
	s, err := p.Lookup(own, sel.Name)
	if err != nil || s.SQLite == nil || s.SQLite.Path == "" {
		return nil //nolint:nilerr // another source; the restore says what it makes of that
	}
	text, err := sqlite.Recover(s.SQLite.Path, sqlite.Options{Now: a.now})
	if err != nil {
		return hinted{err, "look at what is there: nothing was touched that is not of that restore"}
	}
	if text != "" {
		a.warn("%s", text)
	}
	return nil
}

// databaseRestored is what a restore of a database did, or with DryRun would do.
type databaseRestored struct {
	*sqlite.Result

	moment   *moment
	report   *proof.Report // nil: nothing was checked
	Target   string
	DryRun   bool
	InPlace  bool
	Seconds  float64
	name     string
	expected uint64 // size of the base
}

// bytes is how large the restored database is; 0: none was restored.
func (r *databaseRestored) bytes() uint64 {
	if r.Result == nil {
		return 0
	}
	return r.Result.Bytes
}

// document is the result for programs. Members that a restore of files has too mean the same.
func (r *databaseRestored) document() any {
	doc := struct {
		Snapshot string        `json:"snapshot"` // the base
		DryRun   bool          `json:"dry_run"`
		InPlace  bool          `json:"in_place"`
		Target   string        `json:"target"`
		Reason   string        `json:"reason"`
		Reached  time.Time     `json:"reached"` // the state: of the newest commit in it
		Records  int           `json:"records"` // of the log, on top of the snapshot
		Files    uint64        `json:"files"`
		Bytes    uint64        `json:"bytes"`
		Written  uint64        `json:"written_bytes"`
		Failed   uint64        `json:"failed"`
		Seconds  float64       `json:"seconds"`
		Steps    []stepLine    `json:"steps"`
		Checks   []stepLine    `json:"checks"` // all have passed
		Safety   string        `json:"safety,omitempty"`
		Problems []problemLine `json:"problems"`
		Warnings []string      `json:"warnings"`
	}{
		Snapshot: r.moment.base.ID().String(), DryRun: r.DryRun, InPlace: r.InPlace, Target: r.Target, Reason: r.moment.chosen.Reason,
		Reached: r.moment.chosen.Reached.UTC(), Seconds: r.Seconds, Files: 1, Bytes: r.expected, Steps: []stepLine{}, Checks: checkLines(r.report),
		Problems: []problemLine{}, Warnings: append([]string{}, r.moment.chosen.Warnings...),
	}
	if got := r.Result; got != nil {
		doc.Target, doc.Reached, doc.Records, doc.Bytes, doc.Written = got.Path, got.Reached.UTC(), got.Records, got.Bytes, got.Written
		doc.Steps, doc.Safety = stepLines(got.Steps), got.Safety
		doc.Warnings = append(doc.Warnings, got.Warnings...)
		if r.report != nil {
			doc.Warnings = append(doc.Warnings, r.report.Notes...)
		}
	}
	return doc
}

func (a *app) printDatabase(r databaseRestored) error {
	if r.Result != nil {
		a.warnings(r.Settled, r.Warnings)
		if r.report != nil {
			a.warnings("", r.report.Notes)
		}
	}
	return a.print(r.document(), func(w io.Writer) {
		if r.DryRun {
			fmt.Fprintf(w, "%s would be restored to %s; nothing was changed\n  %s\n", r.name, printable(r.Target), r.moment.chosen.Reason)
			return
		}
		fmt.Fprintf(w, "%s restored to %s: the state of %s, %s in %s\n", r.moment.src.Name, printable(r.Path), exact(r.Reached), size(r.Bytes),
			duration(secondsOf(r.Seconds)))
		fmt.Fprintf(w, "  from %s", r.name)
		if r.Records > 0 {
			fmt.Fprintf(w, " and %s of the log", count(uint64(r.Records), "record", "records"))
		}
		fmt.Fprintf(w, "; %s written\n", size(r.Written))
		if r.report == nil {
			fmt.Fprintln(w, "  not checked")
		} else {
			fmt.Fprintf(w, "  passed %s\n", checkText(r.report))
		}
		if r.Safety != "" {
			fmt.Fprintf(w, "  what was there before is in %s; remove it when it is not needed any more\n", printable(r.Safety))
		}
	})
}
