// Command app is an application with an SQLite database: see package writer.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/btcdecoded/holdfast/test/writer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1) //nolint:forbidigo // the end of a program
	}
}

func run(ctx context.Context, args []string, out, problems io.Writer) error {
	c := writer.Config{Shape: writer.DefaultShape()}
	f := flag.NewFlagSet("app", flag.ContinueOnError)
	f.SetOutput(problems)
	f.StringVar(&c.Path, "db", "", "the database `FILE`")
	f.StringVar(&c.Notes, "notes", "", "`FILE` for the acknowledged commits")
	f.Float64Var(&c.Rate, "rate", 0, "transactions a second; 0: as many as there can be")
	f.IntVar(&c.Commits, "commits", 0, "end after so many; 0: no limit")
	f.DurationVar(&c.For, "for", 0, "end after this time; 0: no limit")
	f.BoolVar(&c.Hold, "hold", false, "keep the database open after that, until a signal comes")
	f.StringVar(&c.Checkpoint, "checkpoint", writer.Auto, "auto, none, passive, full, restart or truncate")
	f.IntVar(&c.Every, "every", 500, "commits between checkpoints")
	f.IntVar(&c.Payload, "payload", c.Payload, "bytes of a row")
	f.IntVar(&c.Cells, "cells", c.Cells, "rows that are updated in turns")
	f.IntVar(&c.Bulk, "bulk", c.Bulk, "each so-manieth transaction is large; 0: none")
	f.IntVar(&c.Width, "width", c.Width, "cells that a large transaction updates")
	f.IntVar(&c.PageSize, "page", 0, "page size of a new database in bytes")
	f.StringVar(&c.Journal, "journal", "wal", "journal mode")
	f.StringVar(&c.Synchronous, "synchronous", "normal", "PRAGMA synchronous")
	f.DurationVar(&c.Busy, "busy", 5*time.Second, "PRAGMA busy_timeout")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || c.Path == "" {
		return errors.New("want -db and only flags")
	}
	r, err := writer.Run(ctx, c)
	if jerr := json.NewEncoder(out).Encode(r); jerr != nil {
		return errors.Join(err, jerr)
	}
	return err
}
