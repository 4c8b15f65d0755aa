package mem

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Thaw implements [objstore.Thawer]. What was asked for is there when [Store.Thawed] says so.
func (s *Store) Thaw(ctx context.Context, key string, days int, _ objstore.ThawSpeed) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Thaw, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	switch {
	case !ok:
		return fmt.Errorf("thaw %s: %w", key, objstore.ErrNotExist)
	case !o.class.Archived():
		return fmt.Errorf("thaw %s: %w", key, objstore.ErrNoThaw)
	case s.readable(o):
		o.thaw.Until = s.clock().AddDate(0, 0, days)
	default:
		o.thaw, o.days = objstore.Thaw{Asked: true}, days
	}
	s.objects[key] = o
	return fault.Err
}

// ListThaws implements [objstore.Thawer].
func (s *Store) ListThaws(ctx context.Context, prefix string, fn func(objstore.Info, objstore.Thaw) error) error {
	return s.List(ctx, prefix, func(i objstore.Info) error {
		s.mu.Lock()
		o := s.objects[i.Key]
		s.mu.Unlock()
		return fn(i, o.thaw)
	})
}

// Thawed makes all that was asked for readable from now on, by the store's clock.
func (s *Store) Thawed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		if o.thaw.Asked {
			o.thaw = objstore.Thaw{Until: s.clock().AddDate(0, 0, o.days)}
			s.objects[key] = o
		}
	}
}

// ThawUntil tells until when an archived object can be read; zero: it can not. It is not counted.
func (s *Store) ThawUntil(key string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key].thaw.Until
}

// readable reports whether the bytes of an object can be had; the caller holds mu.
func (s *Store) readable(o object) bool { return !o.class.Archived() || s.clock().Before(o.thaw.Until) }
