package inventory

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// LogName names an epoch of a log.
type LogName struct {
	Stream string // 32 hex digits
	Epoch  uint64
}

// LogPiece is a piece or a segment as the listing shows it: 32 bytes, for there may be millions.
type LogPiece struct {
	First, Last uint64 // records
	arrived     int64  // nanoseconds since 1970
	Size        uint32 // bytes
	Class       objstore.Class
}

// Arrived is when the store received it, by the store's clock.
func (p LogPiece) Arrived() time.Time { return time.Unix(0, p.arrived).UTC() }

// LogEpoch is what is there of an epoch.
type LogEpoch struct {
	LogName
	Head     Object // Modified is zero: it is not there
	Pieces   []LogPiece
	Segments []LogPiece // ascending by First, as Pieces
}

// Key is the object key of a piece, or a segment.
func (e *LogEpoch) object(p LogPiece, joined bool) layout.LogObject {
	return layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: p.First, Last: p.Last, Joined: joined}
}

// All calls fn with the name of each piece and segment, pieces first.
func (e *LogEpoch) All(fn func(o layout.LogObject, p LogPiece)) {
	for _, p := range e.Pieces {
		fn(e.object(p, false), p)
	}
	for _, p := range e.Segments {
		fn(e.object(p, true), p)
	}
}

// Newest is when the newest object of the epoch arrived.
func (e *LogEpoch) Newest() time.Time {
	at := e.Head.Modified
	for _, all := range [][]LogPiece{e.Pieces, e.Segments} {
		for _, p := range all {
			if p.Arrived().After(at) {
				at = p.Arrived()
			}
		}
	}
	return at
}

// LogRun is records of an epoch that follow each other without a hole.
type LogRun struct {
	First, Last uint64
	From, To    time.Time // arrival of the first and the last of them
}

// Runs returns the records that pieces and segments hold, ascending.
func (e *LogEpoch) Runs() []LogRun {
	all := slices.Concat(e.Pieces, e.Segments)
	slices.SortStableFunc(all, func(a, b LogPiece) int { return cmp.Compare(a.First, b.First) })
	var out []LogRun
	for _, p := range all {
		n := len(out)
		if n == 0 || p.First > out[n-1].Last+1 {
			out = append(out, LogRun{p.First, p.Last, p.Arrived(), p.Arrived()})
			continue
		}
		switch r := &out[n-1]; {
		case p.Last > r.Last:
			r.Last, r.To = p.Last, p.Arrived()
		case p.Last == r.Last && p.Arrived().Before(r.To):
			r.To = p.Arrived() // the piece; its segment came later
		}
	}
	return out
}

// Cut names the records of an epoch up to a number, which retention removes or has removed.
type Cut struct {
	LogName
	Last uint64
}

// addLog files an object of a log.
func (inv *Inventory) addLog(info objstore.Info, o Object) bool {
	name, err := layout.ParseLog(inv.Source, info.Key)
	if err != nil {
		return false
	}
	at := LogName{name.Stream, name.Epoch}
	e := inv.Logs[at]
	if e == nil {
		e = &LogEpoch{LogName: at}
		inv.Logs[at] = e
	}
	p := LogPiece{First: name.First, Last: name.Last, arrived: info.Modified.UnixNano(), Size: uint32(min(info.Size, 1<<32-1)), Class: info.Class}
	switch {
	case name.Head():
		e.Head = o
	case name.Joined:
		e.Segments = append(e.Segments, p)
	default:
		e.Pieces = append(e.Pieces, p)
	}
	return true
}

// addCut files an announced or recorded removal of records.
func addCut(m map[Cut]Object, prefix, key string, o Object) bool {
	stream, epoch, last, err := layout.ParseCut(prefix, key)
	return put(m, Cut{LogName{stream, epoch}, last}, o, err)
}

// addDocumentOfLog files the documents about logs that stand beside those about snapshots; it reports false for others.
func (inv *Inventory) addDocumentOfLog(kind, name, key string, o Object) (ours, known bool) {
	if !strings.HasPrefix(name, "log/") {
		return false, false
	}
	switch kind {
	case "condemned":
		return true, addCut(inv.LogCondemned, layout.CondemnedLogPrefix(inv.Source), key, o)
	case "expired":
		return true, addCut(inv.LogExpired, layout.ExpiredLogPrefix(inv.Source), key, o)
	case "damaged":
		at, err := layout.ParseDamagedLog(inv.Source, key)
		return true, put(inv.LogDamaged, at, o, err)
	}
	return false, false
}

// Streams returns the epochs of each stream, ascending.
func (inv *Inventory) Streams() map[string][]*LogEpoch {
	out := map[string][]*LogEpoch{}
	for _, e := range inv.Logs {
		out[e.Stream] = append(out[e.Stream], e)
	}
	for _, all := range out {
		slices.SortFunc(all, func(a, b *LogEpoch) int { return cmp.Compare(a.Epoch, b.Epoch) })
	}
	return out
}

// LogNames returns the epochs that have anything, ascending by stream and number.
func (inv *Inventory) LogNames() []LogName {
	return slices.SortedFunc(maps.Keys(inv.Logs), func(a, b LogName) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Epoch, b.Epoch))
	})
}

// RemovedUpTo is the last record of an epoch of which a record says that retention removed it; 0: none.
func (inv *Inventory) RemovedUpTo(name LogName) uint64 {
	last := uint64(0)
	for c := range inv.LogExpired {
		if c.LogName == name {
			last = max(last, c.Last)
		}
	}
	return last
}
