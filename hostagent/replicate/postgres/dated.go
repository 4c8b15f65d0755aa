package postgres

import (
	"math"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// ends sees when transactions ended, in WAL that comes in pieces.
type ends struct {
	walker *postgres.Walker
	first  time.Time // of the newest piece: when the first transaction in it ended; zero: none did
	newest time.Time // of all
}

// newEnds returns one that sets in at the beginning of a page.
func newEnds(segment, page uint32, at postgres.LSN) *ends {
	// Which cluster's WAL it is was proven before, and is checked by who restores it.
	e := &ends{walker: postgres.NewWalker(postgres.Origin{Timeline: math.MaxUint32, SegmentSize: segment, PageSize: page}, at)}
	e.walker.Observe(func(event postgres.Event) {
		if event.Kind != postgres.Committed && event.Kind != postgres.Aborted {
			return // a restore point may be of a moment whose commits come later
		}
		if e.first.IsZero() {
			e.first = event.Time
		}
		if event.Time.After(e.newest) {
			e.newest = event.Time
		}
	})
	return e
}

// see takes the next bytes, and reports whether they were good.
func (e *ends) see(b []byte) bool {
	e.first = time.Time{}
	_, err := e.walker.Write(b)
	return err == nil
}

// dated gives what comes next its time, and returns since when commits in it may wait, and a time by which nothing in it was
// committed, as near as is known. The caller holds mu.
//
// The time of a record promises two things: no commit in it or before it is later, and whoever has all records up to it has
// all that the server had committed by then. When the server sent its newest byte is such a time where that was the last byte
// that the server had. Behind a backlog it is not: what was committed meanwhile comes in the next records, and is lost if
// the log ends here; nor is it of what a standby passes on, which may be late. There it is when the last transaction ended that is in the record; where none ended it stays.
//
// Of a transaction whose end began before WAL is walked, the time is not seen. It began before all was here that the server
// had, and so it is not later than what that was dated with.
//
// BUG: unless a process ended in a backlog or was passed WAL by a standby, within a commit's record of more than a page: then a
// restore to a moment between the one time and the other ends before that commit, as it should, and warns that the server's
// clock was set back.
func (q *intake) dated(data []byte, a arrival) (since, none time.Time) {
	prompt, before := q.caught, q.newest
	q.caught = a.caught
	var first, newest time.Time
	if !prompt || !a.caught || a.relayed {
		first, newest = q.walk(data)
	}
	if a.caught && !a.relayed {
		newest, q.ends = a.sent, nil
	}
	if newest.After(q.newest) {
		q.newest = newest
	}
	if q.newest.IsZero() {
		// The first record of a lineage: the base backup begins later, and has all that was committed by now.
		// BUG: not one of a standby that is late. Times are right from the first commit on that is later.
		q.newest = a.sent
	}
	return waitsSince(prompt, before, first, a), noneBefore(prompt && !a.relayed, before, first, a)
}

// waitsSince is since when commits in WAL may wait. Prompt: nothing waited at the server when it came; before is the time of what
// is right before it, first when the first transaction in it ended, if that is known.
func waitsSince(prompt bool, before, first time.Time, a arrival) time.Time {
	switch {
	case prompt:
		return a.came
	case first.IsZero() && !a.caught:
		first = before // the next commits come behind it, and may be as old
	}
	if first.IsZero() || first.After(a.came) {
		return a.came
	}
	return first
}

// noneBefore is a time by which nothing in WAL was committed; the arguments are those of waitsSince. What comes promptly was
// committed after what was looked for last, by the clock of this host. Behind a backlog only the server's clock tells.
func noneBefore(prompt bool, before, first time.Time, a arrival) time.Time {
	none := a.known
	if !prompt || none.IsZero() {
		switch {
		case !first.IsZero():
			none = first
		case before.After(none):
			none = before
		}
	}
	if !first.IsZero() && first.Before(none) {
		none = first // of a standby that is late, or of another branch
	}
	if none.After(a.came) { // the server's clock is ahead, and says nothing here
		none = a.known
	}
	if none.IsZero() {
		return a.came
	}
	return none
}

// walk finds the ends of transactions in what comes next: when the first one was, and the newest since walking began.
func (q *intake) walk(data []byte) (first, newest time.Time) {
	if q.ends == nil && !q.enter() {
		page := q.pageSize()
		skip := (page - q.next%page) % page
		if postgres.LSN(len(data)) <= skip {
			return first, newest
		}
		q.ends, data = newEnds(q.segment, q.page, q.next+skip), data[skip:]
	}
	good := q.ends.see(data)
	first, newest = q.ends.first, q.ends.newest
	if !good {
		q.ends = nil // it sets in again with the next piece
	}
	return first, newest
}

func (q *intake) pageSize() postgres.LSN {
	if q.page == 0 {
		return postgres.BlockSize
	}
	return postgres.LSN(q.page)
}

// enter begins to walk within the page that next is in, and reports whether it could: a record that began there is followed
// then.
func (q *intake) enter() bool {
	end := q.from + postgres.LSN(len(q.tail))
	if len(q.tail) == 0 || q.next-end >= q.pageSize() {
		return false
	}
	e := newEnds(q.segment, q.page, q.from)
	if !e.see(q.tail) || !e.see(make([]byte, q.next-end)) { // zeros are not kept
		return false
	}
	q.ends = e
	return true
}

// after is a time right after another one, below what commits are told apart by.
func after(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Nanosecond)
}

// lagging notes that the server may have much that is not here: a connection begins.
func (q *intake) lagging() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.caught = false
}
