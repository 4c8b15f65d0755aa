package replicate

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// Spec is what is to be followed of a source. One that differs means that the follower must be made anew.
type Spec struct {
	Kind     string // of the source
	Path     string // of the database, or what a cluster is reached by
	Slot     string // of a cluster
	Interval time.Duration
}

// Group follows the sources of a host, whichever these are from time to time.
type Group struct {
	// Want tells what is to be followed, by the source's name. It is called again and again.
	Want func() map[string]Spec
	// Make makes the follower of a source. Where it can't, it is asked again later.
	Make func(ctx context.Context, name string, s Spec) (Follower, error)
	// Tell is told why a source is not followed. Nil: nobody is.
	Tell func(name string, err error)
	// Every is how often Want is called; 0: a default.
	Every time.Duration

	mu      sync.Mutex
	members map[string]*member // guarded by mu
}

// member is a source of a group.
type member struct {
	Spec
	stop context.CancelFunc
	done chan struct{}

	follower Follower // nil: there is none yet; guarded by the group's mu
}

// groupEvery is how often a group asks what it is to follow.
const groupEvery = 10 * time.Second

// Run follows until ctx ends, and until all followers have ended then.
func (g *Group) Run(ctx context.Context) {
	every := g.Every
	if every == 0 {
		every = groupEvery
	}
	for ctx.Err() == nil {
		g.adjust(ctx)
		Sleep(ctx, every)
	}
	for _, m := range g.all() {
		<-m.done
	}
}

// Follower returns the follower of a source; nil if there is none now.
func (g *Group) Follower(name string) Follower {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[name]; m != nil {
		return m.follower
	}
	return nil
}

func (g *Group) all() map[string]*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.members)
}

// adjust ends what is not wanted any more, and begins what is.
func (g *Group) adjust(ctx context.Context) {
	want := g.Want()
	for name, m := range g.all() {
		if s, ok := want[name]; ok && s == m.Spec {
			continue
		}
		m.stop()
		<-m.done
		g.mu.Lock()
		delete(g.members, name)
		g.mu.Unlock()
	}
	for name, s := range want {
		g.mu.Lock()
		if g.members == nil {
			g.members = map[string]*member{}
		}
		if g.members[name] == nil {
			one, stop := context.WithCancel(ctx)
			m := &member{Spec: s, stop: stop, done: make(chan struct{})}
			g.members[name] = m
			go func() {
				defer close(m.done)
				defer stop()
				g.follow(one, name, m)
			}()
		}
		g.mu.Unlock()
	}
}

// follow follows one source until ctx ends, or somebody else has taken it over.
func (g *Group) follow(ctx context.Context, name string, m *member) {
	for wait := FirstRetry; ctx.Err() == nil; wait = min(2*wait, MostRetry) {
		f, err := g.Make(ctx, name, m.Spec)
		if err == nil {
			g.set(m, f)
			began := time.Now()
			err = f.Run(ctx)
			g.set(m, nil)
			if time.Since(began) > MostRetry {
				wait = FirstRetry
			}
		}
		if ctx.Err() != nil {
			return
		}
		if g.Tell != nil {
			g.Tell(name, err)
		}
		if errors.Is(err, ErrSuperseded) {
			// Two writers that take turns would be worse than one that a person must look at.
			<-ctx.Done()
			return
		}
		Sleep(ctx, wait)
	}
}

func (g *Group) set(m *member, f Follower) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.follower = f
}
