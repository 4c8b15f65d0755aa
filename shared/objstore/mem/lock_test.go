package mem_test

import (
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/limit"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
)

// TestLocks looks through the decorators too.
func TestLocks(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, versions := range []bool{false, true} {
		m := mem.New()
		m.SetClock(func() time.Time { return now })
		if versions {
			m.KeepVersions()
		}
		s := retry.New(limit.New(m, limit.Options{Parallel: 2}), retry.Options{})
		ctx := t.Context()
		if err := s.Put(ctx, "a", objstore.Bytes([]byte("a"))); err != nil {
			t.Fatal(err)
		}
		if _, err := s.LockOf(ctx, "a"); !errors.Is(err, objstore.ErrNoLocks) {
			t.Error(err)
		}
		m.KeepLocks(day)
		if err := s.Delete(ctx, "a"); !errors.Is(err, objstore.ErrLocked) {
			t.Error(err)
		}
		if err := errors.Join(s.ExtendLock(ctx, "a", objstore.Compliance, now.Add(3*day)), s.ExtendLock(ctx, "a", objstore.Governance, now)); err != nil {
			t.Error(err)
		}
		if l, err := s.LockOf(ctx, "a"); err != nil || l.Mode != objstore.Compliance || !l.Until.Equal(now.Add(3*day)) {
			t.Error(l, err)
		}
		if err := s.ExtendLock(ctx, "a", objstore.Compliance, now.Add(200*day)); err == nil {
			t.Error("locked for ever")
		}
		if err := s.HoldLock(ctx, "none", true); !errors.Is(err, objstore.ErrNotExist) {
			t.Error(err)
		}
		if err := s.HoldLock(ctx, "a", true); err != nil {
			t.Error(err)
		}
		now = now.Add(4 * day)
		if err := s.Delete(ctx, "a"); !errors.Is(err, objstore.ErrLocked) {
			t.Error(err)
		}
		if err := errors.Join(s.HoldLock(ctx, "a", false), s.Delete(ctx, "a")); err != nil {
			t.Error(err)
		}
	}
}
