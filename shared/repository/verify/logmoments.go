package verify

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// Moments is a stretch of time of which no moment can be restored any more.
type Moments struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"` // zero: to the end
}

// momentsOf is what is lost when record n of an epoch can't be applied: from the record before it to the next snapshot
// that holds it.
func (l *logs) momentsOf(e *log.Epoch, n uint64) Moments {
	var m Moments
	switch {
	case e.Described != nil:
		m.From = e.Described.Opened
	case len(e.Pieces) > 0:
		m.From = e.Pieces[0].Arrived()
	}
	for _, p := range e.Pieces {
		if p.Last < n {
			m.From = p.Arrived()
		}
	}
	for _, s := range l.stored {
		if s.Log == nil || s.Finished.Before(m.From) {
			continue
		}
		before := s.Log.Stream == e.Stream && (s.Log.Epoch < e.Epoch || s.Log.Epoch == e.Epoch && s.Log.Sequence < n)
		if !before && (m.To.IsZero() || s.Finished.Before(m.To)) {
			m.To = s.Finished
		}
	}
	return m
}

func (m Moments) String() string {
	const form = "2006-01-02T15:04:05Z"
	if m.To.IsZero() {
		return "no moment after " + m.From.UTC().Format(form) + " can be restored until the next snapshot"
	}
	return "no moment between " + m.From.UTC().Format(form) + " and " + m.To.UTC().Format(form) + " can be restored"
}

// lost adds the moments to a finding.
func (l *logs) lost(key string, problem Problem, m Moments) {
	f := l.c.findings
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := f.byPlace[place{key, problem}]; at != nil && at.Lost == nil {
		at.Lost = &m
	}
}
