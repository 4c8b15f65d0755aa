package alert

import (
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// Pattern selects alerts. Empty members fit all.
type Pattern struct {
	Source string          `json:"source,omitempty"` // host/source or host; * and ? as in shells, not across the slash; a host fits its sources too
	Code   compliance.Code `json:"code,omitempty"`
	Tier   policy.Tier     `json:"tier,omitempty"`
}

// Ack says that somebody knows: what it fits is not repeated until it ends. What opens is told all the same, and so is
// its end.
type Ack struct {
	Pattern
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until"`
}

// Window is a time of maintenance: nothing that it fits is told while it lasts. What is still not met afterwards is told
// then.
type Window struct {
	Pattern
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
}

// The longest that anything may be quiet: what is forgotten must come up again.
const (
	MostAck    = 30 * 24 * time.Hour
	MostWindow = 7 * 24 * time.Hour
)

// Check reports a pattern that fits nothing.
func (p Pattern) Check() error {
	if _, err := path.Match(p.Source, "host/source"); err != nil {
		return fmt.Errorf("pattern %q: %w", p.Source, err)
	}
	return nil
}

func (p Pattern) fits(o *Open) bool {
	if p.Code != "" && p.Code != o.Code || p.Tier != "" && p.Tier != o.Tier {
		return false
	}
	if p.Source == "" {
		return true
	}
	if ok, err := path.Match(p.Source, o.Source); err == nil && ok {
		return true
	}
	// A pattern of a host fits what is on it.
	ok, err := path.Match(p.Source+"/*", o.Source)
	return err == nil && ok
}

// Acknowledge adds an acknowledgement. Who acknowledges must say who he is and for how long.
func (b *Book) Acknowledge(a Ack, now time.Time) error {
	switch {
	case a.By == "":
		return errors.New("acknowledge: by is empty: say who knows of it")
	case !a.Until.After(now) || a.Until.Sub(now) > MostAck:
		return fmt.Errorf("acknowledge: until %s: want a time within the next %s", a.Until.Format(time.RFC3339), policy.Duration(MostAck))
	}
	if err := a.Check(); err != nil {
		return err
	}
	a.Until = a.Until.UTC()
	b.Acks = append(b.Acks, a)
	return nil
}

// Maintain adds a maintenance window.
func (b *Book) Maintain(w Window, now time.Time) error {
	if w.From.IsZero() {
		w.From = now
	}
	switch {
	case w.By == "":
		return errors.New("maintenance: by is empty: say who works there")
	case !w.Until.After(now) || !w.Until.After(w.From) || w.Until.Sub(w.From) > MostWindow:
		return fmt.Errorf("maintenance: until %s: want a time after its begin, within %s", w.Until.Format(time.RFC3339), policy.Duration(MostWindow))
	}
	if err := w.Check(); err != nil {
		return err
	}
	w.From, w.Until = w.From.UTC(), w.Until.UTC()
	b.Windows = append(b.Windows, w)
	return nil
}

func (b *Book) acknowledged(o *Open, now time.Time) bool {
	for _, a := range b.Acks {
		if now.Before(a.Until) && a.fits(o) {
			return true
		}
	}
	return false
}

func (b *Book) muted(o *Open, now time.Time) bool {
	for _, w := range b.Windows {
		if !now.Before(w.From) && now.Before(w.Until) && w.fits(o) {
			return true
		}
	}
	return false
}
