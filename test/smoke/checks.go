package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/s3"
)

// checks tries the store that Holdfast uses: what the repository rests on, one promise after the other.
func (b *trial) checks(ctx context.Context, w io.Writer) error {
	s, err := s3.Open(ctx, s3.Options{Bucket: b.name, Prefix: "checks", Region: b.region, Endpoint: b.endpoint, PathStyle: b.endpoint != ""})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		what string
		do   func(context.Context, *s3.Store) error
	}{
		{"an object comes back as it was put", putAndGet},
		{"a second put under the same key is refused (if-none-match)", conditional},
		{"bytes that are not those announced are refused (checksum)", checksum},
		{"an object is locked by the bucket's rule for a day", locked},
		{"a lock is extended, and a locked version can't be deleted", extended},
		{"what a delete marker hides is there as a version", hidden},
		{"an object is tagged", func(ctx context.Context, s *s3.Store) error { return s.Tag(ctx, "a", "holdfast-class", "cold") }},
	} {
		err := c.do(ctx, s)
		if errors.Is(err, errNotTold) && b.endpoint != "" {
			fmt.Fprintf(w, "NOT SHOWN: %s: %v\n", c.what, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		fmt.Fprintln(w, "ok:", c.what)
	}
	return nil
}

func putAndGet(ctx context.Context, s *s3.Store) error {
	if err := s.Put(ctx, "a", objstore.Bytes([]byte("first"))); err != nil {
		return err
	}
	return wantBytes(s.Get(ctx, "a", 0, -1))
}

// wantBytes wants what putAndGet put.
func wantBytes(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err == nil && string(got) != "first" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// refused wants an error.
func refused(err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("got %w, want %w", orNone(err), want)
	}
	return nil
}

var errNone = errors.New("no error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

func conditional(ctx context.Context, s *s3.Store) error {
	if err := refused(s.Put(ctx, "a", objstore.Bytes([]byte("other"))), objstore.ErrExist); err != nil {
		return err
	}
	return objstore.Probe(ctx, s)
}

func checksum(ctx context.Context, s *s3.Store) error {
	c := objstore.Bytes([]byte("second"))
	c.SHA256[0] ^= 1
	return refused(s.Put(ctx, "b", c), objstore.ErrChecksum)
}

// errNotTold says that a server holds to the bucket's rule without telling of it: versitygw, for one. AWS must tell.
var errNotTold = errors.New("the server tells of no lock")

func locked(ctx context.Context, s *s3.Store) error {
	l, err := s.LockOf(ctx, "a")
	if err == nil && l == (objstore.Lock{}) {
		return errNotTold
	}
	if left := time.Until(l.Until); err == nil && (l.Mode != objstore.Governance || left < 23*time.Hour || left > 25*time.Hour) {
		err = fmt.Errorf("locked by %q until %s", l.Mode, l.Until)
	}
	return err
}

func extended(ctx context.Context, s *s3.Store) error {
	l, err := s.LockOf(ctx, "a")
	if err != nil {
		return err
	}
	until := time.Now().Add(24 * time.Hour)
	if l.Until.After(until) {
		until = l.Until
	}
	if err := s.ExtendLock(ctx, "a", objstore.Governance, until.Add(time.Minute)); err != nil {
		return err
	}
	after, err := s.LockOf(ctx, "a")
	if err == nil && !after.Until.After(l.Until) {
		err = fmt.Errorf("locked until %s, as before", after.Until)
	}
	if err != nil {
		return err
	}
	id, err := current(ctx, s)
	if err != nil {
		return err
	}
	return refused(s.DeleteVersion(ctx, "a", id), objstore.ErrLocked)
}

// current is the version that is not a delete marker.
func current(ctx context.Context, s *s3.Store) (id string, err error) {
	err = s.ListVersions(ctx, "a", func(v objstore.Version) error {
		if !v.DeleteMarker {
			id = v.ID
		}
		return nil
	})
	if err == nil && id == "" {
		err = errors.New("no version is listed")
	}
	return id, err
}

func hidden(ctx context.Context, s *s3.Store) error {
	if err := s.Hide(ctx, "a"); err != nil {
		return err
	}
	_, err := s.Get(ctx, "a", 0, -1)
	if err := refused(err, objstore.ErrNotExist); err != nil {
		return err
	}
	id, err := current(ctx, s)
	if err != nil {
		return err
	}
	if err := wantBytes(s.GetVersion(ctx, "a", id, 0, -1)); err != nil {
		return err
	}
	var marker string
	err = s.ListVersions(ctx, "a", func(v objstore.Version) error {
		if v.DeleteMarker {
			marker = v.ID
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.DeleteVersion(ctx, "a", marker); err != nil {
		return err
	}
	return wantBytes(s.Get(ctx, "a", 0, -1))
}
