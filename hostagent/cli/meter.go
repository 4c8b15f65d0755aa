package cli

import (
	"github.com/btcdecoded/holdfast/hostagent/progress"
	"github.com/btcdecoded/holdfast/shared/snapshot"
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

// readMeter returns what tells a meter that so many bytes of all were read by now, of a source.
func readMeter(meter *progress.Meter) func(src snapshot.Source, read, all int64) {
	before := uint64(0)
	return func(src snapshot.Source, read, all int64) {
		meter.Current(src.String())
		meter.Total(0, uint64(all))          //nolint:gosec // sizes
		meter.Add(0, uint64(read)-before, 0) //nolint:gosec // as above
		before = uint64(read)                //nolint:gosec // as above
	}
}
