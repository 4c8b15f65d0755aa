package log

import (
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
)

// Needed says from which record on each epoch is needed to restore moments after places: the epochs of the places
// themselves, and all that go on from there, over any number of epochs and branches. An epoch that is not in the result is
// not needed. Epochs whose heads do not count are not followed.
func Needed(streams []Stream, from []Place) map[inventory.LogName]uint64 {
	next := map[inventory.LogName][]*Epoch{} // that continue an epoch
	begin := map[string][]*Epoch{}           // that begin a stream
	for i := range streams {
		for _, e := range streams[i].Epochs {
			switch {
			case e.Described == nil:
			case e.Described.Continues == nil:
				begin[e.Stream] = append(begin[e.Stream], e)
			default:
				c := e.Described.Continues
				name := inventory.LogName{Stream: c.Stream, Epoch: c.Epoch}
				next[name] = append(next[name], e)
			}
		}
	}
	need := map[inventory.LogName]uint64{}
	var queue []inventory.LogName
	mark := func(name inventory.LogName, record uint64) {
		if have, ok := need[name]; !ok || record < have {
			need[name] = record
			queue = append(queue, name)
		}
	}
	for _, p := range from {
		if p.Epoch != 0 {
			mark(inventory.LogName{Stream: p.Stream, Epoch: p.Epoch}, p.Sequence+1)
			continue
		}
		for _, e := range begin[p.Stream] {
			mark(e.LogName, 1)
		}
	}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, e := range next[name] {
			if c := e.Described.Continues; c.Sequence+1 >= need[name] {
				mark(e.LogName, c.Sequence+1)
			}
		}
	}
	return need
}

// Older names the snapshots before base without which a branch of the log could not be restored: records of it have
// arrived since base did, and no snapshot from base on leads to it, as it left the history of base before the place of
// that. A fork does so, of a machine that was put back to an earlier state, or of its clone. Of each such branch it is the
// newest snapshot that leads to it, and if that is partial also the newest that is not. manifests are ascending.
func Older(streams []Stream, manifests []*repository.Stored, base *repository.Stored) map[uint64]bool {
	older := map[uint64]bool{}
	var from []Place
	for _, m := range manifests {
		if m.Log != nil && m.Sequence >= base.Sequence {
			from = append(from, *m.Log)
		}
	}
	need := Needed(streams, from)
	for _, s := range streams {
		for _, e := range s.Epochs {
			if e.Described == nil || !e.Newest().After(base.Arrived) {
				continue
			}
			if _, led := need[e.LogName]; led {
				continue
			}
			for _, m := range leading(streams, manifests, base.Sequence, e.LogName) {
				older[m.Sequence] = true
				from = append(from, *m.Log)
				need = Needed(streams, from)
			}
		}
	}
	return older
}

// leading are the snapshots before a sequence that must stay for an epoch: the newest, up to a complete one.
func leading(streams []Stream, manifests []*repository.Stored, before uint64, to inventory.LogName) []*repository.Stored {
	var out []*repository.Stored
	for i := len(manifests) - 1; i >= 0; i-- {
		m := manifests[i]
		if m.Log == nil || m.Unfinished || m.Sequence >= before {
			continue
		}
		if _, leads := Needed(streams, []Place{*m.Log})[to]; !leads {
			continue
		}
		if len(out) == 0 || !m.Partial {
			out = append(out, m)
		}
		if !m.Partial {
			break
		}
	}
	return out
}
