// Package mem keeps objects in memory, for tests: with faults that are told apart as "failed and not persisted" and
// "failed but persisted", counted calls, a clock that the test sets, and clones to reopen after a crash.
//
// Use [New], then [Store.SetHook]. Nothing here is for production.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Op names a method of the store.
type Op string

// The operations. Prefixes counts as List.
const (
	Put    Op = "put"
	Get    Op = "get"
	Stat   Op = "stat"
	List   Op = "list"
	Delete Op = "delete"
	Lock   Op = "lock"
	Tag    Op = "tag"
	Thaw   Op = "thaw"
)

// Call describes one call of the store.
type Call struct {
	Number int // among all calls of this store, from 1
	Op     Op
	Key    string // the prefix for List
}

// Fault is what a hook wants of a call. The zero value lets it pass.
type Fault struct {
	Err       error // the call returns it
	Persisted bool  // the call takes effect first: "failed but persisted". A List has called fn for everything
}

// Hook decides on a call before it happens. It runs without locks, from the caller's goroutine.
type Hook func(Call) Fault

// Store is an object store in memory. The zero value is not usable, see [New].
type Store struct {
	mu      sync.Mutex
	objects map[string]object // guarded by mu, as all below; the bytes never change
	sorted  []string          // keys in order, nil when stale; never changed in place
	hook    Hook
	clock   func() time.Time
	calls   int
	counts  map[Op]int

	versions map[string][]version // newest first; nil: none are kept
	lastID   int                  // of a version

	locks     map[string]objstore.Lock // nil: none are kept
	firstLock time.Duration
	tags      map[string]string // name=value
}

type object struct {
	data     []byte
	sum      [32]byte // as recorded when it was put
	modified time.Time
	class    objstore.Class
	thaw     objstore.Thaw
	days     int // for which a copy was asked
}

// New returns an empty store whose clock is time.Now.
func New() *Store {
	return &Store{objects: map[string]object{}, clock: time.Now, counts: map[Op]int{}}
}

// SetHook makes hook decide on every later call; nil lets all pass.
func (s *Store) SetHook(hook Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// SetClock sets where Modified of later objects comes from.
func (s *Store) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = now
}

// Clone returns a store with the same objects and clock, no hook and no counted calls: what a process that starts
// after a crash finds. The two go separate ways.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{
		objects: maps.Clone(s.objects), sorted: s.sorted, clock: s.clock, counts: map[Op]int{},
		versions: maps.Clone(s.versions), lastID: s.lastID, locks: maps.Clone(s.locks), firstLock: s.firstLock, tags: maps.Clone(s.tags),
	}
}

// Calls returns how many calls there were in all, those that failed included.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Count returns how many calls of op there were, those that failed included.
func (s *Store) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[op]
}

// Keys returns all keys in order. It is not counted.
func (s *Store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys())
}

// Object returns the bytes under key, a copy. It is not counted.
func (s *Store) Object(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	return bytes.Clone(o.data), ok
}

// Tamper replaces what is under key by data, as bit rot or an attacker would: no hook, no count, the recorded checksum
// and time stay those of the original if there was one. Nil data removes the object.
func (s *Store) Tamper(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sorted = nil
	if data == nil {
		delete(s.objects, key)
		delete(s.versions, key)
		return
	}
	o, ok := s.objects[key]
	if !ok {
		o = object{sum: sha256.Sum256(data), modified: s.clock()}
	}
	o.data = bytes.Clone(data)
	s.objects[key] = o
	if len(s.versions[key]) > 0 {
		s.versions[key] = slices.Clone(s.versions[key])
		s.versions[key][0].object = o
	}
}

// SetModified sets the time at which the store claims to have received the object, if it exists.
func (s *Store) SetModified(key string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[key]; ok {
		o.modified = at
		s.objects[key] = o
	}
}

// SetClass moves an object, if it exists, to a storage class; what is archived can't be read, see [Store.Thaw].
func (s *Store) SetClass(key string, class objstore.Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[key]; ok {
		o.class = class
		s.objects[key] = o
	}
}

// begin counts a call and asks the hook.
func (s *Store) begin(ctx context.Context, op Op, key string) (Fault, error) {
	s.mu.Lock()
	s.calls++
	s.counts[op]++
	c := Call{Number: s.calls, Op: op, Key: key}
	hook := s.hook
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Fault{}, err
	}
	if hook == nil {
		return Fault{}, nil
	}
	f := hook(c)
	if f.Err != nil && !f.Persisted {
		return f, f.Err
	}
	return f, nil
}

// Put implements [objstore.Store].
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
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
	if err := s.store(key, data, c.SHA256); err != nil {
		return err
	}
	return fault.Err
}

// readContent reads what is put under a key.
func readContent(key string, c objstore.Content) ([]byte, error) {
	data := make([]byte, c.Size)
	if _, err := io.ReadFull(io.NewSectionReader(c, 0, c.Size), data); err != nil {
		return nil, fmt.Errorf("put %s: read content: %w", key, err)
	}
	if sha256.Sum256(data) != c.SHA256 {
		return nil, fmt.Errorf("put %s: %w", key, objstore.ErrChecksum)
	}
	return data, nil
}

func (s *Store) store(key string, data []byte, sum [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[key]; ok {
		if !bytes.Equal(o.data, data) {
			return fmt.Errorf("put %s: %w", key, objstore.ErrExist)
		}
		return nil
	}
	s.objects[key] = object{data: data, sum: sum, modified: s.clock()}
	s.sorted = nil
	if s.versions != nil {
		s.addVersion(key, version{object: s.objects[key]})
	}
	return nil
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := objstore.CheckGet(key, offset); err != nil {
		return nil, err
	}
	fault, err := s.begin(ctx, Get, key)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	o, ok := s.objects[key]
	readable := ok && s.readable(o)
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, objstore.ErrNotExist)
	}
	if fault.Err != nil {
		return nil, fault.Err
	}
	if !readable {
		return nil, fmt.Errorf("get %s: %w", key, objstore.ErrArchived)
	}
	data := o.data[min(offset, int64(len(o.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return &body{ctx: ctx, r: bytes.NewReader(data)}, nil
}

type body struct {
	ctx context.Context
	r   *bytes.Reader
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (*body) Close() error { return nil }

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, err
	}
	fault, err := s.begin(ctx, Stat, key)
	if err != nil {
		return objstore.Info{}, err
	}
	i, ok := s.info(key)
	if !ok {
		return objstore.Info{}, fmt.Errorf("stat %s: %w", key, objstore.ErrNotExist)
	}
	if fault.Err != nil {
		return objstore.Info{}, fault.Err
	}
	return i, nil
}

func (s *Store) info(key string) (objstore.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	return objstore.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified, SHA256: bytes.Clone(o.sum[:]), Class: o.class}, ok
}

func (s *Store) keepsVersions() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions != nil
}

// keys returns all keys in order; the caller holds mu and does not change the slice.
func (s *Store) keys() []string {
	if s.sorted == nil {
		s.sorted = slices.Sorted(maps.Keys(s.objects))
	}
	return s.sorted
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return err
	}
	fault, err := s.begin(ctx, List, prefix)
	if err != nil {
		return err
	}
	for _, key := range s.below(prefix) {
		if err := ctx.Err(); err != nil {
			return err
		}
		i, ok := s.info(key)
		if !ok {
			continue // deleted meanwhile
		}
		if err := fn(i); err != nil {
			return err
		}
	}
	return fault.Err
}

func (s *Store) below(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.keys()
	from, _ := slices.BinarySearch(all, prefix)
	to := from
	for to < len(all) && strings.HasPrefix(all[to], prefix) {
		to++
	}
	return all[from:to]
}

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	return objstore.Prefixes(ctx, lister{s}, prefix, fn)
}

// lister hides Prefixes, so that it is done by List.
type lister struct{ objstore.Store }

// Delete implements [objstore.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if s.keepsVersions() {
		return s.remove(ctx, key, func(version) bool { return true })
	}
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	fault, err := s.begin(ctx, Delete, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuse(key); err != nil {
		return err
	}
	if _, ok := s.objects[key]; ok {
		delete(s.objects, key)
		delete(s.locks, key)
		s.sorted = nil
	}
	return fault.Err
}
