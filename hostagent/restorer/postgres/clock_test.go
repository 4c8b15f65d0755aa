package postgres

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// testClock restores a base backup that a host made whose clock was late: by the cluster's own clock it holds what was committed
// after the target, and nothing would stop before that.
func testClock(t *testing.T, w *world) {
	at := w.src.Time.Add(-30 * time.Minute)
	late := func(context.Context) (*Source, error) {
		s := w.source()
		s.Time = s.Time.Add(-time.Hour)
		return s, nil
	}
	dir, err := os.MkdirTemp(w.place, "late-")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ToDir(t.Context(), dir, late, w.options(Target{Kind: Time, Time: at}))
	var refused *TargetError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "own clock") || refused.Hint() == "" {
		t.Errorf("to a time before the base backup: %v", err)
	}
}
