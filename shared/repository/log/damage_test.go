package log_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestDamage has pieces torn, forged, swapped, replayed and taken from another epoch: whatever is done, reading ends with an
// error that names the object, after the records before it.
func TestDamage(t *testing.T) {
	f := repotest.New(t)
	w := create(t, f, options(f))
	end := write(t, f, w, 1, 9)
	o := options(f)
	o.Stream, o.After, o.Continues = w.Stream(), 1, &end
	second := create(t, f, o)
	last := write(t, f, second, 10, 19)
	key := func(epoch, n uint64) string {
		return layout.LogKey(f.Source, layout.LogObject{Stream: w.Stream(), Epoch: epoch, First: n, Last: n})
	}
	content := func(epoch, n uint64) []byte {
		b, _ := f.Store.Object(key(epoch, n))
		return b
	}
	// A branch with records of the same numbers, in a store of its own.
	elsewhere := f.Fork(t, f.Store.Clone())
	o.After = 2
	branch := create(t, elsewhere, o)
	write(t, elsewhere, branch, 210, 219)
	foreign, _ := elsewhere.Store.Object(key(3, 15))
	for name, tt := range map[string]struct {
		n    uint64
		data []byte
		is   error
	}{
		"torn":                        {15, content(2, 15)[:120], log.ErrTorn},
		"empty":                       {15, []byte{}, snapshot.ErrFormat},
		"gone":                        {15, nil, objstore.ErrNotExist},
		"replayed":                    {15, content(2, 14), log.ErrName},
		"swapped":                     {15, content(2, 16), log.ErrName},
		"of another epoch":            {15, foreign, nil},
		"of another epoch, same name": {15, content(1, 5), nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := f.Fork(t, f.Store.Clone())
			all := streams(t, g.Repo, g.Source)
			g.Store.Tamper(key(2, tt.n), tt.data)
			got, err := read(g.Repo, g.Source, all, log.Range{From: start(w.Stream()), Through: last})
			var hole *log.HoleError
			var damage *repository.DamageError
			if !errors.As(err, &hole) || !errors.As(err, &damage) || hole.First != tt.n || damage.Key != key(2, tt.n) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v", err)
			}
			if diff := cmp.Diff(numbers(1, uint32(tt.n)-1), got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("in order elsewhere", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		all := streams(t, g.Repo, g.Source)
		g.Store.Tamper(key(2, 15), content(2, 15)[:120])
		g.Store.Tamper(key(1, 3), nil)
		var mu sync.Mutex
		told := []string{}
		g.Repo.AlsoRead([]repository.Place{{Name: "copy", Open: func(context.Context) (objstore.Store, error) { return f.Store, nil }}},
			func(e repository.Elsewhere) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, e.Key+" in "+e.Place)
			})
		got, err := read(g.Repo, g.Source, all, log.Range{From: start(w.Stream()), Through: last})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(told)
		if diff := cmp.Diff(numbers(1, 19), got); diff != "" || !slices.Equal(told, []string{key(1, 3) + " in copy", key(2, 15) + " in copy"}) {
			t.Error(diff, told)
		}
	})
	t.Run("not listed", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		g.Store.Tamper(key(1, 3), nil)
		g.Store.Tamper(key(1, 4), nil)
		got, err := read(g.Repo, g.Source, streams(t, g.Repo, g.Source), log.Range{From: start(w.Stream()), Through: last})
		if hole := new(log.HoleError); !errors.As(err, &hole) || hole.First != 3 || hole.Last != 4 || len(got) != 2 {
			t.Errorf("%v after %q", err, got)
		}
	})
	t.Run("head", func(t *testing.T) {
		g := f.Fork(t, f.Store.Clone())
		head := layout.LogKey(g.Source, layout.LogObject{Stream: w.Stream(), Epoch: 2})
		b, _ := g.Store.Object(head)
		g.Store.Tamper(head, bytes.Replace(b, []byte(`"kind":"sqlite"`), []byte(`"kind":"other"`), 1))
		if _, err := read(g.Repo, g.Source, streams(t, g.Repo, g.Source), log.Range{From: start(w.Stream()), Through: last}); !errors.Is(err, log.ErrNoHead) {
			t.Errorf("%v", err)
		}
	})
}
