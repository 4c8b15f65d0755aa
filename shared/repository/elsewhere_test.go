package repository_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// onceAltered alters the first answer for each pack on its way.
type onceAltered struct {
	objstore.Store
	mu   sync.Mutex
	seen map[string]bool // guarded by mu
}

func (o *onceAltered) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := o.Store.Get(ctx, key, offset, length)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil || o.seen[key] || !strings.Contains(key, "/packs/") {
		return r, err
	}
	o.seen[key] = true
	b, err := io.ReadAll(r)
	if err == nil {
		b[len(b)/2] ^= 4
	}
	return io.NopCloser(strings.NewReader(string(b))), errors.Join(err, r.Close())
}

// told collects what readers say about places.
type told struct {
	mu  sync.Mutex
	all []repository.Elsewhere // guarded by mu
}

func (o *told) tell(e repository.Elsewhere) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, e)
}

func (o *told) of(place string) (found, failed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.all {
		switch {
		case e.Place != place:
		case e.Err == nil:
			found++
		default:
			failed++
		}
	}
	return found, failed
}

func at(name string, store objstore.Store) repository.Place {
	return repository.Place{Name: name, Open: func(context.Context) (objstore.Store, error) { return store, nil }}
}

// TestAlsoRead damages packs and lists of the repository in every way and reads all from elsewhere; without another place
// the damage is named as ever.
func TestAlsoRead(t *testing.T) {
	f := repotest.New(t)
	tree := repotest.Tree{
		"/srv/a": repotest.Noise(1, 700<<10), "/srv/b": repotest.Noise(2, 1<<20), "/srv/dir/c": []byte("small"),
		"/srv/large": repotest.Noise(3, snapshot.MapSpan+300<<10),
	}
	f.Backup(t, snapshot.Full, tree)
	m := f.Backup(t, snapshot.Incremental, tree.With("/srv/a", repotest.Noise(4, 400<<10)))
	want := f.Trees[2]
	good := f.Store.Clone()
	restore := func(store objstore.Store, places ...repository.Place) (repotest.Tree, *told, error) {
		r, o := f.Open(t, store), new(told)
		if places != nil {
			r.AlsoRead(places, o.tell)
		}
		got, err := repotest.Restore(t.Context(), r, m)
		return got, o, err
	}
	for name, alter := range map[string]func(b []byte) []byte{
		"altered": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"rotten":  func(b []byte) []byte { return repotest.Noise(9, len(b)) },
		"short":   func(b []byte) []byte { return b[:len(b)/3] },
		"empty":   func([]byte) []byte { return []byte{} },
		"gone":    func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bad, other := good.Clone(), good.Clone()
			for i, key := range append(repotest.Keys(good, "/packs/"), repotest.Keys(good, "/lists/")...) {
				b, _ := good.Object(key)
				bad.Tamper(key, alter(b))
				if i%2 == 0 { // the first of two places has every other object in order
					b, _ = good.Object(key)
					other.Tamper(key, alter(b))
				}
			}
			if _, _, err := restore(bad); err == nil {
				t.Error("damage was not seen")
			}
			if _, o, err := restore(bad, at("other", other)); err == nil {
				t.Errorf("damage in both places was not seen; told %v", o.all)
			}
			got, o, err := restore(bad, at("other", other), at("good", good))
			if err != nil {
				t.Fatal(err)
			}
			if !maps.EqualFunc(want, got, bytes.Equal) {
				t.Error("what was read elsewhere differs")
			}
			for _, place := range []string{"other", "good"} {
				if found, _ := o.of(place); found == 0 {
					t.Errorf("nothing was found in %s: %v", place, o.all)
				}
			}
			if found, failed := o.of(""); found+failed > 0 {
				t.Errorf("told as found here: %v", o.all)
			}
		})
	}
	t.Run("altered on the way", func(t *testing.T) {
		if _, _, err := restore(&onceAltered{Store: good, seen: map[string]bool{}}); err == nil {
			t.Error("damage was not seen") // nobody asked for more
		}
		got, o, err := restore(&onceAltered{Store: good, seen: map[string]bool{}}, at("nowhere", mem.New()))
		if err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(want, got, bytes.Equal) {
			t.Error("what was read again differs")
		}
		if found, _ := o.of(""); found == 0 || len(o.all) != found {
			t.Errorf("told: %v", o.all)
		}
	})
	t.Run("no such place", func(t *testing.T) {
		bad := good.Clone()
		for _, key := range repotest.Keys(good, "/packs/") {
			bad.Tamper(key, nil)
		}
		closed, opened := errors.New("closed"), 0
		_, o, err := restore(bad, repository.Place{Name: "closed", Open: func(context.Context) (objstore.Store, error) { opened++; return nil, closed }}, at("good", good))
		found, failed := o.of("closed")
		if err != nil || found > 0 || failed == 0 || opened != 1 || !errors.Is(o.all[0].Err, closed) {
			t.Errorf("%v, opened %d times: %v", err, opened, o.all)
		}
	})
	t.Run("another repository", func(t *testing.T) {
		g := repotest.New(t)
		g.Backup(t, snapshot.Full, tree)
		bad, foreign := good.Clone(), g.Store.Clone()
		packs, theirs := repotest.Keys(good, "/packs/"), repotest.Keys(foreign, "/packs/")
		b, _ := foreign.Object(theirs[0])
		if err := foreign.Put(t.Context(), packs[0], objstore.Bytes(b)); err != nil {
			t.Fatal(err)
		}
		bad.Tamper(packs[0], nil)
		if _, _, err := restore(bad, at("foreign", foreign)); err == nil {
			t.Error("a foreign pack was taken")
		}
	})
}
