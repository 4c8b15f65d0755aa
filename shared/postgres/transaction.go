package postgres

import (
	"bytes"
	"encoding/binary"
	"time"
)

// EventKind says what a record of WAL tells that recovery may be told to stop at.
type EventKind int

// The kinds of events.
const (
	Committed EventKind = iota + 1
	Aborted
	RestorePoint
	TablespaceMade // recovery makes it once more, in the same place
)

// Event is what a record of WAL tells: the end of a transaction, or a restore point, at which recovery may be told to stop, or a
// new tablespace.
type Event struct {
	Kind EventKind
	At   LSN       // where the record begins
	Time time.Time // by the server's clock, microseconds; not of TablespaceMade
	XID  uint32    // of Committed and Aborted; 0: it can't be told
	Name string    // of RestorePoint; of TablespaceMade its location, empty: within the data directory
	OID  uint32    // of TablespaceMade
}

// Resource managers: those of transactions' ends, and of tablespaces (src/include/access/rmgrlist.h).
const (
	transactionManager = 1
	tablespaceManager  = 5
)

// Records of xlogManager and transactionManager: src/include/catalog/pg_control.h, src/include/access/xact.h.
const (
	walRestorePoint = 0x70
	tablespaceMade  = 0x00

	xactKind           = 0x70 // mask
	xactCommit         = 0x00
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40
	xactHasInfo        = 0x80

	// maxObserved is how much of a record is looked at, in bytes: what is wanted stands at its beginning, but for the number of
	// a prepared transaction, which stands behind lists of what it has changed.
	maxObserved = 256 << 10
)

// Observe lets see be told of the events in records that are whole and good, in order. Call it before Write.
func (w *Walker) Observe(see func(Event)) { w.see = see }

// observes reports whether the record whose header is here may hold an event.
func (w *Walker) observes() bool {
	if w.see == nil {
		return false
	}
	switch w.header[17] {
	case xlogManager:
		return w.header[16]&0xF0 == walRestorePoint
	case tablespaceManager:
		return w.header[16]&0xF0 == tablespaceMade
	}
	return w.header[17] == transactionManager
}

// collect keeps the bytes of a record that is observed.
func (w *Walker) collect(b []byte) {
	if w.observes() && len(w.body) < maxObserved {
		w.body = append(w.body, b[:min(len(b), maxObserved-len(w.body))]...)
	}
}

// observe tells of the record that has just ended.
func (w *Walker) observe() {
	if !w.observes() {
		return
	}
	if e, ok := parseEvent(w.header[:], w.body); ok {
		e.At = w.record
		w.see(e)
	}
	w.body = w.body[:0]
}

// postgresEpoch is when PostgreSQL's time begins.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func timeOf(micros uint64) time.Time {
	const second = 1e6
	n := int64(micros) //nolint:gosec // signed there
	return time.Unix(postgresEpoch.Unix()+n/second, n%second*1000).UTC()
}

// parseEvent reads a record of one of the observed kinds. body may be cut at maxObserved.
func parseEvent(header, body []byte) (Event, bool) {
	data, ok := mainData(body)
	if !ok || len(data) < 8 && (header[17] != tablespaceManager || len(data) < 4) {
		return Event{}, false
	}
	le := binary.LittleEndian
	if header[17] == tablespaceManager {
		place, _, _ := bytes.Cut(data[4:], []byte{0})
		return Event{Kind: TablespaceMade, OID: le.Uint32(data), Name: string(place)}, true
	}
	e := Event{Time: timeOf(le.Uint64(data)), XID: le.Uint32(header[4:])}
	if header[17] == xlogManager {
		name, _, _ := bytes.Cut(data[8:], []byte{0})
		e.Kind, e.Name, e.XID = RestorePoint, string(name), 0
		return e, true
	}
	switch info := header[16]; info & xactKind {
	case xactCommit:
		e.Kind = Committed
	case xactAbort:
		e.Kind = Aborted
	case xactCommitPrepared:
		e.Kind, e.XID = Committed, prepared(data[8:], info)
	case xactAbortPrepared:
		e.Kind, e.XID = Aborted, prepared(data[8:], info)
	default:
		return Event{}, false
	}
	return e, true
}

// Ids of the parts of a record that have no pages: src/include/access/xlogrecord.h.
const (
	partShort    = 255 // main data, its length in a byte
	partLong     = 254 // main data, its length in four
	partOrigin   = 253 // of replication, two bytes
	partTopLevel = 252 // transaction, four bytes
)

// mainData is the main data of a record without pages; of a record with pages nothing is told.
func mainData(b []byte) ([]byte, bool) {
	for len(b) > 0 {
		skip := 0
		switch b[0] {
		case partShort:
			return b[min(2, len(b)):], true
		case partLong:
			return b[min(5, len(b)):], true
		case partOrigin:
			skip = 3
		case partTopLevel:
			skip = 5
		default:
			return nil, false
		}
		b = b[min(skip, len(b)):]
	}
	return nil, false
}

// prepared finds the number of a transaction that was prepared, behind what else is known of it; 0: it can't be told. The
// lists before it are those of xl_xact_parsed_commit; b begins behind the time.
func prepared(b []byte, info byte) uint32 {
	const (
		hasDatabase, hasSubtransactions, hasFiles, hasMessages, hasTwoPhase, hasStatistics = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 8
	)
	if info&xactHasInfo == 0 || len(b) < 4 {
		return 0
	}
	le := binary.LittleEndian
	flags := le.Uint32(b)
	b = b[4:]
	if flags&hasStatistics != 0 {
		return 0 // entries of other sizes in each version
	}
	skip := func(n uint64) bool {
		if uint64(len(b)) < n {
			return false
		}
		b = b[n:]
		return true
	}
	if flags&hasDatabase != 0 && !skip(8) {
		return 0
	}
	for _, list := range []struct{ flag, size uint32 }{{hasSubtransactions, 4}, {hasFiles, 12}, {hasMessages, 16}} {
		if flags&list.flag == 0 {
			continue
		}
		if len(b) < 4 || !skip(4+uint64(le.Uint32(b))*uint64(list.size)) {
			return 0
		}
	}
	if flags&hasTwoPhase == 0 || len(b) < 4 {
		return 0
	}
	return le.Uint32(b)
}
