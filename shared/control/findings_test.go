package control_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

var (
	source = snapshot.Source{Host: "web", Name: "app"}
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func TestFindings(t *testing.T) {
	a := control.Finding{By: "arrival", Key: "a", Problem: "missing"}
	b := control.Finding{By: "rotation", Key: "b", Problem: "size differs"}
	f := &control.Findings{}
	if !f.Note(source, noon, []control.Finding{a, a}) || len(f.Findings) != 1 {
		t.Errorf("%+v", f)
	}
	later := noon.Add(time.Hour)
	if f.Note(source, later, []control.Finding{a}) {
		t.Error("the same again is news")
	}
	if !f.Note(source, later, []control.Finding{b}, "rotation") || len(f.Findings) != 2 {
		t.Errorf("%+v", f)
	}
	if !f.Note(source, later.Add(25*time.Hour), []control.Finding{a}) || !f.Findings[0].First.Equal(noon) {
		t.Errorf("a finding that stays keeps no date: %+v", f)
	}
	if !f.Note(source, later, nil, "rotation") || len(f.Findings) != 1 || f.Findings[0].Key != "a" {
		t.Errorf("%+v", f)
	}
	var many []control.Finding
	for i := range control.MaxFindings + 5 {
		many = append(many, control.Finding{By: "rotation", Key: fmt.Sprint(i), Problem: "x"})
	}
	f.Note(source, later, many, "rotation")
	if len(f.Findings) != control.MaxFindings || f.Omitted != 6 {
		t.Errorf("%d, %d", len(f.Findings), f.Omitted)
	}
}

func TestFreeze(t *testing.T) {
	s := memstate.New()
	frozen := func(at time.Time) string {
		t.Helper()
		why, err := control.SourceFrozen(t.Context(), s, source, at)
		if err != nil {
			t.Fatal(err)
		}
		return why
	}
	if frozen(noon) != "" {
		t.Error("frozen from the beginning")
	}
	freeze := func(until time.Time, reason string) error {
		return control.FreezeSource(t.Context(), s, source, noon, until, reason)
	}
	if err := freeze(noon.Add(2*time.Hour), "restore 7"); err != nil {
		t.Fatal(err)
	}
	if err := freeze(noon.Add(time.Hour), "restore 8"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("frozen until 2026-03-01T14:00:00Z: restore 7", frozen(noon.Add(119*time.Minute))); diff != "" {
		t.Error(diff)
	}
	if frozen(noon.Add(2*time.Hour)) != "" {
		t.Error("it does not expire")
	}
	if err := freeze(noon.Add(control.MaxFreeze+time.Second), "for ever"); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
	if _, err := s.Put(t.Context(), control.FreezeKey(snapshot.Source{Host: "web", Name: "db"}), []byte("{"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := control.SourceFrozen(t.Context(), s, snapshot.Source{Host: "web", Name: "db"}, noon); err == nil {
		t.Error("what can't be read freezes nothing")
	}
}

func TestShardKeys(t *testing.T) {
	if control.VerifyShardKey(0, 0) != control.VerifyCursorKey || control.VerifyShardKey(1, 3) != "verify/cursor-1-of-3.json" {
		t.Error(control.VerifyShardKey(1, 3))
	}
	held := control.Lease{Owner: "a", Until: noon}
	if held.Held("a", noon.Add(-1)) || !held.Held("b", noon.Add(-1)) || held.Held("b", noon) {
		t.Error("lease")
	}
}
