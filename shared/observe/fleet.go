package observe

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
)

// Shards is in how many documents the memories of all sources are kept. Hosts are spread by name, and the number never
// changes: otherwise all would have to be learnt again.
const Shards = 64

// ShardOf is the number of the document that has a host and its sources.
func ShardOf(host string) int { return int(sha256.Sum256([]byte(host))[0]) % Shards }

// ShardKey is the key of a shard's document in the state store.
func ShardKey(n int) string { return fmt.Sprintf("%s%02d.json", control.SourcesPrefix, n) }

// Shard is the document `sources/<shard>.json`. It can be lost: the next pass makes it again.
type Shard struct {
	Version int                    `json:"version"`
	Sources map[string]*Memory     `json:"sources,omitempty"` // by host/source
	Hosts   map[string]*HostMemory `json:"hosts,omitempty"`
}

// Defaults of a [Fleet].
const (
	DefaultParallel = 32
	DefaultJobs     = 15 * time.Minute
	shardsAtOnce    = 8
)

// Fleet looks at all sources of a policy.
type Fleet struct {
	Watch    *Watch
	State    statestore.Store
	Policy   *policy.Policy
	Parallel int           // looks at the same time; 0: DefaultParallel
	Jobs     time.Duration // how often the jobs of a host are read; 0: DefaultJobs
	Now      func() time.Time
}

// Pass is what one pass over all sources found.
type Pass struct {
	Shards    map[int]*Shard // those that could be read, brought up to date
	Looks     int            // sources that were looked at
	Audits    int            // of these, in whole because it was their time
	Late      int            // due, and the time was up
	Conflicts int            // shards that another pass wrote meanwhile
	Unread    int            // shards that could not be read: nothing is said of their sources
	Failures  map[string]string
	Findings  map[string][]compliance.Finding // of verify and lifecycle, by source
	Unheard   map[string]bool                 // sources of which not all findings could be read; "": of all
	Next      int                             // the shard with which the next pass begins
}

// member is one source of the policy.
type member struct {
	src snapshot.Source
	rpo time.Duration
}

// Pass looks at every source that is due and remembers what it saw: each shard is read, its sources are looked at, and it
// is written back if nobody else wrote it. Looks end when until comes; sources that were not reached by then are judged by
// what is remembered, and the next pass begins with them (first is the Next of the pass before).
//
// A crash loses the looks of shards that were not written; the next pass does them again. An error means that nothing at
// all could be read.
func (f *Fleet) Pass(ctx context.Context, first int, until time.Time) (*Pass, error) {
	members := map[int][]member{}
	f.Policy.Each(func(host, name string, s *policy.Source) {
		n := ShardOf(host)
		members[n] = append(members[n], member{snapshot.Source{Host: host, Name: name}, s.Objectives.RPO.Std()})
	})
	order := slices.Sorted(maps.Keys(members))
	slices.SortStableFunc(order, func(a, b int) int { return (a-first+Shards)%Shards - (b-first+Shards)%Shards })
	looking, stop := context.WithDeadline(ctx, until)
	defer stop()
	p := &passing{fleet: f, pass: &Pass{Shards: map[int]*Shard{}, Failures: map[string]string{}, Findings: map[string][]compliance.Finding{}, Unheard: map[string]bool{}, Next: first}, slots: make(chan struct{}, f.parallel()), late: map[int]bool{}}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(shardsAtOnce + 1)
	for _, n := range order {
		g.Go(func() error {
			if err := p.shard(gctx, looking, n, members[n]); err != nil {
				p.fail(ShardKey(n), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		if err := p.findings(gctx); err != nil {
			p.fail("findings", err)
			p.unheard("")
		}
		return nil
	})
	_ = g.Wait() // nothing returns an error: one shard's trouble is no other's
	for _, n := range order {
		if p.late[n] {
			p.pass.Next = n
			break
		}
	}
	if len(p.pass.Shards) == 0 && len(order) > 0 {
		return nil, fmt.Errorf("look at sources: no shard can be read: %s", p.pass.Failures[ShardKey(order[0])])
	}
	return p.pass, nil
}

func (f *Fleet) parallel() int {
	if f.Parallel > 0 {
		return f.Parallel
	}
	return DefaultParallel
}

// passing is a pass at work.
type passing struct {
	fleet *Fleet
	slots chan struct{} // one for each request at the same time

	mu   sync.Mutex
	pass *Pass        // guarded by mu
	late map[int]bool // shards with sources that were not reached; guarded by mu
}

func (p *passing) fail(what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass.Failures[what] = err.Error()
}

// shard brings one shard up to date.
func (p *passing) shard(ctx, looking context.Context, n int, members []member) error {
	s, tag, err := statestore.Read[Shard](ctx, p.fleet.State, ShardKey(n))
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		s, tag = &Shard{}, ""
	case err != nil && tag != "":
		s = &Shard{} // it can't be understood, and is made anew: its sources must not be left out for ever
	case err != nil:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pass.Unread++
		return err
	}
	next := &Shard{Version: 1, Sources: map[string]*Memory{}, Hosts: map[string]*HostMemory{}}
	var mu sync.Mutex // guards next and changed
	// Hosts first: that a repository does not answer must not hide that an agent is silent.
	changed := p.hosts(looking, n, s, next, members) || len(s.Sources) != len(members)
	for _, m := range members {
		next.Sources[m.src.String()] = s.Sources[m.src.String()]
	}
	var wg sync.WaitGroup
	for _, m := range members {
		name := m.src.String()
		old := s.Sources[name]
		due, whole := Due(old, m.rpo, p.fleet.Now())
		if !due {
			continue
		}
		if !p.enter(looking) {
			p.missed(n)
			continue
		}
		wg.Go(func() {
			defer p.leave()
			if memory := p.look(looking, n, m.src, old, whole); memory != nil {
				mu.Lock()
				defer mu.Unlock()
				next.Sources[name], changed = memory, true
			}
		})
	}
	wg.Wait()
	if changed {
		if _, err := statestore.Write(ctx, p.fleet.State, ShardKey(n), next, tag); errors.Is(err, statestore.ErrConflict) {
			p.mu.Lock()
			p.pass.Conflicts++
			p.mu.Unlock()
		} else if err != nil {
			p.fail(ShardKey(n), err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass.Shards[n] = next
	return nil
}

// enter takes a slot; it reports false if the time is up.
func (p *passing) enter(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case p.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *passing) leave() { <-p.slots }

func (p *passing) missed(shard int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass.Late++
	p.late[shard] = true
}

// look looks at one source; nil if nothing was learnt.
func (p *passing) look(ctx context.Context, shard int, src snapshot.Source, old *Memory, whole bool) *Memory {
	m, err := p.fleet.Watch.Look(ctx, src, old, whole, p.fleet.Now())
	switch {
	case ctx.Err() != nil:
		p.missed(shard)
		return nil
	case err != nil:
		p.fail(src.String(), err)
		return nil
	}
	p.locks(ctx, src, m)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass.Looks++
	if whole {
		p.pass.Audits++
	}
	return m
}

// locks reads, once a day, until when lifecycle says that the snapshots are locked, and with each look while that is too
// short: an alert must end when its cause does. What lifecycle finds wrong it also writes down as a finding, which is read
// in every pass.
func (p *passing) locks(ctx context.Context, src snapshot.Source, m *Memory) {
	if p.fleet.Now().Sub(m.LockRead) < AuditEvery && !m.Lock.Short() {
		return
	}
	doc, _, err := statestore.Read[control.LifecycleSource](ctx, p.fleet.State, control.LifecycleSourceKey(src))
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		m.Lock = nil
	case err != nil:
		if ctx.Err() == nil {
			p.fail(control.LifecycleSourceKey(src), err)
		}
		return
	default:
		m.Lock = doc.Protected
	}
	m.LockRead = p.fleet.Now().UTC()
}

// hosts reads what coordinate knows of the hosts of a shard, each at its time. It reports whether anything was read.
func (p *passing) hosts(ctx context.Context, shard int, old, next *Shard, members []member) bool {
	now, every := p.fleet.Now(), cmp.Or(p.fleet.Jobs, DefaultJobs)
	var mu sync.Mutex // guards next and changed
	changed := false
	var wg sync.WaitGroup
	for _, m := range members {
		host := m.src.Host
		mu.Lock()
		_, done := next.Hosts[host]
		was := old.Hosts[host]
		if !done {
			next.Hosts[host] = was
			if was == nil {
				next.Hosts[host], changed = Jobs(host, nil, nil, now), true
			}
		}
		mu.Unlock()
		if done || was != nil && now.Sub(was.Read) < every {
			continue
		}
		if !p.enter(ctx) {
			p.missed(shard)
			continue
		}
		wg.Go(func() {
			defer p.leave()
			if h := p.jobs(ctx, shard, host, was); h != nil {
				mu.Lock()
				defer mu.Unlock()
				next.Hosts[host], changed = h, true
			}
		})
	}
	wg.Wait()
	return changed
}

// jobs reads the document of one host; nil if there is no answer.
func (p *passing) jobs(ctx context.Context, shard int, host string, was *HostMemory) *HostMemory {
	j, _, err := statestore.Read[control.HostJobs](ctx, p.fleet.State, control.JobsKey(host))
	switch {
	case errors.Is(err, statestore.ErrNotExist):
		j = nil
	case ctx.Err() != nil:
		p.missed(shard)
		return nil
	case err != nil:
		p.fail(control.JobsKey(host), err)
		return nil
	}
	return Jobs(host, was, j, p.fleet.Now())
}

// Heard reports whether all that was found about a source could be read: what is not among it is over.
func (p *Pass) Heard(source string) bool { return !p.Unheard[""] && !p.Unheard[source] }

func (p *passing) unheard(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass.Unheard[source] = true
}

// findingsOf is the source that a document of findings is about, by its key.
func findingsOf(key string) string {
	for _, prefix := range []string{control.VerifyFindingsPrefix, control.LifecycleFindingsPrefix} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			return strings.TrimSuffix(rest, ".json")
		}
	}
	return ""
}

// findings reads what verify and lifecycle have found. There is a document only for a source that had something once.
func (p *passing) findings(ctx context.Context) error {
	var keys []string
	for _, prefix := range []string{control.VerifyFindingsPrefix, control.LifecycleFindingsPrefix} {
		err := p.fleet.State.List(ctx, prefix, func(key string) error {
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(shardsAtOnce)
	for _, key := range keys {
		g.Go(func() error {
			doc, _, err := statestore.Read[control.Findings](gctx, p.fleet.State, key)
			if errors.Is(err, statestore.ErrNotExist) {
				return nil
			}
			if err != nil {
				p.fail(key, err)
				p.unheard(findingsOf(key))
				return nil
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, f := range doc.Findings {
				p.pass.Findings[doc.Source] = append(p.pass.Findings[doc.Source], compliance.Finding{
					By: f.By, Problem: f.Problem, Detail: f.Detail, Key: f.Key, Warning: f.Warning, First: f.First,
				})
			}
			return nil
		})
	}
	return g.Wait()
}
