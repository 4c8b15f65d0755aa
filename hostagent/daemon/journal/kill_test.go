package journal

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
)

var seed = flag.Uint64("seed", 1, "of the random operations")

var errKilled = errors.New("killed")

// operate does one random thing that an agent does.
func operate(j *Journal, r *rand.Rand, n int, now time.Time) error {
	switch r.IntN(7) {
	case 0, 1:
		err := j.Accept(testJob(r.IntN(n+1)), []string{FromQueue, FromSchedule}[r.IntN(2)], now, event(events.TypeJobAccepted, n))
		if errors.Is(err, ErrDuplicate) || errors.Is(err, ErrFull) {
			return nil
		}
		return err
	case 2:
		_, err := j.Refuse(fmt.Sprintf("stale %d", r.IntN(n+1)), now, event(events.TypeJobRefused, n))
		return err
	case 3:
		return j.Report(now, event(events.TypeHeartbeat, n))
	case 4:
		var numbers []uint64
		for _, e := range j.Pending(1 + r.IntN(10)) {
			numbers = append(numbers, e.Number)
		}
		return j.Sent(now, numbers...)
	}
	open := j.Waiting()
	if len(open) == 0 {
		return nil
	}
	job := open[r.IntN(len(open))].Job
	switch r.IntN(4) {
	case 0:
		return j.Interrupt(job.ID, now)
	case 1, 2:
		return j.Start(job.ID, now)
	}
	f := &events.JobFinished{Version: 1, Job: job.ID, Host: "h", Source: job.Source, Kind: job.Kind, Result: events.OK, Started: now, Finished: now}
	return j.Finish(job.ID, f, now, event(events.TypeJobFinished, n))
}

// TestKilledAtEveryByte cuts the file after each of its bytes, as a crash may: what is found then is the state after the
// last record that had arrived as a whole, never anything between two.
func TestKilledAtEveryByte(t *testing.T) {
	t.Logf("seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 1))
	dir := memory(t)
	j := mustOpen(t, dir)
	type point struct {
		size  int64
		state view
	}
	snap := func() point {
		// A copy by the journal's own means, which the tests above trust.
		s := newState()
		f, err := os.Open(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		size, err := replay(f, s)
		if err != nil || size != j.size {
			t.Fatalf("%d bytes, want %d, %v", size, j.size, err)
		}
		if diff := cmp.Diff(viewOf(j.state), viewOf(s)); diff != "" {
			t.Fatalf("memory and file differ (-memory +file)\n%s", diff)
		}
		return point{size, viewOf(s)}
	}
	points := []point{snap()}
	for n := range 24 {
		if err := operate(j, r, n, noon().Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
		points = append(points, snap())
	}
	_ = j.Close()
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), fileName)
	if err := os.WriteFile(cut, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	at := 0
	for n := int64(len(whole)); n >= points[0].size; n-- {
		if err := os.Truncate(cut, n); err != nil {
			t.Fatal(err)
		}
		for at = len(points) - 1; points[at].size > n; at-- { //nolint:revive // the search is the loop
		}
		s, good, err := load(cut)
		if err != nil || good != points[at].size || s.Damaged != 0 {
			t.Fatalf("cut at %d: good %d, want %d; damaged %d, %v", n, good, points[at].size, s.Damaged, err)
		}
		if n%17 == 0 || n == good {
			if diff := cmp.Diff(points[at].state, viewOf(s)); diff != "" {
				t.Fatalf("cut at %d (-want +got)\n%s", n, diff)
			}
		}
	}
}

// TestKilledAtEveryStep kills the process at each step of random work, also within rewrites, and begins again: what is
// there then is what the same work, left in peace, had before the operation that was cut off, or after it.
func TestKilledAtEveryStep(t *testing.T) {
	t.Logf("seed %d", *seed)
	const operations = 24
	// run works until the process dies, and returns how many operations were promised.
	run := func(dir string, hook func(string) error, done func(*Journal)) (promised int) {
		r := rand.New(rand.NewPCG(*seed, 2))
		j, err := open(dir, noon(), hook)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = j.Close() }() // releases the lock, as death does
		done(j)
		for n := range operations {
			if err = operate(j, r, n, noon().Add(time.Duration(n)*time.Second)); err == nil && n%8 == 7 {
				j.mu.Lock()
				rerr := j.rewrite() // changes nothing that counts
				j.mu.Unlock()
				if rerr != nil {
					return n + 1
				}
			}
			if err != nil {
				return n
			}
			done(j)
		}
		return operations
	}
	var states []view
	run(t.TempDir(), nil, func(j *Journal) { states = append(states, copyOf(t, j)) })
	for kill := 1; ; kill++ {
		dir := memory(t)
		steps := 0
		promised := run(dir, func(string) error {
			if steps++; steps >= kill {
				return errKilled
			}
			return nil
		}, func(*Journal) {})
		again := mustOpen(t, dir)
		got := viewOf(again.state)
		_ = again.Close()
		if !cmp.Equal(states[promised], got) && (promised == operations || !cmp.Equal(states[promised+1], got)) {
			t.Fatalf("killed at step %d, %d operations promised (-want +got)\n%s", kill, promised, cmp.Diff(states[promised], got))
		}
		if promised == operations && steps < kill {
			t.Logf("killed at each of %d steps", kill-1)
			return
		}
	}
}

// copyOf is a deep copy of the state, by writing it.
func copyOf(t *testing.T, j *Journal) view {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := j.state.write(f); err != nil {
		t.Fatal(err)
	}
	s, _, err := load(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return viewOf(s)
}
