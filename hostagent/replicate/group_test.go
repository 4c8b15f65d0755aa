package replicate_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
)

// TestGroup changes what is wanted while the group is at work.
func TestGroup(t *testing.T) {
	w := newWorld(t)
	w.app(5)
	other := filepath.Join(w.dir, "other.db")
	w.app(5, "-db", other)
	var mu sync.Mutex
	want := map[string]replicate.Spec{"app": {Path: w.path, Interval: 50 * time.Millisecond}}
	away, made := true, 0
	g := &replicate.Group{
		Want: func() map[string]replicate.Spec {
			mu.Lock()
			defer mu.Unlock()
			out := map[string]replicate.Spec{}
			for name, s := range want {
				out[name] = s
			}
			return out
		},
		Make: func(_ context.Context, name string, s replicate.Spec) (*replicate.Follower, error) {
			mu.Lock()
			defer mu.Unlock()
			if away {
				away = false
				return nil, errors.New("the repository is away")
			}
			made++
			clone := *w
			clone.path, clone.src.Name = s.Path, name
			clone.dir = filepath.Join(w.dir, name)
			o := clone.options(func(o *replicate.Options) { o.Path, o.Interval = s.Path, s.Interval })
			o.Base = clone.snapshot
			return replicate.New(o), nil
		},
		Every: 10 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	await := func(what string, ok func() bool) {
		t.Helper()
		for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal(what)
			}
		}
	}
	well := func(name string) bool {
		f := g.Follower(name)
		return f != nil && following(f.Status())
	}
	await("the first is followed, once the repository is there", func() bool { return well("app") })
	mu.Lock()
	want["other"] = replicate.Spec{Path: other, Interval: time.Second}
	mu.Unlock()
	await("the second is followed", func() bool { return well("other") })
	mu.Lock()
	delete(want, "app")
	want["other"] = replicate.Spec{Path: other, Interval: 100 * time.Millisecond}
	mu.Unlock()
	await("the first is given up", func() bool { return g.Follower("app") == nil })
	await("the second is followed at another pace", func() bool {
		return well("other") && g.Follower("other").Status().Interval == 100*time.Millisecond
	})
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	if made != 3 {
		t.Errorf("%d followers", made)
	}
}
