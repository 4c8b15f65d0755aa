package postgres

import (
	"fmt"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// server is what a server says about itself.
type server struct {
	system   uint64
	timeline uint32
	position postgres.LSN // up to where it has WAL
	segment  uint32
	local    bool                      // it runs on this host
	history  *postgres.TimelineHistory // of its timeline; nil on the first
	content  []byte                    // the file of it
}

// course is how a follower goes on with a server.
type course int

const (
	begin  course = iota // a new lineage
	resume               // go on where the log ends
	fork                 // go on from an earlier place, on another timeline
	refuse               // do not go on: state and why
	gap                  // a new lineage, because WAL is missing: why
)

// step is a course with what it needs.
type step struct {
	course
	state     replicate.State
	why, hint string

	timeline uint32       // fork: the one that follows
	at       postgres.LSN // fork: where it begins
	place    log.Place    // fork: after which it goes on
}

// plan decides how to go on after what a mark says; received is up to where WAL is here already.
func plan(m *mark, received postgres.LSN, s server) step {
	switch {
	case m == nil:
		return step{course: begin}
	case m.System != s.system:
		return step{
			course: refuse, state: replicate.Foreign,
			why:  fmt.Sprintf("the server is another cluster (system identifier %d) than that of the log (%d): none of its WAL is stored", s.system, m.System),
			hint: "look whether the service leads to the right server; if this cluster takes the place of the old one, begin anew with `holdfast replicate SOURCE --new-stream`, or give it a source of its own",
		}
	case m.Segment != s.segment:
		return step{course: gap, why: fmt.Sprintf("the server's WAL segments are of %d bytes now, and were of %d", s.segment, m.Segment)}
	case s.timeline < m.Timeline:
		return step{
			course: refuse, state: replicate.Behind,
			why:  fmt.Sprintf("the server is on timeline %d, and the log has gone on to timeline %d already", s.timeline, m.Timeline),
			hint: "this may be the primary of before a failover, or a standby that does not follow the new one yet: let the service lead to the new primary; if the old one is to go on, begin anew with `holdfast replicate SOURCE --new-stream`",
		}
	case s.timeline == m.Timeline && s.position < received:
		return step{
			course: refuse, state: replicate.Behind,
			why:  fmt.Sprintf("the server has WAL up to %s only, and the log up to %s", s.position, received),
			hint: "a standby that is late catches up; a server that was put back to an older state never does: begin anew with `holdfast replicate SOURCE --new-stream`",
		}
	case s.timeline == m.Timeline:
		return step{course: resume}
	}
	return planHistory(m, received, s)
}

// planHistory decides how to go on with a server that is on a later timeline.
func planHistory(m *mark, received postgres.LSN, s server) step {
	at, ok := postgres.LSN(0), false
	if s.history != nil {
		at, ok = s.history.SwitchOf(m.Timeline)
	}
	switch {
	case !ok:
		return step{course: gap, why: fmt.Sprintf("timeline %d of the server does not descend from timeline %d of the log", s.timeline, m.Timeline)}
	case at >= received:
		return step{course: resume}
	}
	follows := s.timeline
	for i, e := range s.history.Entries {
		if e.Parent == m.Timeline && i+1 < len(s.history.Entries) {
			follows = s.history.Entries[i+1].Parent
		}
	}
	place, ok := m.bound(at.SegmentStart(m.Segment))
	if !ok || place.Sequence == 0 { // nothing goes on from the beginning of a stream
		return step{course: gap, why: fmt.Sprintf(
			"timeline %d begins at %s, long before %s, up to where the log has timeline %d", follows, at, m.Last.LSN, m.Timeline,
		)}
	}
	return step{course: fork, timeline: follows, at: at, place: place}
}
