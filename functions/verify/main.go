// Command verify is the function that checks what is in the repository: each new snapshot when its manifest arrives
// (level structure), and all bytes of all sources in turn (level bytes). It needs no key that opens anything.
//
// Its queue brings the events that S3 sends for new manifests, and ranges of the packs of large sources, which it asks
// itself for; its schedule brings ticks. In the region of the replica there is another of it, which reads that.
package main

import (
	"os"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	err := invoke.Start("verify", func() (invoke.Handler, error) {
		var env environment.Verify
		if err := environment.Load(os.Getenv, &env); err != nil {
			return nil, err
		}
		cloud, err := invoke.Open(env.Cloud)
		if err != nil {
			return nil, err
		}
		return newFunction(env, cloudBackend{cloud, env.Copy != ""}, cloud.State, newQueue(cloud.Config, env.Queue)).handle, nil
	})
	if err != nil {
		os.Exit(1)
	}
}
