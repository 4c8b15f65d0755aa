package postgres

import (
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// TargetKind says what ends a recovery.
type TargetKind string

// The kinds of targets.
const (
	Latest TargetKind = "latest"   // all of the log
	Base   TargetKind = "snapshot" // as soon as the base is consistent
	Time   TargetKind = "time"
	LSN    TargetKind = "lsn"
	XID    TargetKind = "xid"
	Name   TargetKind = "name" // of a restore point
)

// Target is where a recovery ends.
type Target struct {
	Kind      TargetKind `json:"kind"`
	Time      time.Time  `json:"time,omitzero"`
	LSN       pg.LSN     `json:"lsn,omitempty"`
	XID       uint64     `json:"xid,omitempty"`
	Name      string     `json:"name,omitempty"`
	Exclusive bool       `json:"exclusive,omitempty"` // right before the target, not right after
}

func (t Target) String() string {
	text := ""
	switch t.Kind {
	case Time:
		text = "time " + t.Time.UTC().Format(time.RFC3339Nano)
	case LSN:
		text = "LSN " + t.LSN.String()
	case XID:
		text = fmt.Sprintf("transaction %d", t.XID)
	case Name:
		text = fmt.Sprintf("restore point %q", t.Name)
	case Base:
		return "the snapshot as it is"
	default:
		return "the end of the log"
	}
	if t.Exclusive {
		return "right before " + text
	}
	return text
}

// settings are those of the server that make it stop there. It never promotes by itself: what was reached is proven first.
func (t Target) settings(timeline uint32) []pgserver.Setting {
	out := []pgserver.Setting{
		{Name: "recovery_target_timeline", Value: fmt.Sprint(timeline)}, {Name: "recovery_target_action", Value: "pause"},
	}
	// Other tools leave in postgresql.auto.conf where their recovery ended: this one must not end there. These come first: a
	// setting that is empty takes back what was set before it.
	for _, name := range []string{"", "_time", "_lsn", "_xid", "_name"} {
		if name != "_"+string(t.Kind) {
			out = append(out, pgserver.Setting{Name: "recovery_target" + name})
		}
	}
	one := pgserver.Setting{Name: "recovery_target_" + string(t.Kind)}
	switch t.Kind {
	case Base:
		return append(out, pgserver.Setting{Name: "recovery_target", Value: "immediate"})
	case Time:
		// Its commits have microseconds: what is cut off never lets a later one in.
		one.Value = t.Time.UTC().Format("2006-01-02 15:04:05.000000") + "+00"
	case LSN:
		one.Value = t.LSN.String()
	case XID:
		one.Value = fmt.Sprint(t.XID)
	case Name:
		one.Value = t.Name
	default:
		return out
	}
	inclusive := pgserver.Setting{Name: "recovery_target_inclusive", Value: "on"}
	if t.Exclusive {
		inclusive.Value = "off"
	}
	return append(out, one, inclusive)
}

// stops reports whether what a server says when it stops is of this target: "recovery stopping …".
func (t Target) stops(words string) bool {
	switch t.Kind {
	case Base:
		return strings.Contains(words, "reaching consistency")
	case Time:
		return strings.Contains(words, "before commit of transaction") || strings.Contains(words, "before abort of transaction")
	case LSN:
		return strings.Contains(words, "WAL location (LSN)")
	case XID:
		return strings.Contains(words, fmt.Sprintf(" of transaction %d,", uint32(t.XID))) //nolint:gosec // as the server takes it
	case Name:
		return strings.Contains(words, `at restore point "`+t.Name+`",`)
	}
	return false // the end of the log is no stop
}

// mayEndAtLog reports whether the end of the log is as good as the target: nothing behind the target is known then.
func (t Target) mayEndAtLog() bool { return t.Kind == Latest || t.Kind == Time }

// TargetError says that a target can't be recovered, before anything is touched.
type TargetError struct {
	Target Target
	Reason string
	Near   string // what could be asked for instead; may be empty
}

func (e *TargetError) Error() string {
	return fmt.Sprintf("recover to %s: %s", e.Target, e.Reason)
}

// Hint names the nearest points.
func (e *TargetError) Hint() string { return e.Near }

// maxName is how long the name of a restore point may be, in bytes.
const maxName = 63

// Check refuses a target that no base and log could ever reach.
func (t Target) Check() error {
	switch {
	case t.Kind == Name && (t.Name == "" || len(t.Name) > maxName || strings.ContainsRune(t.Name, 0)):
		return &TargetError{Target: t, Reason: fmt.Sprintf("a restore point has a name of 1 to %d bytes", maxName)}
	case t.Kind == XID && (uint32(t.XID) < 3):
		return &TargetError{Target: t, Reason: "the numbers of transactions begin with 3"}
	case t.Kind == LSN && t.LSN == 0:
		return &TargetError{Target: t, Reason: "the log begins behind 0/0"}
	}
	return nil
}

// Fits refuses a target that lies before the base's end, which PostgreSQL would take in silence and stop somewhere else, or
// behind the end of the log.
func (s *Source) Fits(t Target) error {
	if err := t.Check(); err != nil {
		return err
	}
	bounds := fmt.Sprintf("this snapshot and its log reach from %s, LSN %s", stamp(s.Time), s.Stop)
	end := s.Stop
	if s.Log != nil {
		end = s.Log.End
	}
	bounds += fmt.Sprintf(", to LSN %s", end)
	switch {
	case t.Kind == Time && t.Time.Before(s.Time):
		return &TargetError{Target: t, Reason: "the snapshot was complete only at " + stamp(s.Time), Near: bounds + "; take an older snapshot for what is before"}
	case t.Kind == LSN && t.LSN < s.Stop:
		return &TargetError{Target: t, Reason: "the snapshot is consistent only from " + s.Stop.String() + " on", Near: bounds + "; take an older snapshot for what is before"}
	case t.Kind == LSN && t.LSN > end:
		return &TargetError{Target: t, Reason: "the log ends before it, at " + end.String(), Near: bounds}
	case s.Log == nil && (t.Kind == XID || t.Kind == Name):
		return &TargetError{Target: t, Reason: "no log follows the snapshot", Near: bounds}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
