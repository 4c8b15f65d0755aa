package tail

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/test/writer"
)

// load is an application at work.
type load struct {
	cmd  *exec.Cmd
	done chan error
}

func startLoad(t testing.TB, c writer.Config) *load {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{cmd: exec.Command(os.Args[0]), done: make(chan error, 1)}
	l.cmd.Env = append(os.Environ(), "TAIL_TEST_APP=load", "TAIL_TEST_CONFIG="+string(b))
	l.cmd.Stderr = os.Stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.done <- l.cmd.Wait() }()
	t.Cleanup(func() { _ = l.cmd.Process.Kill() })
	return l
}

// noted waits until an application has noted more than so many bytes of commits.
func noted(t testing.TB, notes string, more int64) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); sizeOf(notes) <= more; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the application commits nothing")
			return
		}
	}
}

func sizeOf(path string) int64 {
	if now, err := look(path); err == nil {
		return now.stamp.Size
	}
	return 0
}

// attach follows an application's database as soon as there was a commit.
func attach(t testing.TB, c writer.Config) *replica {
	t.Helper()
	noted(t, c.Notes, 0)
	return follow(t, c.Path)
}

// keepUp polls until the application has ended and nothing is left. It returns how often the tail lost its place.
func (r *replica) keepUp(l *load, every time.Duration, sample func()) (gaps int) {
	r.t.Helper()
	next := time.Now().Add(every)
	for ended := false; ; {
		select {
		case err := <-l.done:
			if err != nil && sample != nil {
				r.t.Fatalf("the application: %v", err)
			}
			ended = true
		default:
		}
		b, err := r.poll()
		var gap *GapError
		if errors.As(err, &gap) {
			gaps++
			r.t.Logf("%s: %v", gap.Cause, gap)
			r.rebase()
			continue
		}
		var state *StateError
		if err != nil && (!errors.As(err, &state) || state.State != Busy) {
			r.t.Fatal(err)
		}
		if err == nil && ended && b.Commits == 0 {
			return gaps
		}
		if sample != nil && time.Now().After(next) {
			sample()
			next = time.Now().Add(every)
		}
		if err := r.tail.Wait(r.t.Context(), 5*time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
	}
}

// check returns how many transactions the replica holds: exactly the first so many, or it fails.
func (r *replica) check() int64 {
	r.t.Helper()
	path := r.file()
	n, err := writer.Check(r.t.Context(), path)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = os.Remove(path)
	return n
}

// cleaned has another process write the log back that the application left, and compares the file with the replica.
func (r *replica) cleaned() {
	r.t.Helper()
	r.want(0) // sees that nobody is there
	a := startApp(r.t, python, r.path)
	a.run("SELECT 1 FROM sqlite_schema")
	a.close(0)
	r.want(0)
	r.identical()
}

// TestUnderLoad follows an application that makes checkpoints of each kind, and rebuilds its database again and again.
func TestUnderLoad(t *testing.T) {
	t.Parallel()
	shape := writer.Shape{Payload: 100, Cells: 300, Bulk: 100, Width: 100}
	for _, c := range []struct {
		mode  string
		rate  float64
		every int
	}{
		{writer.Auto, 2000, 0},
		{"passive", 2000, 50},
		{"full", 500, 50},
		{"restart", 500, 25},
		{"truncate", 500, 100},
		{"truncate", 50, 5},
	} {
		t.Run(fmt.Sprintf("%s, %g a second", c.mode, c.rate), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "app.db")
			config := writer.Config{
				Path: path, Notes: path + ".notes", Rate: c.rate, For: time.Duration(sample(700, 30_000)) * time.Millisecond,
				Checkpoint: c.mode, Every: c.every, Shape: shape, Busy: 5 * time.Second,
			}
			l := startLoad(t, config)
			r := attach(t, config)
			last := int64(0)
			gaps := r.keepUp(l, 200*time.Millisecond, func() {
				n := r.check()
				if n < last {
					t.Fatalf("%d transactions, %d before", n, last)
				}
				last = n
			})
			notes, err := writer.Notes(path + ".notes")
			must(t, err)
			if n := r.check(); len(notes) == 0 || n != notes[len(notes)-1].N {
				t.Fatalf("%d transactions, %d were committed", n, len(notes))
			}
			r.cleaned()
			t.Logf("%d transactions, %d frames, %d gaps", len(notes), r.frames, gaps)
		})
	}
}

// TestKilledUnderLoad kills the application again and again.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	random := rand.New(rand.NewPCG(test.seed, 6))
	modes := []string{writer.Auto, "restart", "truncate", "passive"}
	var r *replica
	gaps := 0
	for life := range sample(4, 200) {
		config := writer.Config{
			Path: path, Notes: path + ".notes", Rate: 1000, Checkpoint: modes[life%len(modes)], Every: 40,
			Shape: writer.Shape{Payload: 100, Cells: 300, Bulk: 20, Width: 200}, Busy: 5 * time.Second,
		}
		before := sizeOf(config.Notes)
		l := startLoad(t, config)
		if r == nil {
			r = attach(t, config)
		}
		killed := make(chan struct{})
		lives := time.Duration(20+random.IntN(300)) * time.Millisecond
		go func() {
			defer close(killed)
			noted(t, config.Notes, before)
			time.Sleep(lives)
			_ = l.cmd.Process.Kill()
		}()
		gaps += r.keepUp(l, time.Hour, nil)
		<-killed
		notes, err := writer.Notes(config.Notes)
		must(t, err)
		if n := r.check(); n < notes[len(notes)-1].N {
			t.Fatalf("%d transactions, %d were acknowledged", n, notes[len(notes)-1].N)
		}
	}
	r.cleaned()
	t.Logf("%d gaps", gaps)
}

// TestLargeTransaction expects that a transaction is not held in memory.
func TestLargeTransaction(t *testing.T) {
	a := database(t, python)
	r := follow(t, a.path)
	const size = 64 << 20
	a.run("PRAGMA cache_size=-1000", fmt.Sprintf("INSERT INTO t VALUES (1, zeroblob(%d))", size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	frames := 0
	b, err := r.tail.Poll(t.Context(), func(uint32, []byte) error { frames++; return nil })
	must(t, err)
	runtime.ReadMemStats(&after)
	if b.Commits != 1 || frames < size/4096 || b.Frames != frames {
		t.Fatalf("%+v, %d frames", b, frames)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes for a transaction of %d", got, size)
	}
}

// BenchmarkIdlePoll is what a poll costs if nothing happened.
func BenchmarkIdlePoll(b *testing.B) {
	a := database(b, own)
	a.add(5)
	r := follow(b, a.path)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.tail.Poll(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFollow polls each 5 ms while an application works for some seconds, and reports what part of a processor that
// took, and how often the tail lost its place: -bench Follow -benchtime 1x.
func BenchmarkFollow(b *testing.B) {
	for _, c := range []struct {
		mode  string
		rate  float64
		every int
	}{{"idle", 0, 0}, {writer.Auto, 50, 0}, {writer.Auto, 500, 0}, {writer.Auto, 2000, 0}, {"truncate", 50, 50}, {"truncate", 500, 500}, {"truncate", 2000, 2000}, {"restart", 500, 500}} {
		b.Run(fmt.Sprintf("%s/%g", c.mode, c.rate), func(b *testing.B) {
			for b.Loop() {
				const seconds = 15
				path := filepath.Join(b.TempDir(), "app.db")
				config := writer.Config{
					Path: path, Notes: path + ".notes", Rate: c.rate, For: seconds * time.Second, Checkpoint: c.mode, Every: c.every,
					Shape: writer.DefaultShape(), Busy: 5 * time.Second,
				}
				if c.mode == "idle" {
					config.Rate, config.Checkpoint = 0.1, writer.None
				}
				l := startLoad(b, config)
				r := attach(b, config)
				before := cpu(b)
				gaps := r.measure(l)
				b.ReportMetric(float64(cpu(b)-before)/float64(seconds*time.Second)*100, "cpu-%")
				b.ReportMetric(float64(gaps), "gaps")
				b.ReportMetric(float64(r.commits), "commits")
			}
		})
	}
}

// measure polls and throws away what comes.
func (r *replica) measure(l *load) (gaps int) {
	for {
		select {
		case err := <-l.done:
			if err != nil {
				r.t.Fatal(err)
			}
			return gaps
		default:
		}
		b, err := r.tail.Poll(r.t.Context(), func(uint32, []byte) error { return nil })
		if err != nil {
			gaps++
			r.t.Log(err)
			if err := r.tail.Start(); err != nil {
				r.t.Fatal(err)
			}
		}
		r.commits += b.Commits
		if err := r.tail.Wait(r.t.Context(), 5*time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
	}
}

func cpu(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
