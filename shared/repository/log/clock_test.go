package log_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
)

// TestClockBeyondRecords checks that no record states a time that its 64 bits can't hold.
func TestClockBeyondRecords(t *testing.T) {
	f := repotest.New(t)
	w := f.OpenLog(t, "", 0, nil)
	far := time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := w.Append(t.Context(), repotest.Commit(far, 1)); err == nil {
		t.Error("a record of the year 2262 was stored")
	}
	if _, err := w.Append(t.Context(), repotest.Commit(far.Add(-time.Nanosecond), 1)); err != nil {
		t.Error(err)
	}
	if _, err := log.Create(t.Context(), f.Repo, f.Source, log.Options{Opened: far, Tool: "test"}); err == nil {
		t.Error("an epoch of the year 2262 was opened")
	}
}
