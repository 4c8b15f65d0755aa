package repository

import (
	"context"
	"errors"
	"sync"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// Place is another place that has objects of this repository, such as a copy.
type Place struct {
	Name string // for who is told
	// Open is called once, when something is first wanted from there.
	Open func(context.Context) (objstore.Store, error)
}

// Elsewhere says that something could not be read as it must be, and what came of looking elsewhere.
type Elsewhere struct {
	Key   string // of the object
	Fault error  // what is wrong with it here
	Place string // where it was found in order; empty: here, when it was read again
	Err   error  // why nothing could be read from Place; nil: it was
}

// elsewhere is where readers look for what is damaged.
type elsewhere struct {
	places []*place
	tell   func(Elsewhere)
}

type place struct {
	Place
	once  sync.Once
	store objstore.Store
	err   error
}

// AlsoRead lets this repository's readers take from other places what is missing or altered here: chunks, pack lists and
// objects of logs. Before a place is asked, what came altered is read once more here. Whatever comes from elsewhere is
// proven as it would be here, by its name or by the keys of its chain: a place needs no trust. Manifests and keys are
// read here only.
//
// It is for who wants content back. Who verifies must not call it: the damage would not be seen. Call it before anything
// is read. tell is called from several goroutines at a time.
func (r *Repository) AlsoRead(places []Place, tell func(Elsewhere)) {
	e := &elsewhere{tell: tell}
	for _, p := range places {
		e.places = append(e.places, &place{Place: p})
	}
	r.also = e
}

// here is the index, among the places, of the repository's own.
const here = -1

// Recover looks elsewhere for an object that is faulty here. take reads and proves it from a store; where is the same for
// the same store. Recover reports whether one did; it is false at once unless [Repository.AlsoRead] was called.
func (r *Repository) Recover(ctx context.Context, key string, fault error, take func(where int, store objstore.Store) error) bool {
	if r.also == nil {
		return false
	}
	if !errors.Is(fault, objstore.ErrNotExist) && take(here, r.store) == nil {
		r.also.tell(Elsewhere{Key: key, Fault: fault})
		return true
	}
	for i, p := range r.also.places {
		if ctx.Err() != nil {
			return false
		}
		p.once.Do(func() { p.store, p.err = p.Open(ctx) })
		err := p.err
		if err == nil {
			err = take(i, p.store)
		}
		r.also.tell(Elsewhere{Key: key, Fault: fault, Place: p.Name, Err: err})
		if err == nil {
			return true
		}
	}
	return false
}

// again reads a chunk of a span elsewhere. What was fetched of the span is kept in spans, by place: the next chunk of a
// pack that is gone needs no request of its own.
func (s *Snapshot) again(ctx context.Context, sp *span, spans map[int][]byte, dst []byte, ref KindRef, fault error) ([]byte, error) {
	found := s.repo.Recover(ctx, sp.pack.key, fault, func(where int, store objstore.Store) error {
		b, ok := spans[where]
		if !ok {
			b = make([]byte, sp.last-sp.first)
			n, _, err := fetch(ctx, store, sp.pack.key, sp.first, b)
			if err != nil {
				return err
			}
			b = b[:n]
			spans[where] = b
		}
		from, to := ref.Offset-sp.first, ref.Offset-sp.first+ref.Sealed
		switch {
		case len(b) == 0:
			return objstore.ErrNotExist
		case int(to) > len(b):
			return errTooShort
		}
		// A copy: opening overwrites, and the same chunk may be wanted as another kind.
		plain, err := s.open(sp.pack.sealer(s), dst[:0], ref, append([]byte(nil), b[from:to]...))
		if err == nil {
			dst = plain
		}
		return err
	})
	if found {
		return dst, nil
	}
	return dst, fault
}
