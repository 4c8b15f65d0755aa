package steps

import (
	"fmt"
	"time"
)

// Failure says which step ended a restore, and what became of the place.
type Failure struct {
	Step string
	Path string // of the place
	Err  error
	// Words are the last ones of a server that is what failed; empty: none.
	Words string
	// Good is the state up to which the log was good, where the log is what failed; zero: not known.
	Good   time.Time
	Safety string // what was there before is here, and not in its place; empty: all is as it was
	Failed string // what was restored, and had to leave its place again, is here; empty: nothing did
	Back   error  // why what was there before could not be put back; nil: it was, or it never left
	Start  error  // why the application could not be started again; nil: it was, or it was never stopped
}

func (f *Failure) Error() string {
	text := fmt.Sprintf("restore %s: %s", f.Path, f.Cause())
	switch {
	case f.Back != nil:
		text += fmt.Sprintf("; what was there before could NOT be put back: %v; it is in %s", f.Back, f.Safety)
	case f.Failed != "":
		text += "; everything is as it was, and what had been restored is in " + f.Failed
	default:
		text += "; everything is as it was"
	}
	if f.Start != nil {
		text += fmt.Sprintf("; the application could NOT be started again: %v", f.Start)
	}
	return text
}

// Unwrap returns all that went wrong.
func (f *Failure) Unwrap() []error {
	out := []error{f.Err}
	for _, err := range []error{f.Back, f.Start} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// Cause is what failed, without the place and what became of it.
func (f *Failure) Cause() string {
	text := fmt.Sprintf("%s: %v", f.Step, f.Err)
	if f.Words != "" {
		text += "; the server said: " + f.Words
	}
	return text
}

// Failure is how the step that was last has ended a restore to path.
func (c *Course) Failure(path string, err error) *Failure {
	return &Failure{Step: c.At, Path: path, Err: err}
}
