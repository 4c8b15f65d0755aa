package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestFailingPassesAreTold: a source whose passes fail loses its locks one day. One failure is nothing, days of them are
// a finding, and it is over with the first whole pass.
func TestFailingPassesAreTold(t *testing.T) {
	s := newStage(t, "{daily: 7}")
	s.backup(snapshot.Full)
	s.call(tick)
	broken := true
	s.state.Before = func(op memstate.Op, key string) error {
		if broken && op == memstate.Get && key == control.FreezeKey(s.Source) {
			return errors.New("access denied")
		}
		return nil
	}
	const told = "pass: the source had no whole pass for days"
	s.Now = s.Now.Add(day)
	if out := s.call(tick); out.Failed != 1 || len(s.findings()) != 0 {
		t.Errorf("the first failure: %+v, %v", out, s.findings())
	}
	s.Now = s.Now.Add(2 * day)
	if s.call(tick); !slices.Equal(s.findings(), []string{told}) {
		t.Errorf("after three days: %v", s.findings())
	}
	broken = false
	s.Now = s.Now.Add(time.Hour)
	if s.call(tick); len(s.findings()) != 0 {
		t.Errorf("it is over: %v", s.findings())
	}
}

// TestDamagedMemoryIsTold: what lifecycle remembers of a source can't be understood. Nothing of it is removed, and people
// are told.
func TestDamagedMemoryIsTold(t *testing.T) {
	s := newStage(t, "{daily: 7}")
	s.backup(snapshot.Full)
	s.call(tick)
	key := control.LifecycleSourceKey(s.Source)
	_, tag, err := s.state.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.state.Put(t.Context(), key, []byte("{"), tag); err != nil {
		t.Fatal(err)
	}
	s.Now = s.Now.Add(day)
	if out := s.call(tick); out.Failed != 1 || len(s.findings()) != 1 {
		t.Errorf("%+v, %v", out, s.findings())
	}
	if _, err := s.Store.Stat(t.Context(), layout.ManifestKey(s.ID(1))); err != nil {
		t.Error(err)
	}
}
