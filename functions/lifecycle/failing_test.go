package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
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

// TestEndlessSource: a source that takes all the time of an invocation, or its memory, whose end nobody sees, keeps no other
// from its turn.
func TestEndlessSource(t *testing.T) {
	for name, killed := range map[string]bool{"time": false, "memory": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, "{daily: 7}")
			s.backup(snapshot.Full)
			first := s.Source
			s.Source = snapshot.Source{Host: first.Host, Name: "zeta"}
			s.backup(snapshot.Full)
			for range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				dead := false
				s.Store.SetHook(func(c mem.Call) mem.Fault {
					if strings.HasPrefix(c.Key, layout.SourcePrefix(first)) {
						dead = killed
						cancel()
					}
					return mem.Fault{}
				})
				s.state.Before = func(op memstate.Op, _ string) error {
					if dead && op == memstate.Put {
						return errors.New("the process is gone")
					}
					return nil
				}
				_, _ = s.f.handle(ctx, json.RawMessage(tick))
				s.Now = s.Now.Add(time.Hour)
			}
			s.Store.SetHook(nil)
			s.state.Before = nil
			if d := s.doc(); d.Passed.IsZero() {
				t.Errorf("%s had no pass: %+v", s.Source, d)
			}
			// The first one has its turn as soon as it comes to an end.
			s.call(tick)
			s.Source = first
			if d := s.doc(); d.Passed.IsZero() {
				t.Errorf("%s had no pass: %+v", s.Source, d)
			}
		})
	}
}

// TestRepositoryThatCanNotBeLocked: the documents of no source are locked for as long as the others. That this fails for days
// is an error of the function, which has an alarm; the sources have their passes all the same.
func TestRepositoryThatCanNotBeLocked(t *testing.T) {
	s := newStage(t, "{daily: 7}")
	s.backup(snapshot.Full)
	s.call(tick)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Lock && c.Key == layout.RepositoryKey {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	failed := 0
	for range 40 {
		s.Now = s.Now.Add(day)
		if _, err := s.f.handle(t.Context(), json.RawMessage(tick)); err != nil {
			failed++
		}
		if d := s.doc(); !d.Passed.Equal(s.Now.UTC()) {
			t.Fatalf("no pass: %+v", d)
		}
	}
	// The locks of the first day last for 45 days, less the 15 with which they are extended, and two of patience.
	if failed < 7 || failed > 9 {
		t.Errorf("%d of 40 passes failed", failed)
	}
	s.Store.SetHook(nil)
	s.Now = s.Now.Add(day)
	s.call(tick)
}
