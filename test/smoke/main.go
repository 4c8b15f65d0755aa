// Command smoke tries what no emulator can show against a real account of AWS: `make smoke-aws`. It makes a bucket of its
// own with Object Lock (GOVERNANCE, one day), checks conditional puts, checksums, locks, versions and tags with the store
// that Holdfast uses, then has the command line back up and restore. It says beforehand what it makes and what that costs,
// and removes everything at its end, or says what stays.
//
// It does nothing unless the environment has HOLDFAST_SMOKE=yes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.region, "region", "", "`REGION` of the bucket; default: that of the environment or the profile")
	flag.StringVar(&o.endpoint, "endpoint", "", "`URL` of another S3 server; default: AWS")
	flag.StringVar(&o.holdfast, "holdfast", "bin/holdfast", "the program to try")
	flag.BoolVar(&o.keep, "keep", false, "remove nothing at the end")
	flag.Parse()
	if os.Getenv("HOLDFAST_SMOKE") != "yes" {
		fmt.Fprintln(os.Stderr, "smoke: this makes a bucket in your account of AWS and costs about a cent; set HOLDFAST_SMOKE=yes to agree")
		os.Exit(2) //nolint:forbidigo // the end of a program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "smoke:", err)
		os.Exit(1) //nolint:forbidigo // as above
	}
}

// options say where and what to try.
type options struct {
	region, endpoint string
	holdfast         string // path of the program
	keep             bool
}

// run does everything in order. What was made is removed whatever happened in between.
func run(ctx context.Context, o options, w io.Writer) (err error) {
	b, err := newBucket(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, `This makes, in %s:
  bucket %s with versions and Object Lock (GOVERNANCE, one day), in it about 40 objects of 2 MiB together.
It makes some 300 requests and costs less than 0.01 US dollars. What it made it removes at the end, which takes the right
s3:BypassGovernanceRetention; without that the objects stay locked for one day.
`, b.where(), b.name)
	if err := b.make(ctx); err != nil {
		return err
	}
	fmt.Fprintln(w, "made the bucket")
	defer func() {
		if o.keep {
			fmt.Fprintf(w, "bucket %s stays, as asked\n", b.name)
			return
		}
		left, rerr := b.remove(context.WithoutCancel(ctx))
		if rerr != nil {
			fmt.Fprintf(w, "bucket %s STAYS, with %d versions in it, locked until a day from now at most. Then:\n"+
				"  aws s3api list-object-versions --bucket %[1]s; aws s3api delete-object --bucket %[1]s --key KEY --version-id ID; aws s3 rb s3://%[1]s\n", b.name, left)
			err = errors.Join(err, fmt.Errorf("remove bucket %s: %w", b.name, rerr))
			return
		}
		fmt.Fprintln(w, "removed the bucket and all that was in it")
	}()
	if err := b.checks(ctx, w); err != nil {
		return err
	}
	return b.backup(ctx, o.holdfast, w)
}
