// Command lifecycle is the function that decides how long things stay: retention and removal in two phases, Object Lock
// that is extended for what stays, legal holds, and the same for the replica. It signs announcements and records of
// removals and can make neither a snapshot nor a mark.
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
		cloud, err := invoke.Open(env.Cloud)
		if err != nil {
			return nil, err
		}
		f, err := newFunction(env, cloudBackend{cloud, env.Replica}, cloud.State)
		if err != nil {
			return nil, err
		}
		return f.handle, nil
	})
	if err != nil {
		os.Exit(1)
	}
}
