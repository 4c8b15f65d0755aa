package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
)

func noon() time.Time { return time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC) }

func testJob(n int) *events.Job {
	return &events.Job{
		Version: 1, ID: fmt.Sprintf("%032x", n+1), Host: "h", Source: fmt.Sprintf("s%d", n%3), Kind: events.Backup,
		Type: "full", Due: noon(), NotAfter: noon().Add(time.Hour),
	}
}

func result(n int) *events.JobFinished {
	j := testJob(n)
	return &events.JobFinished{
		Version: 1, Job: j.ID, Host: "h", Source: j.Source, Kind: j.Kind, Result: events.OK, Snapshot: uint64(n) + 1,
		Started: noon(), Finished: noon().Add(time.Minute),
	}
}

func event(kind string, n int) Event {
	return Event{Type: kind, Time: noon(), Detail: fmt.Sprintf(`{"n":%d}`, n)}
}

// memory is a directory in memory, where a machine has that: some tests write a thousand times, and wait for the disk each
// time.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-journal-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func mustOpen(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir, noon())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// view is what counts of a state.
type view struct {
	Open    []Entry
	Last    map[string]*events.JobFinished
	Outbox  []Event
	Heard   time.Time
	Seen    map[string]Seen
	Refused map[string]int64
	Results map[string]*events.JobFinished
	Next    uint64
}

func viewOf(s *State) view {
	v := view{s.Open, s.Last, s.Outbox, s.Heard, s.Seen, s.Refused, s.Results, s.next}
	if len(v.Open) == 0 {
		v.Open = nil
	}
	if len(v.Outbox) == 0 {
		v.Outbox = nil
	}
	return v
}

func TestLifeOfAJob(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	j := mustOpen(t, dir)
	if err := j.Accept(testJob(0), FromQueue, noon(), event(events.TypeJobAccepted, 0)); err != nil {
		t.Fatal(err)
	}
	if err := j.Accept(testJob(0), FromSchedule, noon()); !errors.Is(err, ErrDuplicate) {
		t.Errorf("a second time: %v", err)
	}
	if !j.Heard().Equal(noon()) {
		t.Errorf("heard %s", j.Heard())
	}
	id := testJob(0).ID
	for range 2 {
		if err := j.Start(id, noon().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Interrupt(id, noon()); err != nil {
		t.Fatal(err)
	}
	if w := j.Waiting(); len(w) != 1 || w[0].Attempts != 1 || w[0].Origin != FromQueue {
		t.Errorf("%+v", w)
	}
	// The process dies and another one comes.
	_ = j.Close()
	j = mustOpen(t, dir)
	if w := j.Waiting(); len(w) != 1 || w[0].Attempts != 1 || w[0].Started.IsZero() {
		t.Errorf("after a crash: %+v", w)
	}
	if err := j.Finish(id, result(0), noon(), event(events.TypeJobFinished, 1)); err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(id, result(0), noon()); !errors.Is(err, ErrUnknown) {
		t.Errorf("finished twice: %v", err)
	}
	if err := j.Start("x", noon()); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown job begins: %v", err)
	}
	if !j.Known(id) || j.Result(id) == nil || j.Last()["s0"].Snapshot != 1 {
		t.Error("the result is not remembered")
	}
	got := j.Pending(10)
	if len(got) != 2 || got[0].Type != events.TypeJobAccepted || got[0].Number >= got[1].Number {
		t.Fatalf("%+v", got)
	}
	if err := j.Sent(noon(), got[0].Number); err != nil {
		t.Fatal(err)
	}
	if left := j.Pending(10); len(left) != 1 || left[0].Number != got[1].Number {
		t.Errorf("%+v", left)
	}
}

func TestRefuseOnce(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		j := mustOpen(t, dir)
		first, err := j.Refuse("stale 1", noon(), event(events.TypeJobRefused, i))
		if err != nil || first != (i == 0) {
			t.Errorf("time %d: %v, %v", i, first, err)
		}
		if n := len(j.Pending(10)); n != 1 {
			t.Errorf("%d events", n)
		}
		_ = j.Close()
	}
}

func TestOneAgentAtATime(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	if _, err := Open(dir, noon()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second agent: %v", err)
	}
	if _, alive, err := Read(dir); err != nil || !alive {
		t.Errorf("alive %v, %v", alive, err)
	}
	_ = j.Close()
	if _, alive, err := Read(dir); err != nil || alive {
		t.Errorf("alive %v, %v", alive, err)
	}
	if s, alive, err := Read(filepath.Join(dir, "none")); err != nil || alive || len(s.Open) > 0 {
		t.Errorf("where no agent ever was: %v", err)
	}
}

// TestHeartbeatsAreDropped has the network away for days: results wait, of heartbeats a day.
func TestHeartbeatsAreDropped(t *testing.T) {
	j := mustOpen(t, memory(t))
	for i := range MaxHeartbeats + 50 {
		if err := j.Report(noon(), event(events.TypeHeartbeat, i)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			if err := j.Report(noon(), event(events.TypeJobFinished, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	beats, results, last := 0, 0, uint64(0)
	for _, e := range j.Pending(10_000) {
		if e.Number <= last {
			t.Error("not in order")
		}
		last = e.Number
		if e.Type == events.TypeHeartbeat {
			if beats++; beats == 1 && e.Detail != `{"n":50}` {
				t.Errorf("the oldest heartbeat is %s", e.Detail)
			}
		} else {
			results++
		}
	}
	if beats != MaxHeartbeats || results != 34 {
		t.Errorf("%d heartbeats, %d results", beats, results)
	}
}

// TestBounds fills the journal with everything that it bounds.
func TestBounds(t *testing.T) {
	dir := memory(t)
	j := mustOpen(t, dir)
	var err error
	job := func(i, sources int) *events.Job {
		job := testJob(i)
		job.Source = fmt.Sprint("s", i%sources)
		return job
	}
	for i := range MaxOpen + 1 {
		if err = j.Accept(job(i, 200), FromQueue, noon()); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) || len(j.Waiting()) != MaxOpen {
		t.Errorf("%d wait, %v", len(j.Waiting()), err)
	}
	// The schedule of the host has its place all the same.
	if err := j.Accept(job(MaxOpen+1, 200), FromSchedule, noon()); err != nil {
		t.Error(err)
	}
	single := mustOpen(t, t.TempDir())
	for i := range MaxOpenSource + 1 {
		err = single.Accept(job(i, 1), FromQueue, noon())
	}
	if !errors.Is(err, ErrFull) || len(single.Waiting()) != MaxOpenSource {
		t.Errorf("%d of one source wait, %v", len(single.Waiting()), err)
	}
	for _, e := range j.Waiting() {
		if err := j.Finish(e.Job.ID, &events.JobFinished{Job: e.Job.ID}, noon()); err != nil {
			t.Fatal(err)
		}
	}
	// Ids that may come again can't be forgotten: then nothing more is accepted. The file need not be written for that.
	for i := range MaxSeen {
		j.state.Seen[fmt.Sprintf("%032x", i)] = Seen{At: noon().Unix(), Until: noon().Add(time.Hour).Unix()}
	}
	late := testJob(MaxSeen + 7)
	if err := j.Accept(late, FromQueue, noon()); !errors.Is(err, ErrFull) {
		t.Errorf("too many ids: %v", err)
	}
	// An hour later they are stale.
	late.NotAfter = noon().Add(3 * time.Hour)
	if err := j.Accept(late, FromQueue, noon().Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	if n := len(j.state.Seen); n >= MaxSeen {
		t.Errorf("%d ids", n)
	}
	for i := range maxRefusals + 10 {
		j.state.Refused[fmt.Sprint(i)] = noon().Unix()
	}
	if _, err := j.Refuse("x", noon()); err != nil || len(j.state.Refused) > maxRefusals {
		t.Errorf("%d refusals, %v", len(j.state.Refused), err)
	}
	for i := range MaxUnsent {
		j.state.Outbox = append(j.state.Outbox, event(events.TypeJobRefused, i))
	}
	if _, err := j.Refuse("y", noon(), event(events.TypeJobRefused, 0)); !errors.Is(err, ErrFull) {
		t.Errorf("too many events: %v", err)
	}
}

// TestRemembers14Days looks at how long a duplicate is known.
func TestRemembers14Days(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	if err := j.Accept(testJob(0), FromQueue, noon()); err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(testJob(0).ID, result(0), noon()); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct {
		days  int
		known bool
	}{{13, true}, {15, false}} {
		now := noon().Add(time.Duration(at.days) * 24 * time.Hour)
		if _, err := j.Refuse(fmt.Sprint(at.days), now); err != nil {
			t.Fatal(err)
		}
		if j.Known(testJob(0).ID) != at.known {
			t.Errorf("after %d days: known %v", at.days, !at.known)
		}
	}
	if j.Result(testJob(0).ID) != nil {
		t.Error("a result is kept whose message would be stale")
	}
}

// TestDiskFull lets writes fail: nothing has happened then, and what comes later is not hurt.
func TestDiskFull(t *testing.T) {
	full := errors.New("disk full")
	failAt := ""
	dir := t.TempDir()
	j, err := open(dir, noon(), func(step string) error {
		if step == failAt {
			return full
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []string{"write", "sync"} {
		failAt = step
		if err := j.Accept(testJob(i), FromQueue, noon()); !errors.Is(err, full) || j.Known(testJob(i).ID) {
			t.Errorf("%s: %v", step, err)
		}
		failAt = ""
		if err := j.Accept(testJob(i), FromQueue, noon()); err != nil {
			t.Errorf("after %s: %v", step, err)
		}
	}
	want := viewOf(j.state)
	_ = j.Close()
	again := mustOpen(t, dir)
	if diff := cmp.Diff(want, viewOf(again.state)); diff != "" || again.Damaged() != 0 {
		t.Errorf("(-before +after)\n%s", diff)
	}
}

// TestDamage flips a bit in the midst: the other lines count, and it is told.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	for i := range 5 {
		if err := j.Accept(testJob(i), FromQueue, noon()); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Close()
	path := filepath.Join(dir, fileName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(text, []byte(testJob(2).ID))
	text[i] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir)
	if n := len(j.Waiting()); n != 4 || j.Damaged() != 1 {
		t.Errorf("%d jobs, %d damaged lines", n, j.Damaged())
	}
}

func TestRewrite(t *testing.T) {
	dir := memory(t)
	j := mustOpen(t, dir)
	for i := range 1000 {
		job := testJob(i)
		if err := j.Accept(job, FromQueue, noon(), event(events.TypeJobAccepted, i)); err != nil {
			t.Fatal(err)
		}
		if err := j.Finish(job.ID, result(i), noon()); err != nil {
			t.Fatal(err)
		}
		if err := j.Sent(noon(), j.Pending(1)[0].Number); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	// 1000 jobs of some 900 bytes of history each; of each, its id and result are kept.
	if info.Size() > 700<<10 {
		t.Errorf("%d bytes", info.Size())
	}
	want := viewOf(j.state)
	_ = j.Close()
	if diff := cmp.Diff(want, viewOf(mustOpen(t, dir).state)); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}
	// When they are stale, little is left.
	_ = os.RemoveAll(filepath.Join(dir, newName))
	late, err := open(t.TempDir(), noon(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = late.Close() }()
	late.state.apply(record{Op: opBase, Next: 9})
	if late.state.next != 9 {
		t.Error("numbers of events begin again")
	}
}

func FuzzReplay(f *testing.F) {
	line, err := encode(record{Op: opAccepted, At: noon(), ID: testJob(0).ID, Job: testJob(0), Events: []Event{event(events.TypeHeartbeat, 1)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(line, line[:20]...))
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte(strings.Repeat("\x00", 4096)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newState()
		good, err := replay(bytes.NewReader(text), s)
		if err != nil || good > int64(len(text)) {
			t.Fatalf("%d of %d bytes, %v", good, len(text), err)
		}
		var out bytes.Buffer
		if _, err := s.write(&out); err != nil {
			t.Fatal(err)
		}
		again := newState()
		if _, err := replay(&out, again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(viewOf(s), viewOf(again)); diff != "" {
			t.Error(diff)
		}
	})
}
