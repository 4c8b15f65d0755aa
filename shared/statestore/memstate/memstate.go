// Package memstate keeps documents in memory, for tests, and fails when it is told to. Use [New].
package memstate

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Op names a call to the store.
type Op string

// The calls.
const (
	Get    Op = "get"
	Put    Op = "put"
	Delete Op = "delete"
	List   Op = "list"
)

// Store is a store in memory. The zero value is not usable.
type Store struct {
	mu        sync.Mutex
	documents map[string]document // guarded by mu
	next      int                 // guarded by mu
	counts    map[Op]int          // guarded by mu

	// Before, if not nil, is called before each operation; its error is returned and the operation does not happen.
	Before func(op Op, key string) error
	// After, if not nil, is called after each operation that succeeded; its error is returned although it happened.
	After func(op Op, key string) error
}

type document struct {
	body []byte
	tag  string
}

// New returns an empty store.
func New() *Store { return &Store{documents: map[string]document{}, counts: map[Op]int{}} }

// Count returns how often an operation was called.
func (s *Store) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[op]
}

// around runs fn between the hooks.
func (s *Store) around(ctx context.Context, op Op, key string, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	s.counts[op]++
	s.mu.Unlock()
	if s.Before != nil {
		if err := s.Before(op, key); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err := fn()
	s.mu.Unlock()
	if err == nil && s.After != nil {
		err = s.After(op, key)
	}
	return err
}

// Get implements [statestore.Store].
func (s *Store) Get(ctx context.Context, key string) (body []byte, tag string, err error) {
	err = s.around(ctx, Get, key, func() error {
		d, ok := s.documents[key]
		if !ok {
			return statestore.ErrNotExist
		}
		body, tag = slices.Clone(d.body), d.tag
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return body, tag, nil
}

// Put implements [statestore.Store].
func (s *Store) Put(ctx context.Context, key string, body []byte, tag string) (string, error) {
	made := ""
	err := s.around(ctx, Put, key, func() error {
		if s.documents[key].tag != tag {
			return statestore.ErrConflict
		}
		s.next++
		made = strconv.Itoa(s.next)
		s.documents[key] = document{body: slices.Clone(body), tag: made}
		return nil
	})
	if err != nil {
		return "", err
	}
	return made, nil
}

// Delete implements [statestore.Store].
func (s *Store) Delete(ctx context.Context, key, tag string) error {
	return s.around(ctx, Delete, key, func() error {
		d, ok := s.documents[key]
		if ok && d.tag != tag {
			return statestore.ErrConflict
		}
		delete(s.documents, key)
		return nil
	})
}

// List implements [statestore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(key string) error) error {
	var keys []string
	err := s.around(ctx, List, prefix, func() error {
		for key := range s.documents {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := fn(key); err != nil {
			return err
		}
	}
	return nil
}
