// Command coordinate is the function that decides each minute which backups are due, puts jobs into the hosts' queues
// and follows them by what agents report.
//
// It is called by a schedule (a tick), and through its queue with ticks for a part of the hosts and with the agents'
// events. Everything may come twice, late or in another order: package control says why that does no harm.
package main

import (
	"os"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	if err := invoke.Start("coordinate", build); err != nil {
		os.Exit(1)
	}
}

func build() (invoke.Handler, error) {
	var env environment.Coordinate
	if err := environment.Load(os.Getenv, &env); err != nil {
		return nil, err
	}
	cloud, err := invoke.Open(env.Cloud)
	if err != nil {
		return nil, err
	}
	return newCoordinator(env, cloud).handle, nil
}
