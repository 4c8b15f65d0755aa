package sqlite

import (
	"errors"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mark is what a follower must know after it was killed: how far it came.
type mark struct {
	Path    string `json:"path"`
	Stream  string `json:"stream"`  // empty: something was missed, and none has begun since
	Epoch   uint64 `json:"epoch"`   // the highest that this host knows of, or is about to open
	Last    point  `json:"last"`    // durable
	Pending *point `json:"pending"` // on its way
}

// point is a place in the log and the position of the database's log that it stands for.
type point struct {
	Place    snapshot.LogPlace `json:"place"`
	Position tail.Position     `json:"position"`
}

// based notes that the snapshot is there that the stream begins with.
func (l *lineage) based(c *Capture) error {
	if !c.polled {
		return errors.New("begin a stream: the snapshot was made without the log")
	}
	l.asking.Lock()
	l.from.Position = c.position
	l.asking.Unlock()
	l.mu.Lock()
	l.streaming = true
	l.mu.Unlock()
	return l.note(true)
}

// note writes down how far the lineage is.
func (l *lineage) note(sync bool) error {
	l.asking.Lock()
	defer l.asking.Unlock()
	return l.noteLocked(sync)
}

// noteLocked is note. The caller holds asking.
func (l *lineage) noteLocked(sync bool) error {
	k := mark{Path: l.f.o.Path, Stream: l.stream, Epoch: l.epoch, Last: l.from, Pending: l.after}
	l.mark = &k
	return l.f.Marks.Set(k, sync)
}

// noted changes which record is on its way, and writes it down.
func (l *lineage) noted(after *point) error {
	l.asking.Lock()
	defer l.asking.Unlock()
	l.after = after
	return l.noteLocked(false)
}

// notedDurable notes that a record is durable.
func (l *lineage) notedDurable(p point) error {
	l.asking.Lock()
	defer l.asking.Unlock()
	l.from, l.after = p, nil
	return l.noteLocked(false)
}
