package cli

import (
	"github.com/btcdecoded/holdfast/hostagent/progress"
)

// meter makes the meter of a long operation: a line on a terminal, lines elsewhere, JSON lines with --json; always on
// standard error.
func (a *app) meter() *progress.Meter {
	width, isTerminal := terminal(a.stdio.Err)
	mode := progress.Plain
	switch {
	case a.flags.quiet:
		mode = progress.Off
	case a.flags.json:
		mode = progress.JSON
	case isTerminal:
		mode = progress.Terminal
	}
	return progress.New(a.stdio.Err, mode, width, a.now)
}
