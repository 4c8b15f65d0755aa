package lock_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
)

// What a pass left alone, as it was locked for long enough then, is not taken for locked by it when the pass does not
// come to its end.
func TestPartialPassClaimsNothingItLeftAlone(t *testing.T) {
	t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d int) time.Time { return t0.Add(time.Duration(d) * day) }
	objects := []lock.Object{{Key: "a", Arrived: t0}}
	snaps := []lock.Snapshot{{Sequence: 1, Arrived: t0, Keep: true, Verified: true, Objects: []int{0}}}
	locked := map[string]time.Time{"a": t0.Add(lock.Default)}
	pass := func(state lock.State, newest, now time.Time, most int) lock.State {
		t.Helper()
		p := lock.New(objects, snaps, state, lock.Rules{Mode: objstore.Governance}, newest, now)
		done := lock.Done{Extended: min(most, len(p.Extend)), Holds: true}
		for _, o := range p.Extend[:done.Extended] {
			locked[objects[o].Key] = p.Until
		}
		next := p.Next(done)
		for sequence, until := range p.UntilOf() {
			for _, o := range snaps[sequence-1].Objects {
				if have := locked[objects[o].Key]; have.Before(until) {
					t.Fatalf("%s: snapshot %d is said to be locked until %s, object %s is until %s", now, sequence, until, objects[o].Key, have)
				}
			}
		}
		return next
	}
	state := pass(lock.State{}, t0, t0, 9)
	locked["b"], locked["c"] = at(29).Add(lock.Default), at(29).Add(lock.Default)
	// A second snapshot shares the object, which is locked for long enough; the pass ends after one of its own.
	objects = append(objects, lock.Object{Key: "b", Arrived: at(29)}, lock.Object{Key: "c", Arrived: at(29)})
	snaps = append(snaps, lock.Snapshot{Sequence: 2, Arrived: at(29), Keep: true, Verified: true, Objects: []int{0, 1, 2}})
	state = pass(state, at(29), at(29), 1)
	for d := 30; d < 120; d++ {
		state = pass(state, at(29), at(d), 9)
		for _, o := range objects {
			if locked[o.Key].Before(at(d)) {
				t.Fatalf("on day %d object %s is not locked any more", d, o.Key)
			}
		}
	}
}
