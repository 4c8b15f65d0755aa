package mem

import (
	"context"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Tag implements [objstore.Tagger].
func (s *Store) Tag(ctx context.Context, key, name, value string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Tag, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.objects[key]; !there {
		return fmt.Errorf("tag %s: %w", key, objstore.ErrNotExist)
	}
	if s.tags == nil {
		s.tags = map[string]string{}
	}
	s.tags[key] = name + "=" + value
	return fault.Err
}

// TagOf returns the tag of an object as name=value; empty if it has none. It is not counted.
func (s *Store) TagOf(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[key]
}
