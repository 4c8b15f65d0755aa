package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// version is one version of an object, or a marker.
type version struct {
	object
	id     string
	marker bool
	locked bool
}

// KeepVersions makes the store keep versions from now on, as a bucket with versioning does: see [objstore.Versioned],
// [Store.Overwrite] and [Store.Lock]. What is there becomes the first version.
func (s *Store) KeepVersions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions != nil {
		return
	}
	s.versions = map[string][]version{}
	for key, o := range s.objects {
		s.addVersion(key, version{object: o})
	}
}

// Overwrite puts a version over what is under key, as somebody can who has a key to the bucket and no use for
// put-if-absent. No hook, no count.
func (s *Store) Overwrite(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data = bytes.Clone(data)
	s.addVersion(key, version{object: object{data: data, sum: sha256.Sum256(data), modified: s.clock()}})
	s.settle(key)
}

// Lock makes the store refuse to delete the versions of key that are there now.
func (s *Store) Lock(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.versions[key] {
		s.versions[key][i].locked = true
	}
}

// addVersion puts a version on top; the caller holds mu.
func (s *Store) addVersion(key string, v version) {
	s.lastID++
	v.id = strconv.Itoa(s.lastID)
	// A new slice each time: clones share the old one.
	s.versions[key] = append([]version{v}, s.versions[key]...)
}

// settle makes the newest version what is under key; the caller holds mu.
func (s *Store) settle(key string) {
	s.sorted = nil
	all := s.versions[key]
	if len(all) == 0 {
		delete(s.versions, key)
	}
	if len(all) == 0 || all[0].marker {
		delete(s.objects, key)
		return
	}
	s.objects[key] = all[0].object
}

// ListVersions implements [objstore.Versioned].
func (s *Store) ListVersions(ctx context.Context, prefix string, fn func(objstore.Version) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	fault, err := s.begin(ctx, List, prefix)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.versions == nil {
		s.mu.Unlock()
		return objstore.ErrNoVersions
	}
	var all []objstore.Version
	for _, key := range slices.Sorted(maps.Keys(s.versions)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		for i, v := range s.versions[key] {
			all = append(all, objstore.Version{
				Key: key, ID: v.id, Size: int64(len(v.data)), Modified: v.modified, Current: i == 0, DeleteMarker: v.marker,
			})
		}
	}
	s.mu.Unlock()
	for _, v := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return fault.Err
}

// GetVersion implements [objstore.Versioned].
func (s *Store) GetVersion(ctx context.Context, key, id string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	fault, err := s.begin(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions == nil {
		return nil, objstore.ErrNoVersions
	}
	i := slices.IndexFunc(s.versions[key], func(v version) bool { return v.id == id && !v.marker })
	if i < 0 {
		return nil, fmt.Errorf("get version %s of %s: %w", id, key, objstore.ErrNotExist)
	}
	if fault.Err != nil {
		return nil, fault.Err
	}
	data := s.versions[key][i].data
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return &body{ctx: ctx, r: bytes.NewReader(data)}, nil
}

// DeleteVersion implements [objstore.Versioned].
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	return s.remove(ctx, key, func(v version) bool { return v.id == id })
}

// Hide implements [objstore.Versioned].
func (s *Store) Hide(ctx context.Context, key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Delete, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions == nil {
		return objstore.ErrNoVersions
	}
	s.addVersion(key, version{object: object{modified: s.clock()}, marker: true})
	s.settle(key)
	return fault.Err
}

// PutVersion implements [objstore.Versioned].
func (s *Store) PutVersion(ctx context.Context, key string, c objstore.Content) error {
	if err := objstore.CheckPut(key, c); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Put, key)
	if err != nil {
		return err
	}
	data, err := readContent(key, c)
	if err != nil {
		return err
	}
	if !s.keepsVersions() {
		return objstore.ErrNoVersions
	}
	s.Overwrite(key, data)
	return fault.Err
}

// remove removes the versions of key that which chooses; none if any of them is locked.
func (s *Store) remove(ctx context.Context, key string, which func(version) bool) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Delete, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions == nil {
		return objstore.ErrNoVersions
	}
	if err := s.refuse(key); err != nil {
		return err
	}
	var left []version
	for _, v := range s.versions[key] {
		if !which(v) {
			left = append(left, v)
		} else if v.locked {
			return fmt.Errorf("delete version %s of %s: %w", v.id, key, objstore.ErrLocked)
		}
	}
	s.versions[key] = left
	s.settle(key)
	return fault.Err
}
