// Package limit is a decorator that bounds what a store may use: bytes per second up and down, and requests at a time.
// Use [New].
package limit

import (
	"context"
	"io"
	"sync"

	"golang.org/x/time/rate"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Options are the bounds. Zero means none.
type Options struct {
	Upload   int64 // bytes per second, of all Puts together
	Download int64 // bytes per second, of all Gets together
	// Parallel is the number of Put, Get, Stat and Delete at a time. A Get counts until its body ends or is closed: who
	// holds as many bodies open must not wait for another call. Listings do not count.
	Parallel int
}

// Store is a store with bounds.
type Store struct {
	store    objstore.Store
	up, down *rate.Limiter // nil: unbounded
	slots    chan struct{} // nil: unbounded
}

// New returns store with bounds.
func New(store objstore.Store, o Options) *Store {
	s := &Store{store: store, up: limiter(o.Upload), down: limiter(o.Download)}
	if o.Parallel > 0 {
		s.slots = make(chan struct{}, o.Parallel)
	}
	return s
}

// most is the largest number of bytes that pass at once.
const most = 256 << 10

func limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	// A quarter of a second at once, so that slow limits stay smooth.
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/4, 1), most)))
}

// enter waits for a slot; the returned function, which may be called repeatedly, gives it back.
func (s *Store) enter(ctx context.Context) (leave func(), err error) {
	if s.slots == nil {
		return func() {}, ctx.Err()
	}
	select {
	case s.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-s.slots }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Put implements [objstore.Store].
func (s *Store) Put(ctx context.Context, key string, c objstore.Content) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if s.up != nil && c.ReaderAt != nil {
		c.ReaderAt = &metered{ReaderAt: c.ReaderAt, ctx: ctx, rate: s.up}
	}
	return s.store.Put(ctx, key, c)
}

// metered is content that waits for its bandwidth.
type metered struct {
	io.ReaderAt
	ctx  context.Context
	rate *rate.Limiter
}

func (m *metered) ReadAt(p []byte, offset int64) (int, error) {
	for done := 0; ; {
		part := p[done:min(len(p), done+m.rate.Burst())]
		if err := wait(m.ctx, m.rate, len(part)); err != nil {
			return done, err
		}
		n, err := m.ReaderAt.ReadAt(part, offset+int64(done))
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// Unmetered returns the content for reads that are not sent anywhere, see [objstore.Unmetered].
func (m *metered) Unmetered() io.ReaderAt { return objstore.Unmetered(m.ReaderAt) }

// wait waits until n bytes may pass; n is at most the burst. A deadline that is too near is met, not foretold.
func wait(ctx context.Context, r *rate.Limiter, n int) error {
	if err := r.WaitN(ctx, n); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		<-ctx.Done() // WaitN refuses at once to wait beyond a deadline
		return ctx.Err()
	}
	return nil
}

// Get implements [objstore.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.store.Get(ctx, key, offset, length)
	if err != nil {
		leave()
		return nil, err
	}
	return &body{ReadCloser: r, ctx: ctx, rate: s.down, leave: leave}, nil
}

// body waits after each read for the bandwidth that it took, and gives the slot back.
type body struct {
	io.ReadCloser
	ctx   context.Context
	rate  *rate.Limiter
	leave func()
}

func (b *body) Read(p []byte) (int, error) {
	if b.rate != nil {
		p = p[:min(len(p), b.rate.Burst())]
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.leave()
		return n, err
	}
	if b.rate != nil {
		err = wait(b.ctx, b.rate, n)
	}
	return n, err
}

func (b *body) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

// Stat implements [objstore.Store].
func (s *Store) Stat(ctx context.Context, key string) (objstore.Info, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return objstore.Info{}, err
	}
	defer leave()
	return s.store.Stat(ctx, key)
}

// Delete implements [objstore.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return s.store.Delete(ctx, key)
}

// List implements [objstore.Store].
func (s *Store) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	return s.store.List(ctx, prefix, fn)
}

// Prefixes implements [objstore.Lister].
func (s *Store) Prefixes(ctx context.Context, prefix string, fn func(name string) error) error {
	return objstore.Prefixes(ctx, s.store, prefix, fn)
}
