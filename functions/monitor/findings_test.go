package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// TestFindingsThatCanNotBeRead: what verify and lifecycle have found is not over because nobody can read it. That is an
// error of the pass, and the others' alerts go on.
func TestFindingsThatCanNotBeRead(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	l.backup(t, "logs")
	l.backup(t, "app")
	l.run(t)
	key := control.VerifyFindingsKey(l.Source)
	err := statestore.Update(t.Context(), l.state, key, func(d *control.Findings) error {
		d.Note(l.Source, l.Now, []control.Finding{{By: "rotation", Key: "v1/x", Problem: "altered"}}, "rotation")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	has(t, l.run(t), "critical damaged: governance-1/app, not met")
	for _, broken := range []func(op memstate.Op, at string) bool{
		func(op memstate.Op, at string) bool { return op == memstate.Get && at == key },
		func(op memstate.Op, at string) bool { return op == memstate.List && at == control.VerifyFindingsPrefix },
	} {
		l.state.Before = func(op memstate.Op, at string) error {
			if broken(op, at) {
				return errors.New("no answer")
			}
			return nil
		}
		for range 4 {
			l.Now = l.Now.Add(10 * time.Minute)
			l.heard(t, "governance-1", nil)
			if _, err := l.invoke(t, `{}`); err == nil || !strings.Contains(err.Error(), "found") {
				t.Errorf("the pass ended with %v", err)
			}
			for _, subject := range l.service.taken() {
				if strings.Contains(subject, "damaged") {
					t.Errorf("told: %s", subject)
				}
			}
		}
	}
	l.state.Before = nil
	err = statestore.Update(t.Context(), l.state, key, func(d *control.Findings) error {
		d.Note(l.Source, l.Now, nil, "rotation")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.run(t)
	l.Now = l.Now.Add(15 * time.Minute)
	has(t, l.run(t), "damaged: governance-1/app, over")
}
