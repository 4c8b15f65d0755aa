package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/program"
	"github.com/btcdecoded/holdfast/test/trees"
)

// How much the tests do.
type amounts struct {
	seed                                     uint64
	kills, damages, troubles, jumps, outages int
	follows, swaps, cuts, clones, fills      int
	filesystems                              string
}

// under is what the tests work with: set once, before they run.
type under struct {
	amounts
	holdfast string // the binary
	clocked  string // the same with a clock that HOLDFAST_TEST_CLOCK moves
}

var test under

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Uint64Var(&test.seed, "seed", 1, "of the dice; 0: another one for each run")
	flag.IntVar(&test.kills, "kills", 10, "processes to kill")
	flag.IntVar(&test.damages, "damages", 120, "objects to damage")
	flag.IntVar(&test.troubles, "troubles", 3, "rounds through a network that breaks")
	flag.IntVar(&test.jumps, "jumps", 3, "kinds of wrong clocks, at most 8")
	flag.IntVar(&test.outages, "outages", 14, "moments at which the power fails")
	flag.IntVar(&test.follows, "follows", 1, "kills of a follower, of its application and of both")
	flag.IntVar(&test.swaps, "swaps", 1, "databases of each kind that take the place of another")
	flag.IntVar(&test.cuts, "cuts", 1, "times that the network is cut")
	flag.IntVar(&test.clones, "clones", 1, "clones of a host that write the same log")
	flag.StringVar(&test.filesystems, "filesystems", "", "that clone files, to be tried by root: xfs,btrfs")
	flag.IntVar(&test.fills, "fills", 1, "times that the disk is full")
	flag.Parse()
	if test.seed == 0 {
		test.seed = rand.Uint64() >> 32
	}
	fmt.Printf("soak: seed %d\n", test.seed)
	dir, err := os.MkdirTemp("", "holdfast-soak-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Servers of PostgreSQL run the program as another user.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // so that they may
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if test.holdfast, err = program.Holdfast(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	test.clocked = filepath.Join(dir, "holdfast-clocked")
	return m.Run()
}

// dice returns the random numbers of one test; the seed of the run and the name of the test decide.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	sum := uint64(14695981039346656037)
	for _, c := range []byte(t.Name()) {
		sum = (sum ^ uint64(c)) * 1099511628211
	}
	t.Logf("repeat with: go test ./test/soak -run '^%s$' -v -args -seed %d", t.Name(), test.seed)
	return rand.New(rand.NewPCG(test.seed, sum)) //nolint:gosec // dice, not secrets
}

// host is a machine as far as Holdfast is concerned.
type host struct {
	t       *testing.T
	dir     string
	program string
	env     []string
}

// newHost makes a host with a repository at the address given, or in its own directory.
func newHost(t *testing.T, repository string) *host {
	t.Helper()
	h := &host{t: t, dir: trees.TempDir(t), program: test.holdfast}
	if repository == "" {
		repository = h.path("repository")
	}
	h.env = append(os.Environ(), "HOLDFAST_REPOSITORY="+repository, "HOLDFAST_IDENTITY="+h.path("identity"),
		"HOLDFAST_STATE="+h.path("state"), "HOLDFAST_HOST=test", "HOLDFAST_POLICY=")
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// answer is how a command ended.
type answer struct {
	args   []string
	code   int // -1: killed
	out    string
	errors string
	took   time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("holdfast %q: exit code %d after %s\n%s%s", a.args, a.code, a.took.Round(time.Millisecond), a.out, a.errors)
}

// json decodes what the command printed.
func (a answer) json(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.out), v); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
}

// limit is longer than any command takes; one that hangs is ended by it and named.
const limit = 10 * time.Minute

// start starts a command; what it returns waits for the end. The process is killed when killAfter has passed; 0: never.
func (h *host) start(killAfter time.Duration, env []string, args ...string) (wait func() answer) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Env = append(h.env[:len(h.env):len(h.env)], env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		cancel()
		h.t.Fatal(err)
	}
	var timer *time.Timer
	if killAfter > 0 {
		timer = time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() })
	}
	return func() answer {
		h.t.Helper()
		defer cancel()
		err := cmd.Wait()
		if timer != nil {
			timer.Stop()
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			h.t.Fatalf("holdfast %q hangs\n%s", args, errs.String())
		}
		if cmd.ProcessState == nil {
			h.t.Fatalf("holdfast %q: %v", args, err)
		}
		return answer{args, cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(began)}
	}
}

// try runs a command.
func (h *host) try(args ...string) answer {
	h.t.Helper()
	return h.start(0, nil, args...)()
}

// run runs a command that must succeed.
func (h *host) run(args ...string) answer {
	h.t.Helper()
	a := h.try(args...)
	if a.code != 0 {
		h.t.Fatal(a)
	}
	return a
}

// listed is a snapshot as `snapshots --json` tells.
type listed struct {
	Snapshot string   `json:"snapshot"`
	Type     string   `json:"type"`
	Parent   uint64   `json:"parent"`
	States   []string `json:"states"`
}

func (h *host) snapshots(more ...string) []listed {
	h.t.Helper()
	var all []listed
	h.run(append([]string{"snapshots", "--json"}, more...)...).json(h.t, &all)
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
