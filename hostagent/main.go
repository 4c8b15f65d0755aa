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
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // under nohup it goes on when the terminal is closed
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	go func() {
		<-ctx.Done()
		stop() // the second signal kills
	}()
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, version))
}
