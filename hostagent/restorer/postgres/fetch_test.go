package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const small = 1 << 20 // bytes of a segment

// paper is a log of segments that hold nothing but their numbers.
type paper struct {
	segments int
	tail     int // bytes of the last one, which is not whole
	broken   int // record that can't be read; 0: none
	reads    int
}

func (p *paper) log() *Log {
	l := &Log{Timeline: 1, Segment: small, End: pg.LSN((1+p.segments)*small + p.tail)} //nolint:gosec // small
	l.Records = func(_ context.Context, after snapshot.LogPlace) iter.Seq2[Record, error] {
		return func(yield func(Record, error) bool) {
			for n := after.Sequence + 1; ; n++ {
				at := (n - 1) * (small / 2)
				size := uint64(small / 2)
				if whole := uint64(p.segments) * small; at >= whole { //nolint:gosec // small
					if size = uint64(p.tail); at > whole || size == 0 { //nolint:gosec // small
						return
					}
				}
				p.reads++
				if n == uint64(p.broken) { //nolint:gosec // small
					yield(Record{}, errors.New("a disk that is dying"))
					return
				}
				r := Record{Place: snapshot.LogPlace{Sequence: n}, Time: time.Unix(int64(n), 0), Timeline: 1, Start: pg.LSN(small + at), WAL: bytes.Repeat([]byte{byte(n)}, int(size))} //nolint:gosec // small
				if !yield(r, nil) {
					return
				}
			}
		}
	}
	return l
}

func (p *paper) spool(t *testing.T) (*spool, *Plan) {
	t.Helper()
	s := &spool{dir: filepath.Join(t.TempDir(), spoolName), account: pgserver.Self()}
	plan := &Plan{System: 1, Segment: small, Legs: []Leg{{Timeline: 1, End: p.log().End}}, Target: Target{Kind: Latest}}
	if err := errors.Join(s.create(), s.writePlan(plan)); err != nil {
		t.Fatal(err)
	}
	return s, plan
}

// TestFetchAlone fetches without a restore at work: forwards, again, back, and behind the end.
func TestFetchAlone(t *testing.T) {
	t.Parallel()
	p := &paper{segments: 40, tail: 1000}
	s, _ := p.spool(t)
	s.ahead = 16 * small
	to := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	fetch := func(n uint64) (bool, error) {
		name := segment{1, n}.name(small)
		return s.fetch(context.Background(), s.path(planName), name, to, func(context.Context, *Plan) (*Log, error) { return p.log(), nil })
	}
	for _, n := range []uint64{1, 2, 2, 3, 30, 31, 7, 8, 41, 41, 40} {
		before := p.reads
		found, err := fetch(n)
		if n == 8 && p.reads != before {
			t.Errorf("what was fetched ahead is fetched again: %d reads", p.reads-before)
		}
		if err != nil || !found {
			t.Fatalf("%d: %v, %v", n, found, err)
		}
		b, err := os.ReadFile(to)
		if err != nil || len(b) != small || b[0] != byte(2*(n-1)+1) {
			t.Fatalf("%d: %d bytes, the first is %d, %v", n, len(b), b[0], err)
		}
		if n == 41 && (b[999] == 0 || b[1000] != 0) {
			t.Error("the last segment is not filled with zeros")
		}
	}
	for _, n := range []uint64{42, 5000} {
		if found, err := fetch(n); found || err != nil {
			t.Errorf("%d: %v, %v", n, found, err)
		}
	}
}

// TestFetchFaults has a log that can't be read: nothing is ever said to be absent.
func TestFetchFaults(t *testing.T) {
	p := &paper{segments: 10, broken: 9}
	s, _ := p.spool(t)
	to := filepath.Join(t.TempDir(), "to")
	open := func(context.Context, *Plan) (*Log, error) { return p.log(), nil }
	for _, n := range []uint64{5, 10} {
		if found, err := Fetch(context.Background(), s.path(planName), segment{1, n}.name(small), to, open); err == nil || found || !strings.Contains(err.Error(), "dying") {
			t.Errorf("%d: %v, %v", n, found, err)
		}
	}
	if text, err := os.ReadFile(s.path(faultName)); err != nil || !strings.Contains(string(text), "dying") {
		t.Errorf("%q, %v", text, err)
	}
	shut := func(context.Context, *Plan) (*Log, error) { return nil, errors.New("no identity") }
	if found, err := Fetch(context.Background(), s.path(planName), segment{1, 6}.name(small), to, shut); err == nil || found {
		t.Errorf("%v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if found, err := Fetch(ctx, s.path(planName), segment{1, 6}.name(small), to, open); err == nil || found {
		t.Errorf("%v, %v", found, err)
	}
}

// TestDesk asks a restore that is at work, from several sides.
func TestDesk(t *testing.T) {
	p := &paper{segments: 40, tail: 10}
	s, plan := p.spool(t)
	lock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	f := newFeed(p.log(), plan, s)
	d, err := f.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx)
	}()
	to := filepath.Join(t.TempDir(), "to")
	shut := func(context.Context, *Plan) (*Log, error) { return nil, errors.New("nobody should open it") }
	for _, n := range []uint64{1, 2, 30, 3, 41, 41, 40, 42} {
		found, err := Fetch(context.Background(), s.path(planName), segment{1, n}.name(small), to, shut)
		if err != nil || found != (n <= 41) {
			t.Errorf("%d: %v, %v", n, found, err)
		}
	}
	if s, n := f.repeated(); n == 0 {
		t.Errorf("nobody counted: %v", s)
	}
	cancel()
	d.close()
	<-ended
}

// TestCommand runs restore_command as the server does: what is there is taken, what is being written is waited for, and only
// all else is asked for, with the exit code of who is asked.
func TestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &spool{dir: filepath.Join(dir, spoolName), account: pgserver.Self()}
	asked, ask := filepath.Join(dir, "asked"), filepath.Join(dir, "it's 100% sh")
	script := "#!/bin/sh\necho \"$@\" >>'" + asked + "'\nexit 126\n"
	if err := errors.Join(s.create(), os.WriteFile(ask, []byte(script), 0o700)); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	b := &build{options: &Options{Fetch: []string{ask, "--plan"}}}
	run := func(name string) int {
		t.Helper()
		text := strings.NewReplacer("%%", "%", "%f", name, "%p", "pg_wal/RECOVERYXLOG").Replace(b.command())
		cmd := exec.Command("/bin/sh", "-c", text)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "i=1000", "b=x", "d=y")
		err := cmd.Run()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode()
	}
	got := func() string {
		text, _ := os.ReadFile(filepath.Join(dir, "pg_wal", "RECOVERYXLOG"))
		return string(text)
	}
	words := func() string {
		text, _ := os.ReadFile(asked)
		return string(text)
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(s.ready(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("there")
	if code := run("there"); code != 0 || got() != "there" || words() != "" || !missing(s.ready("there")) {
		t.Errorf("%d, %q, %q", code, got(), words())
	}
	// It comes while it is waited for. Where this goroutine is too late it is asked for, and that is as good: it is done again.
	for n := 0; ; n++ {
		name := fmt.Sprint("late-", n)
		write(name + unfinishedSuffix)
		written := make(chan error)
		go func() {
			time.Sleep(20 * time.Millisecond)
			written <- os.Rename(s.ready(name+unfinishedSuffix), s.ready(name))
		}()
		code := run(name)
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if code == 0 {
			if got() != name+unfinishedSuffix || strings.Contains(words(), name) {
				t.Errorf("%q, %q", got(), words())
			}
			break
		}
		if code != 126 {
			t.Fatal(code)
		}
	}
	// It is given up, and it never comes to its end: who is asked knows why.
	write("left" + unfinishedSuffix)
	for _, name := range []string{"absent", "left"} {
		before := got()
		if code := run(name); code != 126 || got() != before || !strings.Contains(words(), "--plan "+spoolName+"/"+planName+" "+name+" pg_wal/RECOVERYXLOG\n") {
			t.Errorf("%s: %d, %q, %q", name, code, got(), words())
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"format":1,"segment_size":1048576,"legs":[{"timeline":1,"begin":"0/0","end":"0/300000"}]}`), "000000010000000000000002")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		path := filepath.Join(t.TempDir(), "plan")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := ReadPlan(path)
		if err != nil {
			return
		}
		if want, err := parseFile(name, p.Segment); err == nil {
			p.judge(want)
		}
	})
}
