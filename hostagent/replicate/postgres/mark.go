package postgres

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	pgsource "github.com/btcdecoded/holdfast/hostagent/source/postgres"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// mark is what a follower must know after it was killed: how far it came.
type mark struct {
	System   uint64       `json:"system,string"`
	Segment  uint32       `json:"segment_size"`
	Lineage  string       `json:"lineage"` // 8 hex digits, the last of the ids of its streams
	Slot     string       `json:"slot,omitempty"`
	Made     bool         `json:"made,omitempty"`      // the slot was made by us
	Gone     bool         `json:"gone,omitempty"`      // and was removed, as nobody wants to stream any more
	Based    bool         `json:"based"`               // there is a base backup that the lineage begins with
	BaseStop postgres.LSN `json:"base_stop,omitempty"` // where that ends; 0: not known
	Answered time.Time    `json:"answered,omitzero"`   // a base backup made up for the damage of the log that was noted by then, by the store's clock
	Stream   string       `json:"stream"`
	Timeline uint32       `json:"timeline"`
	Epoch    uint64       `json:"epoch"` // the highest of the stream that this host knows of, or is about to open

	Last    point   `json:"last"`              // durable
	Pending *point  `json:"pending,omitempty"` // on its way
	Next    *next   `json:"next,omitempty"`    // the stream that is about to be begun for the next timeline
	Bounds  []bound `json:"bounds"`            // of the stream, ascending
}

// point is a place in the log and the WAL that it stands for.
type point struct {
	Place log.Place    `json:"place"`
	LSN   postgres.LSN `json:"lsn"`           // all WAL before it is in the log
	Time  time.Time    `json:"time,omitzero"` // of the record
	Check *check       `json:"check,omitempty"`
}

// check proves which WAL is before a place. What follows it up to the place is zeros, as behind a switch of segments: they would
// prove nothing.
type check struct {
	From postgres.LSN `json:"from"`
	To   postgres.LSN `json:"to,omitempty"` // 0: the place
	Sum  string       `json:"sum"`          // SHA-256 of the bytes from the one to the other
}

func checkOf(from postgres.LSN, b []byte) *check {
	if len(b) == 0 {
		return nil
	}
	sum := sha256.Sum256(b)
	return &check{from, from + postgres.LSN(len(b)), hex.EncodeToString(sum[:])}
}

// proof is the check of a place; nil: there is none.
func (p point) proof() *check {
	if p.Check == nil || p.Check.To != 0 {
		return p.Check
	}
	c := *p.Check
	c.To = p.LSN
	return &c
}

// bound is the start of a segment, and the place right before the record that begins there.
type bound struct {
	LSN   postgres.LSN `json:"lsn"`
	Place log.Place    `json:"place"`
	Sum   string       `json:"sum,omitempty"` // of the whole segment: half of its SHA-256; empty: not known
}

// keptBounds is how many starts of segments are known: a snapshot stands at one of them, and a server that was promoted
// without our last records parts from the log at one.
const keptBounds = 16

// next is a stream that is about to be begun.
type next struct {
	Stream string `json:"stream"`
	Epoch  uint64 `json:"epoch"` // the highest that was tried
}

// clone returns a copy that shares nothing that changes.
func (m *mark) clone() *mark {
	c := *m
	c.Bounds = slices.Clone(m.Bounds)
	return &c
}

// reached notes that all WAL up to a point is durable.
func (m *mark) reached(p point) {
	m.Last, m.Pending = p, nil
	if p.LSN == p.LSN.SegmentStart(m.Segment) && (len(m.Bounds) == 0 || m.Bounds[len(m.Bounds)-1].LSN < p.LSN) {
		m.Bounds = append(m.Bounds, bound{LSN: p.LSN, Place: p.Place})
		m.Bounds = slices.Delete(m.Bounds, 0, max(0, len(m.Bounds)-keptBounds))
	}
}

// onward is the point from which new records go on: a little later, so that an epoch that is opened then is later than what it
// goes on from, whatever it holds.
func (m *mark) onward() point {
	p := m.Last
	p.Time = after(p.Time)
	return p
}

// bound returns the place at the start of a segment, if it is known.
func (m *mark) bound(at postgres.LSN) (log.Place, bool) {
	for _, b := range m.Bounds {
		if b.LSN == at {
			return b.Place, true
		}
	}
	return log.Place{}, false
}

// streamOf is the id of a lineage's stream of a timeline.
func streamOf(system uint64, timeline uint32, lineage string) string {
	return fmt.Sprintf("%016x%08x%s", system, timeline, lineage)
}

// newMark begins a lineage: the first WAL of its log is that at start, which begins a segment.
func newMark(system uint64, timeline, segment uint32, start postgres.LSN) (*mark, error) {
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("begin a log: %w", err)
	}
	m := &mark{System: system, Segment: segment, Lineage: hex.EncodeToString(id[:]), Timeline: timeline}
	m.Stream = streamOf(system, timeline, m.Lineage)
	m.reached(point{Place: log.Place{Stream: m.Stream}, LSN: start})
	return m, nil
}

// Tail tells at which place of the log a base backup stands that begins now. It is for who makes one, in whichever process.
type Tail struct{ m *mark }

// ReadTail reads from a source's state directory how far its log is; call it right before the backup begins. Nil: there is
// no log.
func ReadTail(dir string) (*Tail, error) {
	m := new(mark)
	found, err := replicate.ReadMark(dir, policy.KindPostgres, m)
	if err != nil || !found {
		return nil, err
	}
	return &Tail{m}, nil
}

// Proof is how a server is known that goes on where the log is; nil: nothing tells.
func (t *Tail) Proof() *pgsource.Proof {
	if t == nil {
		return nil
	}
	c := t.m.Last.proof()
	if c == nil {
		return nil
	}
	return &pgsource.Proof{System: t.m.System, Timeline: t.m.Timeline, From: c.From, To: c.To, Sum: c.Sum}
}

// Place is the place from which on all WAL is in the log, or will be, that a backup needs which begins at start, on a
// timeline of a system, and has WAL of its own up to end. It is the start of a segment. Of a standby a backup may begin before
// all that is known here: then it has what is before the place itself. Nil where it does not, or the log is that of another
// system or timeline: then the backup stands for itself.
func (t *Tail) Place(system uint64, timeline uint32, start, end postgres.LSN) *log.Place {
	if t == nil || t.m.System != system || t.m.Timeline != timeline || len(t.m.Bounds) == 0 {
		return nil
	}
	bounds := t.m.Bounds
	// All of them are durable. The newest that is not behind the backup's begin is the best one.
	for i := len(bounds) - 1; i >= 0; i-- {
		if bounds[i].LSN <= start {
			return &bounds[i].Place
		}
	}
	if bounds[0].LSN <= end {
		return &bounds[0].Place
	}
	return nil
}
