package proof

import "time"

// Step is one thing that was checked.
type Step struct {
	Name    string
	Took    time.Duration
	Problem string   // empty: it passed. Never a text or value of the database: receipts hold it
	Details []string // what the database says of it, with names of tables and indexes; not for receipts
}

// Report is what a proof found.
type Report struct {
	Steps []Step
	// Notes are what could not be looked at, and is not wrong: amcheck that is not installed.
	Notes []string
}

// Passed reports whether all steps passed.
func (r *Report) Passed() bool { return len(r.Problems()) == 0 }

// Problems are those of all steps, each with the step's name in front.
func (r *Report) Problems() []string {
	var out []string
	for _, s := range r.Steps {
		if s.Problem != "" {
			out = append(out, s.Name+": "+s.Problem)
		}
	}
	return out
}
