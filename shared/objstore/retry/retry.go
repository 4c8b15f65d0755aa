// Package retry is a decorator that does again what failed for a passing reason ([objstore.IsTransient]): with pauses
// that grow and are random, so that many agents do not come back at the same moment, and within a limit.
//
// Use [New]. Puts are repeatable by the contract of [objstore.Store], and what a store refuses as spoilt is sent again a
// few times if it is still good here; a body that breaks off is continued where it
// broke; a listing goes on behind the last key that it gave out.
package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Options says how to retry. Zero values stand for the defaults.
type Options struct {
	First   time.Duration // the first pause is between 0 and this; 500 ms
	Longest time.Duration // pauses are doubled up to this; 30 s
	GiveUp  time.Duration // after this long without any success; 15 min. Negative: never
	// Notify, if not nil, is told before each pause. It may be called by several goroutines.
	Notify func(Event)
}

// Event is one failure that will be retried.
type Event struct {
	Op    string // "put", "get", "stat", "list", "delete"
	Key   string
	Err   error
	Try   int           // from 1
	Took  time.Duration // until this try failed; long where a server is silent
	Pause time.Duration
}

// Store is a store that retries.
type Store struct {
	store   objstore.Store
	options Options
}

// New returns store with retries.
func New(store objstore.Store, o Options) *Store {
	if o.First <= 0 {
		o.First = 500 * time.Millisecond
	}
	if o.Longest <= 0 {
		o.Longest = 30 * time.Second
	}
	if o.GiveUp == 0 {
		o.GiveUp = 15 * time.Minute
	}
	return &Store{store: store, options: o}
}

// attempts counts the failures in a row of one operation.
type attempts struct {
	store *Store
	op    string
	key   string
	tries int
	since time.Time // of the first failure
	began time.Time // the present try, or its last progress
}

func (s *Store) begin(op, key string) *attempts {
	return &attempts{store: s, op: op, key: key, began: time.Now()}
}

// progress forgets the failures so far: what comes next is a new trouble.
func (a *attempts) progress() { a.tries, a.began = 0, time.Now() }

// again pauses and returns nil if the operation that ended with err should be tried once more. Else it returns the
// error with which the operation ends.
func (a *attempts) again(ctx context.Context, err error) error {
	if !objstore.IsTransient(err) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", a.op, a.key, ctx.Err())
	}
	o := a.store.options
	if a.tries == 0 {
		a.since = time.Now()
	}
	a.tries++
	most := o.Longest
	if a.tries < 32 {
		most = min(most, o.First<<(a.tries-1))
	}
	if most <= 0 { // shifted out
		most = o.Longest
	}
	pause := rand.N(most) //nolint:gosec // spreads load, keeps no secret
	if o.GiveUp > 0 && time.Since(a.since)+pause > o.GiveUp {
		return fmt.Errorf("gave up after %d tries: %w", a.tries, err)
	}
	if o.Notify != nil {
		o.Notify(Event{Op: a.op, Key: a.key, Err: err, Try: a.tries, Took: time.Since(a.began), Pause: pause})
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		a.began = time.Now()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", a.op, a.key, ctx.Err())
	}
}

// do calls fn until it succeeds or is not to be called again.
func (s *Store) do(ctx context.Context, op, key string, fn func() error) error {
	a := s.begin(op, key)
	for {
		err := fn()
		if err == nil {
			return nil
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// Put implements [objstore.Store].
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
	return s.put(ctx, key, c, func() error { return s.store.Put(ctx, key, c) })
}

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (i objstore.Info, err error) {
	err = s.do(ctx, "stat", key, func() (err error) {
		i, err = s.store.Stat(ctx, key)
		return err
	})
	return i, err
}

// Delete implements [objstore.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.do(ctx, "delete", key, func() error { return s.store.Delete(ctx, key) })
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return s.list(ctx, prefix, s.store.List, fn)
}

// listing is a method such as [objstore.Store.List].
type listing func(ctx context.Context, prefix string, fn func(objstore.Info) error) error

// list goes on behind the last key that was given out.
func (s *Store) list(ctx context.Context, prefix string, below listing, fn func(objstore.Info) error) error {
	a := s.begin("list", prefix)
	last, given := "", false
	var failed error // fn's own, which is never retried, whatever it is
	for {
		err := below(ctx, prefix, func(i objstore.Info) error {
			if given && i.Key <= last {
				return nil // given out before the trouble
			}
			last, given = i.Key, true
			a.progress()
			failed = fn(i)
			return failed
		})
		if failed != nil || err == nil {
			return err
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	var names []string
	err := s.do(ctx, "list", prefix, func() error {
		names = nil
		return objstore.Prefixes(ctx, s.store, prefix, func(n string) error {
			names = append(names, n)
			return nil
		})
	})
	if err != nil {
		return err
	}
	return objstore.EachName(names, fn)
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b := &body{ctx: ctx, store: s, attempts: s.begin("get", key), key: key, offset: offset, length: length}
	for {
		err := b.open()
		if err == nil {
			return b, nil
		}
		if err := b.attempts.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// body is a body that is opened again where it broke off. Like any reader it is used by one goroutine at a time.
type body struct {
	ctx      context.Context
	store    *Store
	attempts *attempts
	key      string
	offset   int64         // of the next byte
	length   int64         // what is still wanted; negative: all
	current  io.ReadCloser // nil: to be opened
	err      error         // what Read returns from now on
}

func (b *body) open() error {
	r, err := b.store.store.Get(b.ctx, b.key, b.offset, b.length)
	if err == nil {
		b.current = r
	}
	return err
}

var errClosed = errors.New("read of a closed body")

func (b *body) Read(p []byte) (int, error) {
	for len(p) > 0 && b.err == nil {
		n, err := b.read(p)
		if n > 0 {
			b.offset += int64(n)
			if b.length >= 0 {
				b.length -= int64(n)
			}
			b.attempts.progress()
		}
		if err != nil {
			b.drop()
			b.err = b.settle(err, n > 0)
		}
		if n > 0 {
			return n, b.err
		}
	}
	return 0, b.err
}

// read reads once, from a body that it opens if there is none.
func (b *body) read(p []byte) (int, error) {
	if b.current == nil {
		return 0, b.open()
	}
	return b.current.Read(p)
}

// settle decides what an error of read means: nil if the next one goes on.
func (b *body) settle(err error, progress bool) error {
	switch {
	case err == io.EOF: //nolint:errorlint // io.Reader promises EOF itself
		return io.EOF
	case objstore.IsTransient(err) && b.length == 0:
		return io.EOF // it broke behind the last byte that was wanted
	case objstore.IsTransient(err) && progress:
		return nil
	}
	return b.attempts.again(b.ctx, err)
}

func (b *body) drop() {
	if b.current != nil {
		_ = b.current.Close()
		b.current = nil
	}
}

func (b *body) Close() error {
	b.err = errClosed
	if b.current == nil {
		return nil
	}
	err := b.current.Close()
	b.current = nil
	return err
}
