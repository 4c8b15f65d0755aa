package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/program"
	"github.com/btcdecoded/holdfast/test/writer"
)

// follow is one run of an application whose database somebody follows.
type follow struct {
	Tool     string        `json:"tool"` // "": nobody
	Where    string        `json:"where"`
	Interval time.Duration `json:"interval_ns"` // 0: the tool's default
	Rate     float64       `json:"rate"`        // transactions a second, wanted

	Lag      writer.Times     `json:"lag"`  // until a commit was in the store, in milliseconds
	Lost     int              `json:"lost"` // commits that never were
	CPU      float64          `json:"cpu_s"`
	RSS      int64            `json:"rss_bytes"`
	Requests map[string]int64 `json:"requests"`
	Added    int64            `json:"added_bytes"`
	Writer   writer.Report    `json:"writer"`
}

const nobody = ""

// followers measures how long it takes until what an application commits is in an S3 server, and what that costs the
// application.
func (b *bench) followers(ctx context.Context) (*report, error) {
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	peer := filepath.Join(b.root, ".cache", "peers", toolLitestream)
	version, err := install(ctx, peer, litestreamModule, litestreamPackage, b.log)
	if err != nil {
		return nil, err
	}
	if err := b.tidy(); err != nil {
		return nil, err
	}
	r := b.newReport("sqlite", []*tool{own})
	r.Versions[toolLitestream] = version
	r.Notes = append(r.Notes,
		fmt.Sprintf("an application commits %.0f transactions a second for %s, SQLite checkpoints by itself (every 1,000 pages); the server is versitygw on the same CPUs", b.rate, b.time),
		"lag: from the return of COMMIT in the application until the record is acknowledged by the server (Holdfast), or the file has its time there (litestream, whose pages are read for the newest transaction)",
		"CPU and memory are those of the follower's process; memory is that of the process at most")
	home := filepath.Join(b.dir, "work")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	app, err := program.Application(home)
	if err != nil {
		return nil, err
	}
	h := &host{dir: filepath.Join(b.dir, "s3"), log: b.log}
	if err := errors.Join(os.RemoveAll(h.dir), os.Mkdir(h.dir, 0o700)); err != nil {
		return nil, err
	}
	defer h.close()
	server, err := startS3(h, "bench")
	if err != nil {
		return nil, err
	}
	f := &following{bench: b, server: server, app: app, home: home, programs: map[string]string{toolHoldfast: own.path, toolLitestream: peer}}
	for _, delay := range []time.Duration{0, b.latency} {
		for _, one := range []follow{
			{Tool: nobody},
			{Tool: toolHoldfast, Interval: 50 * time.Millisecond},
			{Tool: toolLitestream, Interval: 50 * time.Millisecond},
			{Tool: toolHoldfast, Interval: time.Second},
			{Tool: toolLitestream},
		} {
			if delay > 0 && one.Tool == nobody || b.only != "" && one.Tool != nobody && !strings.Contains(b.only, one.Tool) {
				continue
			}
			one.Where, one.Rate = "near", b.rate
			if delay > 0 {
				one.Where = fmt.Sprintf("%s away", delay)
			}
			if err := f.measure(ctx, &one, delay); err != nil {
				return nil, fmt.Errorf("%s, %s, %s: %w", one.Tool, one.Interval, one.Where, err)
			}
			r.Follows = append(r.Follows, one)
			b.log("%s", one)
		}
	}
	return r, errors.Join(os.RemoveAll(h.dir), b.tidy())
}

func (f follow) String() string {
	return fmt.Sprintf("%-10s %8s %-10s lag %6.0f %6.0f %6.0f %6.0f ms (p50, p99, p99.9, max), lost %d; CPU %5.2f s, %3.0f MB; writer %5.2f %5.2f %5.2f %6.2f ms; %v",
		f.Tool, f.Interval, f.Where, f.Lag.P50, f.Lag.P99, f.Lag.P999, f.Lag.Max, f.Lost, f.CPU, float64(f.RSS)/mega,
		f.Writer.Latency.P50, f.Writer.Latency.P99, f.Writer.Latency.P999, f.Writer.Latency.Max, f.Requests)
}

// following starts applications and those who follow them.
type following struct {
	*bench
	server   *bucket.S3
	app      string
	home     string
	programs map[string]string
	n        int
}

// measure is one run with a database and a place in the store of its own.
func (f *following) measure(ctx context.Context, one *follow, delay time.Duration) error {
	f.n++
	dir, prefix := filepath.Join(f.home, fmt.Sprint(f.n)), fmt.Sprintf("run-%d", f.n)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	far, err := startFar(strings.TrimPrefix(f.server.Endpoint, "http://"), delay)
	if err != nil {
		return err
	}
	defer far.close()
	db, notes := filepath.Join(dir, "app.db"), filepath.Join(dir, "notes")
	if _, err := call(f.app, "-db", db, "-commits", "1").run(ctx); err != nil {
		return err
	}
	var d *daemon
	switch one.Tool {
	case toolHoldfast:
		d, err = f.holdfastFollows(ctx, dir, db, "http://"+far.address(), prefix, one.Interval)
	case toolLitestream:
		d, err = f.litestreamFollows(dir, db, "http://"+far.address(), prefix, one.Interval)
	}
	if err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	var before float64
	if d != nil {
		defer d.kill()
		far.counted()
		if before, _, err = d.usage(); err != nil {
			return err
		}
	}
	out, err := call(f.app, "-db", db, "-notes", notes, "-rate", fmt.Sprint(one.Rate), "-for", f.time.String()).run(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), &one.Writer); err != nil {
		return err
	}
	if d == nil {
		return nil
	}
	if err := pause(ctx, settle); err != nil { // what is on its way arrives
		return err
	}
	one.Requests = far.counted()
	after, rss, err := d.usage()
	if err != nil {
		return err
	}
	one.CPU, one.RSS = after-before, rss
	if err := d.stop(); err != nil {
		return err
	}
	if one.Added, err = bytesBelow(filepath.Join(f.server.Dir, "bench", prefix)); err != nil {
		return err
	}
	all, err := writer.Notes(notes)
	if err != nil {
		return err
	}
	one.Lag, one.Lost = lagsOf(all, d.deliveries(one.Writer.First))
	return nil
}

// lagsOf is how long it took from each note until something was delivered that has it.
func lagsOf(notes []writer.Note, all []delivery) (writer.Times, int) {
	slices.SortFunc(all, func(a, b delivery) int { return a.at.Compare(b.at) })
	var lags []time.Duration
	lost, k := 0, 0
	for _, note := range notes {
		for k < len(all) && all[k].n < note.N {
			k++
		}
		if k == len(all) {
			lost++
			continue
		}
		lags = append(lags, max(0, all[k].at.Sub(note.Time)))
	}
	return writer.TimesOf(lags), lost
}

// daemon is a follower at work.
type daemon struct {
	cmd  *exec.Cmd
	out  strings.Builder
	done chan struct{}

	mu     sync.Mutex
	ready  bool       // guarded by mu
	totals []delivery // of Holdfast, counted from where it began; guarded by mu

	files *ltxFiles // of litestream
	quit  chan struct{}
	gone  chan struct{}
	err   error // of files; read after gone is closed
}

func startDaemon(env []string, line func(*daemon, []byte), name string, args ...string) (*daemon, error) {
	d := &daemon{cmd: exec.Command(name, args...), done: make(chan struct{}), quit: make(chan struct{}), gone: make(chan struct{})}
	d.cmd.Env = environment(env)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Stderr = &d.out
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line != nil {
				line(d, lines.Bytes())
			}
		}
		_ = d.cmd.Wait()
	}()
	return d, nil
}

func (f *following) holdfastFollows(ctx context.Context, dir, db, endpoint, prefix string, interval time.Duration) (*daemon, error) {
	path := f.programs[toolHoldfast]
	env := append(f.server.Env(), "HOME="+dir, "HOLDFAST_REPOSITORY="+bucket.S3URL(endpoint, "bench", prefix),
		"HOLDFAST_IDENTITY="+filepath.Join(dir, "identity"), "HOLDFAST_STATE="+filepath.Join(dir, "state"), "HOLDFAST_HOST=bench", "HOLDFAST_POLICY=")
	i := call(path, "init", "-q")
	i.env = env
	if _, err := i.run(ctx); err != nil {
		return nil, err
	}
	d, err := startDaemon(env, (*daemon).event, path, "replicate", "--sqlite", db, "--name", "app", "--interval", interval.String(), "--json")
	if err != nil {
		return nil, err
	}
	close(d.gone)
	return d, d.await(func() (bool, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.ready, nil
	})
}

// event takes a line of Holdfast.
func (d *daemon) event(line []byte) {
	var e replicate.Event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = d.ready || e.State == replicate.Following
	if e.Kind == replicate.Shipped {
		d.totals = append(d.totals, delivery{e.Time, int64(e.Total)}) //nolint:gosec // a count
	}
}

func (f *following) litestreamFollows(dir, db, endpoint, prefix string, interval time.Duration) (*daemon, error) {
	config := filepath.Join(dir, "litestream.yml")
	if err := litestreamConfig(config, db, endpoint, "bench", prefix, interval); err != nil {
		return nil, err
	}
	head, err := rootPage(db, "head")
	if err != nil {
		return nil, err
	}
	d, err := startDaemon(append(litestreamEnv(f.server), "HOME="+dir), nil, f.programs[toolLitestream], "replicate", "-config", config)
	if err != nil {
		return nil, err
	}
	d.files = &ltxFiles{dir: filepath.Join(f.server.Dir, "bench", prefix), head: head}
	err = d.await(func() (bool, error) {
		err := d.files.look()
		return len(d.files.all) > 0, err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(d.gone)
		for d.err == nil {
			select {
			case <-d.quit:
				d.err = d.files.look()
				return
			case <-time.After(2 * time.Second): // it removes files after minutes
				d.err = d.files.look()
			}
		}
	}()
	return d, nil
}

// rootPage is the number of the page at which a table begins.
func rootPage(path, table string) (n uint32, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return n, db.QueryRow("SELECT rootpage FROM sqlite_master WHERE name = ?", table).Scan(&n)
}

// deliveries are what arrived, as transactions of the application.
func (d *daemon) deliveries(first int64) []delivery {
	if d.files != nil {
		return d.files.all
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.totals)
	for i := range out {
		out[i].n += first - 1
	}
	return out
}

func (d *daemon) await(ok func() (bool, error)) error {
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		yes, err := ok()
		if yes || err != nil {
			return err
		}
		select {
		case <-d.done:
			return fmt.Errorf("run %v: it ended\n%s", d.cmd.Args, d.out.String())
		default:
		}
		if time.Now().After(limit) {
			d.kill()
			return fmt.Errorf("run %v: not ready within a minute\n%s", d.cmd.Args, d.out.String())
		}
	}
}

// usage is what the process has used so far: seconds of CPU and its peak memory in bytes.
func (d *daemon) usage() (cpu float64, rss int64, err error) {
	proc := fmt.Sprintf("/proc/%d/", d.cmd.Process.Pid)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		return 0, 0, err
	}
	// The name may have spaces; it ends with the last parenthesis.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, 0, err
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &rss); err != nil {
				return 0, 0, err
			}
		}
	}
	const ticks = 100 // USER_HZ on every Linux
	return float64(user+system) / ticks, rss * 1024, nil
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		d.kill()
		return errors.New("it does not end")
	}
	if d.files != nil {
		close(d.quit)
	}
	<-d.gone
	return d.err
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

// lagTable lists followers and what they cost.
func (r *report) lagTable() string {
	t := newTable("store", "tool", "interval", "lag ms: p50", "p99", "p99.9", "max", "CPU s a minute", "peak RSS MB", "PUT, LIST, GET a minute",
		"COMMIT ms: p50", "p99", "p99.9", "max")
	for _, f := range r.Follows {
		minutes := f.Writer.Seconds / 60
		interval, name := f.Interval.String(), f.Tool
		if f.Interval == 0 {
			interval = "default"
		}
		w := f.Writer.Latency
		if f.Tool == nobody {
			t.row("–", "nobody", "–", "–", "–", "–", "–", "–", "–", "–", number(w.P50), number(w.P99), number(w.P999), number(w.Max))
			continue
		}
		var requests []string
		for _, kind := range []string{"PUT", "LIST", "GET"} {
			requests = append(requests, fmt.Sprintf("%.0f", quotient(float64(f.Requests[kind]), minutes)))
		}
		t.row(f.Where, name, interval, number(f.Lag.P50), number(f.Lag.P99), number(f.Lag.P999), number(f.Lag.Max),
			number(quotient(f.CPU, minutes)), number(float64(f.RSS)/mega), strings.Join(requests, ", "),
			number(w.P50), number(w.P99), number(w.P999), number(w.Max))
	}
	return t.b.String()
}
