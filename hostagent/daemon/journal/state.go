package journal

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/events"
)

// op is what a record notes.
type op string

const (
	opAccepted    op = "accepted"
	opRefused     op = "refused"
	opStarted     op = "started"
	opInterrupted op = "interrupted"
	opFinished    op = "finished"
	opReport      op = "report"
	opSent        op = "sent"
	// The ops of a rewrite: what the state was, in pieces.
	opBase   op = "base"
	opOpen   op = "open"
	opSeen   op = "seen"
	opLast   op = "last"
	opResult op = "result"
)

// record is one line of the file.
type record struct {
	Op      op                  `json:"op"`
	At      time.Time           `json:"at,omitzero"`
	ID      string              `json:"id,omitempty"`
	Job     *events.Job         `json:"job,omitempty"`
	Origin  string              `json:"origin,omitempty"`
	Result  *events.JobFinished `json:"result,omitempty"`
	Events  []Event             `json:"events,omitempty"`
	Numbers []uint64            `json:"numbers,omitempty"`
	Next    uint64              `json:"next,omitempty"`
	Entry   *Entry              `json:"entry,omitempty"`
	Seen    map[string]Seen     `json:"seen,omitempty"`
	Refused map[string]int64    `json:"refused,omitempty"`
}

// Seen is what is kept of a job that was accepted. Times are seconds since 1970.
type Seen struct {
	At    int64 `json:"at"`
	Until int64 `json:"until"` // its not_after
}

// until is when its message can't come again. Whatever was written down, no job is taken whose time is longer.
func (s Seen) until() int64 { return min(s.Until, s.At+int64(events.MaxAhead/time.Second)) }

// State is what the records add up to.
type State struct {
	Open    []Entry                        `json:"open"` // as accepted
	Last    map[string]*events.JobFinished `json:"last"` // by source: how the newest job ended
	Outbox  []Event                        `json:"-"`    // not sent yet, by number
	Heard   time.Time                      `json:"heard,omitzero"`
	Seen    map[string]Seen                `json:"-"` // by id of accepted jobs
	Refused map[string]int64               `json:"-"` // by key: seconds since 1970
	Results map[string]*events.JobFinished `json:"-"` // of jobs whose messages may come again
	Damaged int                            `json:"damaged,omitempty"`

	next   uint64 // number of the next event
	pruned int64  // when ids were last forgotten, seconds since 1970
}

func newState() *State {
	return &State{
		Last: map[string]*events.JobFinished{}, Seen: map[string]Seen{}, Refused: map[string]int64{},
		Results: map[string]*events.JobFinished{}, next: 1,
	}
}

// open finds an open job.
func (s *State) open(id string) int {
	return slices.IndexFunc(s.Open, func(e Entry) bool { return e.Job.ID == id })
}

// room says why a job of the queue must wait there.
func (s *State) room(job *events.Job) error {
	all, same := 0, 0
	for _, e := range s.Open {
		if e.Origin != FromQueue {
			continue
		}
		all++
		if e.Job.Source == job.Source && e.Job.Kind == job.Kind {
			same++
		}
	}
	switch {
	case all >= MaxOpen:
		return fmt.Errorf("%d jobs wait: %w", all, ErrFull)
	case same >= MaxOpenSource:
		return fmt.Errorf("%d jobs of source %s wait: %w", same, job.Source, ErrFull)
	case len(s.Seen) >= MaxSeen:
		return fmt.Errorf("%d ids are remembered: %w", len(s.Seen), ErrFull)
	}
	return nil
}

// apply changes the state by a record. Live changes and the reading of the file both come here, so that what is found
// after a crash is what was there before. A record that fits nothing, as after a damaged line, changes what it can.
func (s *State) apply(r record) {
	at := s.open(r.ID)
	switch r.Op {
	case opAccepted:
		if r.Job != nil && at < 0 {
			s.Open = append(s.Open, Entry{Job: r.Job, Origin: r.Origin, Accepted: r.At})
			s.Seen[r.Job.ID] = Seen{At: r.At.Unix(), Until: r.Job.NotAfter.Unix()}
			if r.Origin == FromQueue {
				s.Heard = r.At
			}
		}
	case opRefused:
		s.Refused[r.ID] = r.At.Unix()
	case opStarted:
		if at >= 0 {
			s.Open[at].Started = r.At
			s.Open[at].Attempts++
		}
	case opInterrupted:
		if at >= 0 {
			s.Open[at].Attempts = max(0, s.Open[at].Attempts-1)
		}
	case opFinished:
		if at >= 0 {
			s.Open = slices.Delete(s.Open, at, at+1)
		}
		s.finished(r.Result)
	case opSent:
		s.Outbox = slices.DeleteFunc(s.Outbox, func(e Event) bool { return slices.Contains(r.Numbers, e.Number) })
	case opBase, opOpen, opSeen, opLast, opResult:
		s.restore(r)
	}
	for _, e := range r.Events {
		s.Outbox = append(s.Outbox, e)
		s.next = max(s.next, e.Number+1)
		if e.Type == events.TypeHeartbeat {
			s.dropHeartbeats()
		}
	}
}

func (s *State) finished(result *events.JobFinished) {
	if result == nil {
		return
	}
	s.Results[result.Job] = result
	if result.Source != "" && result.Kind == events.Backup {
		s.Last[result.Source] = result
	}
}

// restore takes a piece of a state that was written by a rewrite.
func (s *State) restore(r record) {
	switch {
	case r.Op == opBase:
		s.next, s.Heard = max(s.next, r.Next), r.At
	case r.Op == opOpen && r.Entry != nil && r.Entry.Job != nil:
		s.Open = append(s.Open, *r.Entry)
	case r.Op == opLast && r.Result != nil:
		s.Last[r.Result.Source] = r.Result
	case r.Op == opResult && r.Result != nil:
		s.Results[r.Result.Job] = r.Result
	}
	for id, seen := range r.Seen {
		s.Seen[id] = seen
	}
	for key, at := range r.Refused {
		s.Refused[key] = at
	}
}

// dropHeartbeats drops the oldest heartbeats beyond what may wait: the newest says more. Other events stay.
func (s *State) dropHeartbeats() {
	beats := 0
	for _, e := range s.Outbox {
		if e.Type == events.TypeHeartbeat {
			beats++
		}
	}
	s.Outbox = slices.DeleteFunc(s.Outbox, func(e Event) bool {
		if e.Type != events.TypeHeartbeat || beats <= MaxHeartbeats {
			return false
		}
		beats--
		return true
	})
}

// forget drops what is too old to matter. It looks at everything, so it does so once an hour, or when there is too much.
func (s *State) forget(now time.Time) {
	tooMany := len(s.Seen) >= MaxSeen
	if !tooMany && len(s.Refused) < maxRefusals && now.Unix() < s.pruned+3600 {
		return
	}
	s.pruned = now.Unix()
	old := now.Add(-Remember).Unix()
	maps.DeleteFunc(s.Results, func(id string, _ *events.JobFinished) bool {
		seen, ok := s.Seen[id]
		return !ok || seen.until() < now.Unix()
	})
	open := map[string]bool{}
	for _, e := range s.Open {
		open[e.Job.ID] = true
	}
	for id, seen := range s.Seen {
		// A job is no duplicate any more only when its message would be refused as stale.
		stale := seen.until() < now.Unix()
		if !open[id] && stale && (seen.At < old || tooMany) {
			delete(s.Seen, id)
		}
	}
	for key, at := range s.Refused {
		if at < old || len(s.Refused) >= maxRefusals {
			delete(s.Refused, key)
		}
	}
}
