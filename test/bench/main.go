package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

// allDays is what three months have.
const allDays = 90

// followTime is how long each application is followed, so that one of a thousand of its transactions means something.
const followTime = 10 * time.Minute

// options are the flags.
type options struct {
	dir                              string
	size                             int64 // 0: the mode's own
	rounds                           int   // 0: the mode's own
	days                             int   // of -months
	seed                             uint64
	cpus                             int
	publish                          bool
	only                             string
	program                          string // Holdfast; "": built from the checkout
	files                            []int
	flat                             []int
	sparse                           []int64
	latency                          time.Duration
	time                             time.Duration // of each run of -sqlite
	rate                             float64
	scale, chain, s3, months, render bool
	sqlite, postgres                 bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == measureFlag {
		exit(launch(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1) //nolint:forbidigo // the end of a program
	}
	os.Exit(0) //nolint:forbidigo // as above
}

// parse reads the flags.
func parse(args []string, errors io.Writer) (options, error) {
	o := options{}
	var bytes, files, flat, sparse string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errors)
	f.StringVar(&o.dir, "dir", "/var/tmp/holdfast-bench", "where to work; needs 15 times the size of the corpus")
	f.StringVar(&bytes, "size", "", "about how many bytes the corpus has (default 2500MB, with -chain 250MB, with -months 100MB)")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each step; one number for all (default 5, and 10 for steps under 5 s; with -scale 3, with -months 1)")
	f.Uint64Var(&o.seed, "seed", 1, "of the corpus, the changes and the bootstrap")
	f.IntVar(&o.cpus, "cpus", 2, "CPUs that each tool may use; 0: all")
	f.BoolVar(&o.publish, "publish", false, "write docs/performance.md also after a trial (with -size or -rounds)")
	f.StringVar(&o.program, "holdfast", "", "measure this holdfast instead of the checkout's (never published)")
	f.StringVar(&o.only, "tools", "", "only these, such as holdfast,restic (never published)")
	f.BoolVar(&o.scale, "scale", false, "measure memory and time as files and data grow")
	f.StringVar(&files, "files", "10000,100000,1000000", "with -scale: numbers of small files")
	f.StringVar(&flat, "flat", "200000", "with -scale: numbers of small files in one directory")
	f.StringVar(&sparse, "sparse", "2500MB,25GB", "with -scale: sizes of trees of large sparse files")
	f.BoolVar(&o.chain, "chain", false, "measure restores after one and after 101 incrementals")
	f.BoolVar(&o.s3, "s3", false, "measure an S3 server that is far away")
	f.DurationVar(&o.latency, "latency", 25*time.Millisecond, "with -s3: added to each round trip")
	f.BoolVar(&o.sqlite, "sqlite", false, "measure how databases are followed, beside litestream")
	f.BoolVar(&o.postgres, "postgres", false, "measure base backups of PostgreSQL, beside pg_basebackup and, if it is installed, pgbackrest; -size 1700MB")
	f.DurationVar(&o.time, "time", followTime, "with -sqlite: of each run")
	f.Float64Var(&o.rate, "rate", 500, "with -sqlite: transactions a second")
	f.BoolVar(&o.months, "months", false, "measure 90 days of changes with retention")
	f.IntVar(&o.days, "days", allDays, "with -months: how many")
	f.BoolVar(&o.render, "render", false, "write the documents again from results.json")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q: want only flags", f.Arg(0))
	}
	err := o.numbers(bytes, files, flat, sparse)
	return o, err
}

func (o *options) numbers(bytes, files, flat, sparse string) error {
	if bytes != "" {
		n, err := humanize.ParseBytes(bytes)
		if err != nil || n == 0 || n > 1<<50 {
			return fmt.Errorf("-size %q: want a size such as 60MB", bytes)
		}
		o.size = int64(n)
	}
	var err error
	if o.files, err = counts("-files", files); err != nil {
		return err
	}
	if o.flat, err = counts("-flat", flat); err != nil {
		return err
	}
	for s := range strings.SplitSeq(sparse, ",") {
		if s == "" {
			continue
		}
		n, err := humanize.ParseBytes(s)
		if err != nil || n > 1<<50 {
			return fmt.Errorf("-sparse %q: want sizes such as 2500MB,25GB", sparse)
		}
		o.sparse = append(o.sparse, int64(n))
	}
	return nil
}

// counts parses a list of numbers of files.
func counts(flag, list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%s %q: want numbers such as 10000,100000", flag, list)
		}
		out = append(out, n)
	}
	return out, nil
}

// trial reports whether the run is less than what the document promises.
func (o *options) trial() bool {
	return o.size != 0 || o.rounds != 0 || o.days != allDays || o.time != followTime || o.never()
}

// never reports whether what is measured is not what the document speaks of.
func (o *options) never() bool { return o.only != "" || o.program != "" }

// start runs the mode that the flags ask for, and writes down what it measured.
func start(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	b, err := newBench(o, progress)
	if err != nil {
		return err
	}
	if o.render {
		return b.renderAll()
	}
	mode := b.compare
	switch {
	case o.scale:
		mode = b.scales
	case o.chain:
		mode = b.chains
	case o.s3:
		mode = b.s3s
	case o.months:
		mode = b.monthly
	case o.sqlite:
		mode = b.followers
	case o.postgres:
		mode = b.clusters
	}
	r, err := mode(ctx)
	if err != nil {
		return err
	}
	r.Time, r.Seed = time.Now().UTC().Truncate(time.Second), o.seed
	fmt.Fprintln(out, r.markdown())
	return b.write(r)
}

func newBench(o options, progress io.Writer) (*bench, error) {
	if runtime.GOOS != "linux" {
		return nil, errors.New("start: this measures on Linux only")
	}
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil { //nolint:gosec // the database server's user passes through
		return nil, err
	}
	log := func(format string, args ...any) {
		fmt.Fprintf(progress, time.Now().UTC().Format(time.TimeOnly)+" "+format+"\n", args...)
	}
	return &bench{options: o, root: root, launcher: &launcher{self: self, dir: o.dir, cpus: o.cpus}, log: log}, nil
}

// compare is the mode without a name: all tools, all steps.
func (b *bench) compare(ctx context.Context) (*report, error) {
	tools, err := b.install(ctx)
	if err != nil {
		return nil, err
	}
	c := &corpus{dir: filepath.Join(b.dir, "corpus"), log: b.log, spec: corpusSpec{
		Format: corpusFormat, Size: b.sizeOr(2500e6), Seed: b.seed, Server: true,
	}}
	facts, err := c.build(ctx)
	if err != nil {
		return nil, err
	}
	r := b.newReport("compare", tools)
	r.Corpus = facts
	if err := b.tidy(); err != nil { // what a run that was interrupted left
		return nil, err
	}
	s := &stage{bench: b, tools: tools, tree: c.tree(), report: r}
	rounds, short := 5, 10
	if b.rounds > 0 {
		rounds, short = b.rounds, b.rounds
	}
	for _, step := range []string{stepFull, stepUnchanged, stepDay2, stepVerify, stepRestore} {
		if step == stepDay2 {
			if r.Corpus.Day2, err = c.day(ctx, 1, updatedPart, true); err != nil {
				return nil, err
			}
		}
		if err := s.step(ctx, step, rounds, short); err != nil {
			return nil, err
		}
	}
	return r, b.tidy()
}

func (b *bench) sizeOr(n int64) int64 {
	if b.size > 0 {
		return b.size
	}
	return n
}

// tidy removes what a mode leaves, except for the corpus, which the next run uses again.
func (b *bench) tidy() error {
	all := b.remove(filepath.Join(b.dir, "out"))
	for _, d := range []string{"work", "saved", "output.log", "usage.json"} {
		all = errors.Join(all, os.RemoveAll(filepath.Join(b.dir, d)))
	}
	return all
}

// install makes all tools ready, Holdfast first.
func (b *bench) install(ctx context.Context) ([]*tool, error) {
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	cache := filepath.Join(b.root, ".cache", "peers")
	wanted := func(name string) bool { return b.only == "" || strings.Contains(","+b.only+",", ","+name+",") }
	tools := []*tool{own}
	for _, p := range []struct {
		name, module, pkg string
		make              func(path, version string) *tool
	}{
		{toolRestic, resticModule, resticPackage, resticTool}, {toolKopia, kopiaModule, kopiaPackage, kopiaTool}, {toolBorg, "", "", borgTool},
	} {
		if !wanted(p.name) {
			continue
		}
		path, version := filepath.Join(cache, p.name), ""
		if p.module == "" {
			path, version, err = installBorg(ctx, b.log)
		} else {
			version, err = install(ctx, path, p.module, p.pkg, b.log)
		}
		if err != nil {
			return nil, err
		}
		tools = append(tools, p.make(path, version))
	}
	if wanted(toolFloor) {
		tools = append(tools, floorTool())
	}
	return tools, nil
}

func (b *bench) holdfast(ctx context.Context) (*tool, error) {
	if b.program != "" {
		path, err := filepath.Abs(b.program)
		if err != nil {
			return nil, err
		}
		version, err := call(path, "version").run(ctx)
		version, _, _ = strings.Cut(strings.TrimPrefix(version, "holdfast "), "\n")
		return holdfastTool(path, version), err
	}
	path, version, err := buildHoldfast(ctx, b.root, filepath.Join(b.root, ".cache", "peers"))
	if err != nil {
		return nil, err
	}
	return holdfastTool(path, version), nil
}
