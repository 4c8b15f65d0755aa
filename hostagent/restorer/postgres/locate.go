package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// LocateMost is how much WAL is searched for a transaction or a restore point before anything is touched, in bytes: a
// fraction of the time that recovering it would take.
const LocateMost = 4 << 30

// Located is what a search in the log has found of a target.
type Located struct {
	Found bool
	At    pg.LSN    // of the record
	Time  time.Time // by the server's clock
	// Sure says that the target is not in the WAL that was searched, where it was not found: all of it was read, and is WAL.
	Sure bool
	Near []string // what else there is: the restore points, or the transactions that ended with the nearest numbers
	WAL  uint64   // bytes that were searched
}

// Locate looks for a target of kind XID or Name in the log of the source, before anything is touched: from where the base is
// consistent up to an LSN, or to the end where that is 0. It reads at most so many bytes of WAL. Other targets need no
// search. Errors are the log's.
func (s *Source) Locate(ctx context.Context, t Target, until pg.LSN, most uint64) (Located, error) {
	if s.Log == nil || t.Kind != XID && t.Kind != Name {
		return Located{}, nil
	}
	f := &finder{source: s, target: t, until: until, out: Located{Sure: true}}
	for r, err := range s.Log.Records(ctx, s.Log.From) {
		if err != nil {
			return f.located(), err
		}
		if f.out.WAL+uint64(len(r.WAL)) > most {
			f.out.Sure = false
			break
		}
		f.out.WAL += uint64(len(r.WAL))
		if f.take(&r); f.out.Found || until != 0 && r.Start >= until {
			break
		}
	}
	return f.located(), ctx.Err()
}

// finder searches WAL.
type finder struct {
	source *Source
	target Target
	until  pg.LSN
	walker *pg.Walker
	walked uint32 // its timeline
	out    Located
	points []string  // restore points, in order
	below  *pg.Event // ended transactions with the nearest numbers
	above  *pg.Event
}

// take searches one record of the log.
func (f *finder) take(r *Record) {
	if len(r.WAL) == 0 {
		return
	}
	size := f.source.Log.Segment
	if f.walker == nil || r.Timeline != f.walked {
		if uint64(r.Start)%size != 0 { // the rest of a segment that the base has
			f.out.Sure = f.out.Sure && r.Start+pg.LSN(len(r.WAL)) <= f.source.Stop
			return
		}
		f.walked = r.Timeline
		f.walker = pg.NewWalker(pg.Origin{System: f.source.System, Timeline: r.Timeline, SegmentSize: uint32(size)}, r.Start) //nolint:gosec // at most 1 GiB
		f.walker.Observe(f.event)
	}
	if r.Start != f.walker.Next() {
		f.out.Sure = false
		return
	}
	if _, err := f.walker.Write(r.WAL); err != nil {
		f.out.Sure = false
	}
}

// event looks at one event.
func (f *finder) event(e pg.Event) {
	if e.At < f.source.Stop || f.until != 0 && e.At >= f.until || f.out.Found {
		return // the base has it, or it was searched already
	}
	switch t := f.target; {
	case t.Kind == Name && e.Kind == pg.RestorePoint:
		if e.Name == t.Name {
			f.out.Found, f.out.At, f.out.Time = true, e.At, e.Time
			return
		}
		f.points = append(f.points, fmt.Sprintf("%q of %s", e.Name, stamp(e.Time)))
	case t.Kind == XID && (e.Kind == pg.Committed || e.Kind == pg.Aborted):
		f.transaction(e)
	}
}

// transaction looks at the end of a transaction.
func (f *finder) transaction(e pg.Event) {
	wanted := uint32(f.target.XID)              //nolint:gosec // as the server takes it
	switch distance := int32(e.XID - wanted); { //nolint:gosec // numbers wrap around
	case e.XID == 0:
		f.out.Sure = false // it can't be told which one that is
	case distance == 0:
		f.out.Found, f.out.At, f.out.Time = true, e.At, e.Time
	case distance < 0 && (f.below == nil || int32(e.XID-f.below.XID) > 0): //nolint:gosec // as above
		f.below = &e
	case distance > 0 && (f.above == nil || int32(e.XID-f.above.XID) < 0): //nolint:gosec // as above
		f.above = &e
	}
}

// nearPoints is how many restore points are named.
const nearPoints = 6

// located is what was found, with what is near.
func (f *finder) located() Located {
	names := slices.Clone(f.points[max(0, len(f.points)-nearPoints):])
	for _, e := range []*pg.Event{f.below, f.above} {
		if e == nil {
			continue
		}
		word := "committed"
		if e.Kind == pg.Aborted {
			word = "aborted"
		}
		names = append(names, fmt.Sprintf("transaction %d, %s %s", e.XID, word, stamp(e.Time)))
	}
	f.out.Near = names
	return f.out
}

// Missing says that a target that was searched for is not there.
func (l Located) Missing(t Target, where string) *TargetError {
	e := &TargetError{Target: t, Reason: "it is not in the log " + where}
	switch {
	case len(l.Near) > 0:
		e.Near = "the nearest there: " + strings.Join(l.Near, "; ")
	case t.Kind == Name:
		e.Near = "no restore point is there"
	default:
		e.Near = "no transaction ended there"
	}
	return e
}
