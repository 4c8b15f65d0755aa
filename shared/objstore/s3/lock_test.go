package s3_test

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/test/bucket"
)

const day = 24 * time.Hour

func TestLocks(t *testing.T) {
	server := bucket.StartS3(t)
	for _, mode := range []types.ObjectLockRetentionMode{types.ObjectLockRetentionModeGovernance, types.ObjectLockRetentionModeCompliance} {
		t.Run(string(mode), func(t *testing.T) {
			name := map[types.ObjectLockRetentionMode]string{"GOVERNANCE": "governance", "COMPLIANCE": "compliance"}[mode]
			server.Make(t, name, bucket.Options{Lock: mode})
			s, ctx, now := open(t, server.Endpoint, name, "p"), t.Context(), time.Now()
			if err := s.Put(ctx, "v1/a", objstore.Bytes([]byte("a"))); err != nil {
				t.Fatal(err)
			}
			l, err := s.LockOf(ctx, "v1/a")
			// S3 writes the bucket's default to each object; this server looks at it only when something is deleted.
			if err != nil || l.Hold || l.Mode != "" && l.Until.Sub(now).Round(time.Hour) != day {
				t.Fatalf("the bucket's default: %+v, %v", l, err)
			}
			if err := s.Delete(ctx, "v1/a"); !errors.Is(err, objstore.ErrLocked) {
				t.Errorf("delete: %v", err)
			}
			until := now.Add(45 * day)
			for range 2 { // also when it is repeated
				if err := s.ExtendLock(ctx, "v1/a", objstore.LockMode(mode), until); err != nil {
					t.Fatal(err)
				}
			}
			// What lasts longer stays.
			if err := s.ExtendLock(ctx, "v1/a", objstore.LockMode(mode), now.Add(30*day)); err != nil {
				t.Errorf("shorter: %v", err)
			}
			if l, err := s.LockOf(ctx, "v1/a"); err != nil || l.Until.Before(until) || l.Until.After(until.Add(2*time.Second)) {
				t.Errorf("%+v, %v", l, err)
			}
			if err := s.Delete(ctx, "v1/a"); !errors.Is(err, objstore.ErrLocked) {
				t.Errorf("delete: %v", err)
			}
			for _, on := range []bool{true, false} {
				if err := s.HoldLock(ctx, "v1/a", on); err != nil {
					t.Fatal(err)
				}
				if l, err := s.LockOf(ctx, "v1/a"); err != nil || l.Hold != on {
					t.Errorf("%+v, %v", l, err)
				}
			}
			for _, err := range []error{
				s.ExtendLock(ctx, "v1/none", objstore.LockMode(mode), until), s.HoldLock(ctx, "v1/none", true),
			} {
				if !errors.Is(err, objstore.ErrNotExist) {
					t.Errorf("%v", err)
				}
			}
			if err := s.ExtendLock(ctx, "v1/a", objstore.LockMode(mode), now.Add(101*day)); err == nil {
				t.Error("locked for more than it may be")
			}
			if err := s.ExtendLock(ctx, "v1/a", "FOREVER", until); err == nil {
				t.Error("a mode that is none")
			}
		})
	}
}

func TestNoLocks(t *testing.T) {
	server := bucket.StartS3(t)
	server.Make(t, "plain", bucket.Options{Versioned: true})
	s := open(t, server.Endpoint, "plain", "")
	if err := s.Put(t.Context(), "a", objstore.Bytes([]byte("a"))); err != nil {
		t.Fatal(err)
	}
	_, err := s.LockOf(t.Context(), "a")
	for _, err := range []error{err, s.ExtendLock(t.Context(), "a", objstore.Governance, time.Now().Add(day)), s.HoldLock(t.Context(), "a", true)} {
		if !errors.Is(err, objstore.ErrNoLocks) {
			t.Errorf("%v", err)
		}
	}
}
