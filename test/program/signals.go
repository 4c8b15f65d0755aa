package program

import (
	"os"
	"os/signal"
	"syscall"
)

// DefaultSignals has the programs that this process starts begin with no signal ignored. Whoever runs tests under nohup, or in
// the background of a script, has them ignored by the tests and by all that they start: a program that honours that does not
// end by a signal then. This process goes on to pass over them.
func DefaultSignals() {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s) // what is handled here has its default in a child
		}
	}
}
