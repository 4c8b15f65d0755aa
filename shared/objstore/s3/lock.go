package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// LockOf implements [objstore.Locker]. It takes two requests.
func (s *Store) LockOf(ctx context.Context, key string) (objstore.Lock, error) {
	var lock objstore.Lock
	if err := objstore.CheckKey(key); err != nil {
		return lock, err
	}
	out, err := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &s.bucket, Key: s.at(key)})
	switch {
	case err == nil && out.Retention != nil:
		lock.Mode, lock.Until = objstore.LockMode(out.Retention.Mode), aws.ToTime(out.Retention.RetainUntilDate)
	case err != nil && !unlocked(err):
		return lock, s.lockError(ctx, "look at the lock of", key, err)
	}
	hold, err := s.client.GetObjectLegalHold(ctx, &s3.GetObjectLegalHoldInput{Bucket: &s.bucket, Key: s.at(key)})
	switch {
	case err == nil && hold.LegalHold != nil:
		lock.Hold = hold.LegalHold.Status == types.ObjectLockLegalHoldStatusOn
	case err != nil && !unlocked(err):
		return lock, s.lockError(ctx, "look at the lock of", key, err)
	}
	return lock, nil
}

// unlocked is the answer of a server about an object that is not locked in a bucket that can lock.
func unlocked(err error) bool {
	c, _ := code(err)
	return c == "NoSuchObjectLockConfiguration"
}

// ExtendLock implements [objstore.Locker]. The server refuses to shorten a lock with the same answer as any other thing
// that is not allowed: only then is the lock looked at.
func (s *Store) ExtendLock(ctx context.Context, key string, mode objstore.LockMode, until time.Time) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	if longest := time.Now().Add(objstore.MaxLock); until.After(longest) {
		return fmt.Errorf("extend the lock of %s until %s: more than %s from now", key, until.UTC().Format(time.RFC3339), objstore.MaxLock)
	}
	if mode != objstore.Governance && mode != objstore.Compliance {
		return fmt.Errorf("extend the lock of %s: mode %q: want %s or %s", key, mode, objstore.Governance, objstore.Compliance)
	}
	until = until.UTC().Truncate(time.Second).Add(time.Second)
	_, err := s.client.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
		Bucket: &s.bucket, Key: s.at(key),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(mode), RetainUntilDate: &until},
	})
	if err == nil {
		return nil
	}
	wrapped := s.lockError(ctx, "extend the lock of", key, err)
	if kind := classify(err); errors.Is(kind, objstore.ErrDenied) || errors.Is(kind, objstore.ErrLocked) {
		if now, lerr := s.LockOf(ctx, key); lerr == nil && !now.Until.Before(until) && (now.Mode == mode || now.Mode == objstore.Compliance) {
			return nil
		}
		if errors.Is(kind, objstore.ErrLocked) {
			wrapped = fmt.Errorf("%w: %w", wrapped, objstore.ErrDenied)
		}
	}
	return wrapped
}

// HoldLock implements [objstore.Locker].
func (s *Store) HoldLock(ctx context.Context, key string, on bool) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	status := types.ObjectLockLegalHoldStatusOff
	if on {
		status = types.ObjectLockLegalHoldStatusOn
	}
	_, err := s.client.PutObjectLegalHold(ctx, &s3.PutObjectLegalHoldInput{
		Bucket: &s.bucket, Key: s.at(key), LegalHold: &types.ObjectLockLegalHold{Status: status},
	})
	if err != nil {
		return s.lockError(ctx, "hold", key, err)
	}
	return nil
}

// lockError tells a bucket that can't lock, or a marker in the place of the object, from other trouble.
func (s *Store) lockError(ctx context.Context, op, key string, err error) error {
	switch c, _ := code(err); {
	case ctx.Err() != nil:
	case c == "InvalidBucketObjectLockConfiguration", c == "ObjectLockConfigurationNotFoundError", c == "InvalidRequest",
		status(err) == http.StatusNotImplemented:
		return s.wrap(ctx, op, key, fmt.Errorf("%w: %w", objstore.ErrNoLocks, err))
	case status(err) == http.StatusMethodNotAllowed: // S3's answer for a delete marker
		return s.wrap(ctx, op, key, fmt.Errorf("%w: %w", objstore.ErrNotExist, err))
	}
	return s.wrap(ctx, op, key, err)
}
