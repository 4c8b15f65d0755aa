package replicate_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
)

// still is a follower to whose source nothing happens.
type still struct {
	spec replicate.Spec
	err  error // with which it ends at once
}

func (s *still) Run(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	<-ctx.Done()
	return nil
}

func (s *still) Status() replicate.Status {
	return replicate.Status{State: replicate.Following, Path: s.spec.Path, Interval: s.spec.Interval}
}

// TestGroup changes what is wanted while the group is at work.
func TestGroup(t *testing.T) {
	var mu sync.Mutex
	want := map[string]replicate.Spec{"app": {Path: "/app.db", Interval: time.Second}, "taken": {Path: "/taken.db"}}
	away, made, told := true, map[string]int{}, map[string]int{}
	g := &replicate.Group{
		Want: func() map[string]replicate.Spec {
			mu.Lock()
			defer mu.Unlock()
			return maps.Clone(want)
		},
		Make: func(_ context.Context, name string, s replicate.Spec) (replicate.Follower, error) {
			mu.Lock()
			defer mu.Unlock()
			if away && name == "app" {
				away = false
				return nil, errors.New("the repository is away")
			}
			made[name]++
			f := &still{spec: s}
			if name == "taken" {
				f.err = replicate.ErrSuperseded
			}
			return f, nil
		},
		Tell: func(name string, _ error) {
			mu.Lock()
			defer mu.Unlock()
			told[name]++
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
	interval := func(name string) time.Duration {
		if f := g.Follower(name); f != nil {
			return f.Status().Interval
		}
		return 0
	}
	await("the first is followed, once the repository is there", func() bool { return interval("app") == time.Second })
	mu.Lock()
	want["other"] = replicate.Spec{Path: "/other.db", Interval: time.Second}
	mu.Unlock()
	await("the second is followed", func() bool { return interval("other") == time.Second })
	mu.Lock()
	delete(want, "app")
	want["other"] = replicate.Spec{Path: "/other.db", Interval: time.Minute}
	mu.Unlock()
	await("the first is given up", func() bool { return g.Follower("app") == nil })
	await("the second is followed at another pace", func() bool { return interval("other") == time.Minute })
	await("the one that somebody else has taken over is told of", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told["taken"] > 0
	})
	cancel()
	<-done
	mu.Lock()
	defer mu.Unlock()
	if made["app"] != 1 || made["other"] != 2 || made["taken"] != 1 {
		t.Errorf("followers were made: %v", made)
	}
	if told["app"] != 1 || told["taken"] != 1 {
		t.Errorf("told: %v", told)
	}
}
