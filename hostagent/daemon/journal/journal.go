// Package journal is the agent's memory of its jobs on the local disk: what it has accepted, begun, finished and
// refused, and what of that it has not reported yet. Use [Open]; [Read] looks at the journal of an agent that may run.
//
// Every change is durable when its method returns, and a change and the events that report it are one record: after a
// crash both are there or neither. A job whose acceptance is on the disk is run or reported failed, whatever happens
// to the message that brought it; a job that was accepted once is not accepted again for [Remember], however often its
// message comes. Records in the file keep their meaning; new members may be added.
//
// The file holds one record a line: the CRC-32C of the JSON text in eight hexadecimal digits, a space, the JSON. A line
// that was cut off by a crash at the end of the file never happened. It is rewritten when most of it is history.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/durable"
)

// Limits of the journal.
const (
	// Remember is how long the ids of accepted jobs are kept at least, so that a message which comes again is known.
	Remember = 14 * 24 * time.Hour
	// MaxSeen is how many ids are kept. Beyond it, ids of jobs that would be refused as stale anyway are forgotten, and
	// if there are none, no job of the queue is accepted.
	MaxSeen = 100_000
	// MaxOpen is how many jobs of the queue may wait, and MaxOpenSource how many of one source.
	MaxOpen       = 1000
	MaxOpenSource = 10
	// MaxHeartbeats is how many heartbeats wait to be sent, a day of them; the oldest are dropped. Results never are.
	MaxHeartbeats = 288
	// MaxUnsent is how many events may wait before nothing more is refused: who sends rubbish must wait as well.
	MaxUnsent = 10_000
	// maxRefusals is how many refusals are remembered, so that each is reported once.
	maxRefusals = 10_000
)

// Where jobs come from.
const (
	FromQueue    = "queue"
	FromSchedule = "schedule"
)

// Errors of the journal.
var (
	// ErrDuplicate says that a job was accepted before.
	ErrDuplicate = errors.New("the job was accepted before")
	// ErrFull says that too much waits; the job can be offered again later.
	ErrFull = errors.New("the journal is full")
	// ErrBusy says that another process has the journal.
	ErrBusy = errors.New("another agent uses this journal")
	// ErrUnknown says that no such job is open.
	ErrUnknown = errors.New("no such job is open")
)

// Entry is a job that was accepted and is not finished.
type Entry struct {
	Job      *events.Job `json:"job"`
	Origin   string      `json:"origin"`
	Accepted time.Time   `json:"accepted"`
	Attempts int         `json:"attempts,omitempty"` // begun and not ended in an orderly way
	Started  time.Time   `json:"started,omitzero"`   // the last attempt; zero: it has not begun
}

// Event is something to report.
type Event struct {
	Number uint64    `json:"number"` // ascending, never used twice
	Type   string    `json:"type"`   // the detail-type
	Time   time.Time `json:"time"`
	Detail string    `json:"detail"` // JSON
}

// Journal is the open journal of an agent. Its methods are safe for concurrent use.
type Journal struct {
	dir  string
	lock *os.File
	hook func(step string) error // for tests: the process dies at a step; nil: it does not

	mu    sync.Mutex
	file  *os.File // guarded by mu, as all below
	size  int64    // of the records that are good
	torn  bool     // bytes that are not good may stand behind size
	loose bool     // the name of the file may not be durable
	base  int64    // size after the last rewrite
	state *State
}

const (
	fileName = "journal"
	newName  = "journal.new"
	lockName = "lock"
	// minRewrite is the size below which a rewrite gains nothing.
	minRewrite = 256 << 10
)

// Open opens the journal in a directory, which is made if need be, and takes it for this process. It returns what the
// last process left behind in [Journal.State]. Damaged lines, which no crash makes, are passed over and counted there.
func Open(dir string, now time.Time) (*Journal, error) { return open(dir, now, nil) }

func open(dir string, now time.Time, hook func(string) error) (j *Journal, err error) {
	if err := durable.Directories(dir); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	j = &Journal{dir: dir, lock: lock, hook: hook}
	defer func() {
		if err != nil {
			_ = j.Close()
			j = nil
		}
	}()
	// A rewrite that was cut off; the old file is still whole.
	if err := os.Remove(filepath.Join(dir, newName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if j.state, j.size, err = load(path); err != nil {
		return nil, err
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := durable.Sync(dir); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j.torn = true // whatever stands behind the last good line goes before the first write
	j.state.forget(now)
	// Where it can't be rewritten, as on a full disk, the old file still has everything.
	_ = j.rewrite()
	return j, nil
}

// Close ends the use of the journal. Everything in it is durable already.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}

// Known reports whether a job was accepted before.
func (j *Journal) Known(id string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.state.Seen[id]
	return ok
}

// Result returns how a job ended, as long as its message may still come again; nil if that is not known.
func (j *Journal) Result(id string) *events.JobFinished {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.Results[id]
}

// Accept takes a job: from here on it is run or reported failed. It errors with [ErrDuplicate] or [ErrFull], and with
// the disk's error, after which the job is not accepted.
func (j *Journal) Accept(job *events.Job, origin string, now time.Time, report ...Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.state.Seen[job.ID]; ok {
		return fmt.Errorf("accept job %s: %w", job.ID, ErrDuplicate)
	}
	j.state.forget(now)
	// Whoever floods the queue must not keep the schedule of the host itself from being followed.
	if origin == FromQueue {
		if err := j.state.room(job); err != nil {
			return fmt.Errorf("accept job %s: %w", job.ID, err)
		}
	}
	return j.append(record{Op: opAccepted, At: now, ID: job.ID, Job: job, Origin: origin, Events: report})
}

// Refuse notes that something was refused. The key says what, so that the same is reported once: it returns false, and
// does nothing, if it is there already. It errors with [ErrFull] where too much waits to be reported.
func (j *Journal) Refuse(key string, now time.Time, report ...Event) (bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.state.Refused[key]; ok {
		return false, nil
	}
	if j.state.forget(now); len(report) > 0 && len(j.state.Outbox) >= MaxUnsent {
		return false, fmt.Errorf("note a refusal: %d events wait: %w", MaxUnsent, ErrFull)
	}
	return true, j.append(record{Op: opRefused, At: now, ID: key, Events: report})
}

// Start notes that a job begins. Attempts that were not ended by [Journal.Interrupt] or [Journal.Finish] count.
func (j *Journal) Start(id string, now time.Time) error {
	return j.change(record{Op: opStarted, At: now, ID: id})
}

// Interrupt notes that a job that had begun was stopped in an orderly way: it begins again later, and the attempt does
// not count.
func (j *Journal) Interrupt(id string, now time.Time) error {
	return j.change(record{Op: opInterrupted, At: now, ID: id})
}

// Finish notes how a job ended.
func (j *Journal) Finish(id string, result *events.JobFinished, now time.Time, report ...Event) error {
	return j.change(record{Op: opFinished, At: now, ID: id, Result: result, Events: report})
}

// Report notes events that report nothing of the above, such as heartbeats.
func (j *Journal) Report(now time.Time, report ...Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(record{Op: opReport, At: now, Events: report})
}

// Pending returns the oldest events that were not sent, at most n, in the order in which they happened.
func (j *Journal) Pending(n int) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Event(nil), j.state.Outbox[:min(n, len(j.state.Outbox))]...)
}

// Sent notes that events have arrived.
func (j *Journal) Sent(now time.Time, numbers ...uint64) error {
	if len(numbers) == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(record{Op: opSent, At: now, Numbers: numbers})
}

// Waiting returns the jobs that are not finished, in the order in which they were accepted.
func (j *Journal) Waiting() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Entry(nil), j.state.Open...)
}

// Last returns how the newest job of each source ended.
func (j *Journal) Last() map[string]events.JobFinished {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make(map[string]events.JobFinished, len(j.state.Last))
	for source, result := range j.state.Last {
		out[source] = *result
	}
	return out
}

// Heard is when the last job came over the queue; zero if none ever did.
func (j *Journal) Heard() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.Heard
}

// Damaged is how many lines of the file could not be read when it was opened.
func (j *Journal) Damaged() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.Damaged
}

// change appends a record about a job that is open.
func (j *Journal) change(r record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.open(r.ID) < 0 {
		return fmt.Errorf("note that job %s is %s: %w", r.ID, r.Op, ErrUnknown)
	}
	return j.append(r)
}
