// Command restore is the function by which people restore over the queue: plan, request, approve, status, cancel. It
// carries requests and signatures; whether anything runs is decided by the agent on the host, from the signatures alone.
package main

import (
	"os"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
	"github.com/btcdecoded/holdfast/functions/queue"
)

func main() {
	err := invoke.Start("restore", func() (invoke.Handler, error) {
		var env environment.Restore
		if err := environment.Load(os.Getenv, &env); err != nil {
			return nil, err
		}
		c, err := invoke.Open(env.Cloud)
		if err != nil {
			return nil, err
		}
		return (&function{cloud: c, state: c.State, queues: sqsQueues{queue.New(c.Config, env.QueueBase)}, now: time.Now}).handle, nil
	})
	if err != nil {
		os.Exit(1)
	}
}
