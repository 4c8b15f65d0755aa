package soak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/program"
	"github.com/btcdecoded/holdfast/test/writer"
)

// database is an application with a database on a host, and who follows it.
type database struct {
	*host
	random *rand.Rand
	app    string // the binary
	path   string
	notes  string
	state  string // directory

	application *process
	follower    *process
	mode        string   // of checkpoints
	modes       []string // of which one is taken

	mu        sync.Mutex
	until     time.Time      // all that was acknowledged by then is durable; guarded by mu
	based     time.Time      // when the newest snapshot was there that begins a log; guarded by mu
	gaps      int            // guarded by mu
	causes    map[string]int // of gaps; guarded by mu
	snapshots int            // guarded by mu
	states    map[replicate.State]bool
	said      []string // by the follower; guarded by mu
	points    []point  // of the records; guarded by mu
}

// point is one to which the database can be restored: it has all that was acknowledged until a little before.
type point struct{ at, until time.Time }

func newDatabase(t *testing.T, h *host, random *rand.Rand) *database {
	t.Helper()
	app, err := program.Application(h.dir)
	must(t, err)
	d := &database{host: h, random: random, app: app, path: h.path("app.db"), state: h.path("state"), states: map[replicate.State]bool{}, causes: map[string]int{}}
	d.modes = []string{writer.Auto, "passive", "full", "restart", "truncate"}
	d.run("init")
	d.begin()
	return d
}

// begin is for a new database at the same place: its transactions are counted from 1 again.
func (d *database) begin() {
	d.notes = d.host.path(fmt.Sprintf("notes-%d", time.Now().UnixNano()))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.points = nil
}

// process is one that runs until somebody ends it.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error
	errs bytes.Buffer

	following *atomic.Bool // of a follower: it says so
}

func (d *database) process(line func([]byte), name string, args ...string) *process {
	d.t.Helper()
	p := &process{t: d.t, cmd: exec.Command(name, args...), done: make(chan error, 1)}
	p.cmd.Env, p.cmd.Stderr = d.env, &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	must(d.t, err)
	must(d.t, p.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line != nil {
				line(lines.Bytes())
			}
		}
		p.done <- p.cmd.Wait()
	}()
	return p
}

// kill ends a process at once.
func (p *process) kill() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Kill())
	<-p.done
}

// end asks a process to end, which it must do in order.
func (p *process) end() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Fatalf("%v: %v\n%s", p.cmd.Args, err, p.errs.String())
		}
	case <-time.After(3 * time.Minute):
		p.t.Fatalf("%v does not end\n%s", p.cmd.Args, p.errs.String())
	}
}

// start starts the application, with checkpoints of some kind.
func (d *database) start() {
	d.t.Helper()
	d.mode = d.modes[d.random.IntN(len(d.modes))]
	d.application = d.process(nil, d.app, "-db", d.path, "-notes", d.notes, "-rate", "300", "-cells", "500", "-bulk", "100", "-width", "300",
		"-checkpoint", d.mode, "-every", fmt.Sprint(50+d.random.IntN(300)))
}

// follow starts the follower.
func (d *database) follow(more ...string) {
	d.t.Helper()
	following := new(atomic.Bool)
	args := append([]string{"replicate", "--sqlite", d.path, "--name", "app", "--interval", "50ms", "--json"}, more...)
	d.follower = d.process(func(line []byte) { d.heard(line, following) }, d.program, args...)
	d.follower.following = following
}

// heard takes an event of a follower.
func (d *database) heard(line []byte, following *atomic.Bool) {
	var e replicate.Event
	if json.Unmarshal(line, &e) != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, string(line))
	switch e.Kind {
	case replicate.Shipped:
		if e.Until.After(d.until) {
			d.until = e.Until
		}
		// A snapshot stands for the moment at which it was complete: what was committed just before is in it or in a record,
		// but no state of its own.
		if e.Point.After(d.based) {
			d.points = append(d.points, point{e.Point, e.Until})
		}
	case replicate.Based:
		d.snapshots++
		d.based = e.Time
		d.points = nil // those before may be of another database, of which other notes tell
	case replicate.Missed:
		d.gaps++
		d.causes[e.Why]++
	case replicate.StateChanged:
		following.Store(e.State == replicate.Following)
		d.states[e.State] = true
	}
}

// await waits until something is so.
func (d *database) await(what string, ok func() bool) {
	d.t.Helper()
	for limit := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		d.mu.Lock()
		yes := ok()
		d.mu.Unlock()
		if yes {
			return
		}
		if time.Now().After(limit) {
			d.t.Fatalf("%s: not within three minutes; the follower: %s", what, d.follower.errs.String())
		}
	}
}

// awaitDatabase waits until the application has committed something.
func (d *database) awaitDatabase() {
	d.t.Helper()
	d.await("the database is made", func() bool { n, _ := writer.Notes(d.notes); return len(n) > 0 })
}

// endAll ends the application and then, once it says that all is durable, the follower: all is restorable.
func (d *database) endAll() {
	d.t.Helper()
	d.application.end()
	notes, err := writer.Notes(d.notes)
	must(d.t, err)
	dirs, err := filepath.Glob(filepath.Join(d.state, "*", "test", "app"))
	if err != nil || len(dirs) != 1 {
		d.t.Fatalf("%q, %v", dirs, err)
	}
	// Where something was missed at the last moment, a snapshot comes first.
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, done, err := replicate.Ask(d.t.Context(), dirs[0])
		must(d.t, err)
		if done {
			break
		}
		if time.Now().After(limit) {
			d.t.Fatalf("not all is durable: %+v\n%s", s, d.follower.errs.String())
		}
	}
	d.follower.end()
	if got, want := d.restore(time.Time{}), notes[len(notes)-1].N; got < want {
		d.t.Errorf("after an orderly end %d transactions of %d are there", got, want)
	}
}

// awaitFollowing waits until the database is followed and something has become durable.
func (d *database) awaitFollowing() {
	d.t.Helper()
	now := time.Now()
	d.await("followed", func() bool { return d.follower.following.Load() && d.until.After(now) })
}

// durable is the number of transactions that must be there by now.
func (d *database) durable() int64 {
	d.t.Helper()
	d.mu.Lock()
	until := d.until
	d.mu.Unlock()
	notes, err := writer.Notes(d.notes)
	must(d.t, err)
	return writer.Acknowledged(notes, until)
}

// restore restores the database as of a time, the newest if that is zero, and returns its transactions.
func (d *database) restore(at time.Time) int64 {
	d.t.Helper()
	to := d.host.path("restored.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(to + suffix)
	}
	args := []string{"restore", "app", "--to", to}
	if !at.IsZero() {
		args = append(args, "--at", at.UTC().Format(time.RFC3339Nano))
	}
	d.run(args...)
	n, err := writer.Check(d.t.Context(), to)
	must(d.t, err)
	return n
}

// check restores the newest state, and some of the others.
func (d *database) check(some int) {
	d.t.Helper()
	want := d.durable()
	if got := d.restore(time.Time{}); got < want {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.t.Fatalf("the newest state has %d transactions, %d were durable; notes %s; the follower:\n%s", got, want, d.notes, strings.Join(d.said, "\n"))
	}
	d.mu.Lock()
	points := append([]point(nil), d.points...)
	d.mu.Unlock()
	notes, err := writer.Notes(d.notes)
	must(d.t, err)
	for range some {
		if len(points) == 0 {
			return
		}
		p := points[d.random.IntN(len(points))]
		if got, want := d.restore(p.at), writer.Acknowledged(notes, p.until); got < want {
			d.t.Fatalf("as of %s there are %d transactions, %d were durable", p.at, got, want)
		}
	}
}

// TestFollowerKills kills the follower, the application or both, again and again.
func TestFollowerKills(t *testing.T) {
	random := dice(t)
	d := newDatabase(t, newHost(t, ""), random)
	d.start()
	d.awaitDatabase()
	d.follow()
	d.awaitFollowing()
	killed := map[string]int{}
	for round := range 3 * test.follows {
		time.Sleep(time.Duration(50+random.IntN(500)) * time.Millisecond)
		what := []string{"follower", "application", "both"}[round%3]
		killed[what]++
		if what != "application" {
			d.follower.kill()
		}
		if what != "follower" {
			d.application.kill()
			d.start()
		}
		if what != "application" {
			d.follow()
		}
		d.awaitFollowing()
		if round%5 == 4 || round == 3*test.follows-1 {
			d.check(2)
		}
	}
	d.endAll()
	d.run("verify", "--level", "content")
	notes, err := writer.Notes(d.notes)
	must(t, err)
	t.Logf("killed %v; %d transactions, %d snapshots, %d gaps: %v", killed, len(notes), d.snapshots, d.gaps, d.causes)
	full := d.largest()
	if d.snapshots > 1 && full > 1 {
		t.Errorf("%d of %d snapshots uploaded as much as the first", full, d.snapshots)
	}
}

// largest is how many snapshots uploaded most of the database.
func (d *database) largest() (n int) {
	d.t.Helper()
	var said []struct {
		Type string `json:"type"`
	}
	d.run("snapshots", "--json").json(d.t, &said)
	for _, s := range said {
		if s.Type == "full" {
			n++
		}
	}
	return n
}

// TestFollowerSwaps puts other databases in the place of the one that is followed.
func TestFollowerSwaps(t *testing.T) {
	random := dice(t)
	for _, kind := range []string{"recreated", "moved", "page size"} {
		t.Run(kind, func(t *testing.T) {
			d := newDatabase(t, newHost(t, ""), random)
			d.start()
			d.awaitDatabase()
			d.follow()
			for range test.swaps {
				d.awaitFollowing()
				time.Sleep(time.Duration(50+random.IntN(300)) * time.Millisecond)
				d.swap(kind)
			}
			d.application.end()
			d.follower.end()
		})
	}
}

// swap puts another database there, and restores to before and after.
func (d *database) swap(kind string) {
	d.t.Helper()
	d.check(1)
	d.mu.Lock()
	var before point
	if n := len(d.points); n > 0 {
		before = d.points[n-1]
	}
	snapshots := d.snapshots
	d.mu.Unlock()
	notes, err := writer.Notes(d.notes)
	must(d.t, err)
	durable := writer.Acknowledged(notes, before.until)
	remove := func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			must(d.t, os.Remove(d.path+suffix))
		}
	}
	switch kind {
	case "recreated": // while the application has it open
		remove()
		d.application.kill()
		d.begin()
		d.start()
	case "moved":
		other := d.host.path("other.db")
		d.begin()
		cmd := exec.Command(d.app, "-db", other, "-notes", d.notes, "-commits", "30", "-checkpoint", "truncate", "-every", "30") // all is in the file: its log stays behind
		out, err := cmd.CombinedOutput()
		if err != nil {
			d.t.Fatalf("%v\n%s", err, out)
		}
		d.application.kill()
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(d.path + suffix)
		}
		must(d.t, os.Rename(other, d.path))
		d.start()
	case "page size":
		d.follower.end()
		d.application.end()
		must(d.t, writer.Reshape(d.t.Context(), d.path, []int{1024, 8192, 512, 16384}[d.random.IntN(4)]))
		d.start()
		d.follow()
	}
	d.await("a snapshot of the new database", func() bool { return d.snapshots > snapshots })
	d.awaitFollowing()
	d.check(1)
	if got := d.restore(before.at); got < durable {
		d.t.Errorf("before it was %s there were %d transactions, restored are %d", kind, durable, got)
	}
}

// TestFollowerNetwork cuts the network for a while.
func TestFollowerNetwork(t *testing.T) {
	random := dice(t)
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	n := &network{t: t, server: server}
	proxy := bucket.StartProxy(t, server.Endpoint, func(*http.Request) bucket.Trouble {
		if n.now() == "cut" {
			n.hits.Add(1)
			return bucket.Cut
		}
		return bucket.Pass
	})
	h := newHost(t, bucket.S3URL(proxy.Endpoint, "bucket", ""))
	h.env = append(h.env, server.Env()...)
	d := newDatabase(t, h, random)
	d.start()
	d.awaitDatabase()
	d.follow()
	d.awaitFollowing()
	for range test.cuts {
		n.set("cut")
		time.Sleep(time.Duration(1000+random.IntN(2000)) * time.Millisecond)
		n.set("")
		d.awaitFollowing()
		d.check(1)
	}
	d.endAll()
	if d.snapshots != 1+d.gaps { // a machine that is busy enough misses commits
		t.Errorf("%d snapshots, %d gaps: %v", d.snapshots, d.gaps, d.causes)
	}
	t.Logf("cut %d times; %d snapshots, %d gaps: %v", test.cuts, d.snapshots, d.gaps, d.causes)
}
