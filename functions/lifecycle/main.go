// Command lifecycle is the function that decides how long things stay: retention and removal in two phases, Object Lock
// that is extended for what stays, legal holds. It signs announcements and records of removals and can make neither a
// snapshot nor a mark.
//
// In the region of the replica the same program does the same for the replica, under a role of that region that may read
// the documents of the primary and change nothing there, and compares the two.
//
// Its schedule brings ticks; a person may call it with an order: `{"dry_run": true, "sources": ["host/source"]}`, or, to
// agree to a removal that is too large to go by itself, `{"sources": [...], "confirm": {"host/source": "PLAN"}}`.
package main

import (
	"os"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	err := invoke.Start("lifecycle", func() (invoke.Handler, error) {
		var env environment.Lifecycle
		if err := environment.Load(os.Getenv, &env); err != nil {
			return nil, err
		}
		b, err := newBackend(env)
		if err != nil {
			return nil, err
		}
		f, err := newFunction(env, b, b.State, b.freezes(), newQueue(b.Config, env.Queue))
		if err != nil {
			return nil, err
		}
		return f.handle, nil
	})
	if err != nil {
		os.Exit(1)
	}
}
