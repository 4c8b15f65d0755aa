// Holdfast backs up and recovers hosts that run a stateful application. This is the agent and its command line in one
// binary; everything it does is in package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/btcdecoded/holdfast/hostagent/cli"
)

// version is set by the linker; see the Makefile.
var version = "dev"

func main() {
	if os.Getenv("GOGC") == "" {
		// Most memory is in long-lived buffers: a collection more often costs little and keeps the peak low.
		debug.SetGCPercent(40)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-ctx.Done()
		stop() // the second signal kills
	}()
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version))
}
