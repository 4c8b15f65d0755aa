// Command monitor is the function that judges every source and host by the objectives of the policy, writes metrics,
// tells people what is not met, and draws the table of hosts of the dashboard. In the region of the replica it is the
// watchdog of the other one.
package main

import (
	"os"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	build := buildMonitor
	if os.Getenv(environment.ModeVariable) == environment.ModeWatchdog {
		build = buildWatchdog
	}
	if err := invoke.Start("monitor", build); err != nil {
		os.Exit(1)
	}
}
