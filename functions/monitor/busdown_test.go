package main

import (
	"errors"
	"testing"
	"time"
)

// TestBusDown: programs can't be told. People are, once.
func TestBusDown(t *testing.T) {
	l := newLab(t)
	l.heard(t, "governance-1", nil)
	l.service.deaf = errors.New("no such bus")
	if _, err := l.invoke(t, `{}`); err == nil {
		t.Error("nobody notices that the bus takes nothing")
	}
	l.Now = l.Now.Add(time.Minute)
	has(t, l.service.taken(), "critical never: governance-1/app, not met", "low never: governance-1/logs, not met")
	_, _ = l.invoke(t, `{}`)
	has(t, l.service.taken())
}
