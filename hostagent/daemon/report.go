package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
)

// batch is how many events are sent at once.
const batch = 10

// maxQueued is how many ids of waiting jobs a heartbeat has.
const maxQueued = 100

// beat sends a heartbeat now and then.
func (a *Agent) beat(ctx context.Context) {
	for ctx.Err() == nil {
		a.heartbeat()
		sleep(ctx, a.Heartbeat)
	}
}

// heartbeat puts one heartbeat into the journal.
func (a *Agent) heartbeat() {
	if a.Bus == nil {
		return
	}
	now := time.Now()
	h := events.Heartbeat{
		Version: events.Version, Host: a.Host, Agent: a.Version, Time: now.UTC(), Sources: map[string]events.LastRun{},
	}
	if err := a.Policies.Problem(); err != nil {
		h.Problem = clip(err.Error())
	}
	a.mu.Lock()
	if a.running != nil {
		r := *a.running
		h.Running = &r
	}
	a.mu.Unlock()
	for _, e := range a.Journal.Waiting() {
		if (h.Running == nil || e.Job.ID != h.Running.Job) && len(h.Queued) < maxQueued {
			h.Queued = append(h.Queued, e.Job.ID)
		}
	}
	if a.Logs != nil {
		h.Logs = a.Logs()
	}
	a.lastRuns(&h)
	h.Free = a.freeBytes(places(a.Policies.Current(), a.Host))
	if err := a.Journal.Report(now, a.event(events.TypeHeartbeat, now, h)...); err != nil {
		a.Log.Error("a heartbeat can not be noted", "error", err)
		return
	}
	nudge(a.mail)
}

// logEntry is the most that a log takes in a heartbeat, in bytes: its texts are short.
const logEntry = 1 << 10

// lastRuns adds how the sources of the policy were backed up last, as far as a message has room: the newest first, and
// long errors only as long as there is much of it. Both are in the events of the jobs as well.
func (a *Agent) lastRuns(h *events.Heartbeat) {
	const entry = 400 // bytes of one without its error, and more than enough
	room := events.MaxMessage - 16<<10 - len(h.Logs)*logEntry
	p := a.Policies.Current()
	var list []events.JobFinished
	for source, f := range a.Journal.Last() {
		if _, err := p.Lookup(a.Host, source); err == nil {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(x, y events.JobFinished) int { return y.Finished.Compare(x.Finished) })
	for _, f := range list {
		if room -= entry; room < 0 {
			return
		}
		text := f.Error
		if 2*len(text) > room/2 { // JSON may write a byte as several
			text = ""
		}
		room -= 2 * len(text)
		h.Sources[f.Source] = events.LastRun{
			Job: f.Job, Kind: f.Kind, Type: f.Type, Due: f.Due, Result: f.Result, Error: text, Snapshot: f.Snapshot,
			Started: f.Started, Finished: f.Finished,
		}
	}
}

// send sends events as they come until ctx ends. While the network is away they wait in the journal.
func (a *Agent) send(ctx context.Context) {
	var b backoff
	told := false
	for ctx.Err() == nil {
		left, err := a.sendBatch(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait := b.next()
			if !told || wait == mostBackoff {
				a.Log.Error("events can not be sent and wait on the disk", "error", err, "again", wait)
				told = true
			}
			sleep(ctx, wait)
			continue
		case told:
			a.Log.Info("events are sent again")
		}
		b, told = backoff{}, false
		if left {
			continue
		}
		select {
		case <-ctx.Done():
		case <-a.mail:
		}
	}
}

// flush sends what waits, until an error.
func (a *Agent) flush(ctx context.Context) {
	for ctx.Err() == nil {
		left, err := a.sendBatch(ctx)
		if err != nil {
			a.Log.Error("events can not be sent and wait on the disk", "error", err)
			return
		}
		if !left {
			return
		}
	}
}

// sendBatch sends the oldest events and reports whether there may be more.
func (a *Agent) sendBatch(ctx context.Context) (left bool, err error) {
	if a.Bus == nil {
		return false, nil
	}
	list := a.Journal.Pending(batch)
	if len(list) == 0 {
		return false, nil
	}
	each, err := a.Bus.Put(ctx, list)
	if err != nil {
		return true, err
	}
	var arrived []uint64
	for i, e := range list {
		var one error
		if i < len(each) {
			one = each[i]
		}
		switch {
		case one == nil:
			arrived = append(arrived, e.Number)
		case errors.Is(one, ErrNever):
			// It would stand in the way of all others for ever. What it says is in the log.
			a.Log.Error("an event is given up", "type", e.Type, "detail", e.Detail, "error", one)
			arrived = append(arrived, e.Number)
		default:
			err = one
		}
	}
	// A crash here sends them again: who reads events knows them by their job.
	if serr := a.Journal.Sent(time.Now(), arrived...); serr != nil {
		return true, serr
	}
	return len(list) == batch, err
}
