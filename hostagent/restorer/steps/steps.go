// Package steps is the course that restores of databases take: steps that are named and timed, and, in place, an application
// that is stopped while old and new change places. What the steps do is said by the packages that restore; where one of them
// fails, this package has the way back taken, and tells by a [Failure] what the user finds.
package steps

import "time"

// Names of steps that all restores have, as results and failures tell them.
const (
	Prepare = "prepare"
	Stop    = "stop hook"
	Start   = "start hook"
	Health  = "health check"
	Back    = "put back"
)

// Step is one step and how long it took.
type Step struct {
	Name string
	Took time.Duration
}

// Course notes the steps of one restore.
type Course struct {
	// Began is told which step begins; may be nil.
	Began func(step string)
	// Fault is asked before each step; an error stands for its failure. For tests; may be nil.
	Fault func(step string) error
	// Called has the names of steps that are called otherwise here.
	Called map[string]string

	At   string // the step that is under way, or was last
	Done []Step
}

// Do does one step and notes how long it took.
func (c *Course) Do(name string, do func() error) error {
	name = c.begin(name)
	began := time.Now()
	err := c.Faulty(name)
	if err == nil {
		err = do()
	}
	c.Done = append(c.Done, Step{name, time.Since(began)})
	return err
}

// begin notes that a step begins.
func (c *Course) begin(name string) string {
	if other := c.Called[name]; other != "" {
		name = other
	}
	c.At = name
	if c.Began != nil {
		c.Began(name)
	}
	return name
}

// Faulty is the fault of a test at a point.
func (c *Course) Faulty(point string) error {
	if c.Fault == nil {
		return nil
	}
	return c.Fault(point)
}
