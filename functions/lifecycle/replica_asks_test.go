package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestReplicaAsks: the replica was away when a person agreed to what goes from the primary. It asks for itself, and people
// hear of it.
func TestReplicaAsks(t *testing.T) {
	s := newStage(t, "{keep_last: 20}")
	for range 10 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	s.replica = s.Store.Clone()
	s.rules("{keep_last: 2}")
	s.Now = s.Now.Add(day)
	s.call(tick)
	s.Now = s.Now.Add(9 * day)
	w := s.call(`{"sources":["governance-1/app"]}`).Reports[0].Waiting
	if w == nil || len(s.findings()) != 1 {
		t.Fatalf("%+v, %v", w, s.findings()) // one question, not two
	}
	away := s.replica
	s.replica = nil
	s.call(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, w.Plan))
	s.replica = away
	r := s.call(`{"sources":["governance-1/app"]}`).Reports[0]
	const asks = "retention: too many snapshots of the replica would go"
	if r.Waiting != nil || !r.Replica.Stopped || !slices.Contains(s.findings(), asks) {
		t.Errorf("%+v, %v", r.Replica, s.findings())
	}
	r = s.call(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, r.Replica.Prune.Plan)).Reports[0]
	if r.Replica.Stopped || slices.Contains(s.findings(), asks) {
		t.Errorf("%+v, %v", r.Replica, s.findings())
	}
}
