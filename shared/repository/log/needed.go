package log

import "github.com/btcdecoded/holdfast/shared/repository/inventory"

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
