package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
)

// Policies is the policy file of the host, as it last was in order.
type Policies struct {
	// Databases lists the databases that a pattern names; see [policy.Policy.Expand]. It is set before the first use; nil:
	// patterns stand for none.
	Databases func(glob string) ([]string, error)

	path, host string

	mu      sync.Mutex
	current *policy.Policy // never changed in place; guarded by mu, as below
	sum     [sha256.Size]byte
	problem error // of what stands in the file now
	seen    [sha256.Size]byte

	expanded *policy.Policy // current, with the databases that there were when it was looked
	looked   time.Time
	unnamed  error // of databases that have no source
}

// LoadPolicies reads the policy file. It must be in order and have the host.
func LoadPolicies(path, host string) (*Policies, error) {
	p := &Policies{path: path, host: host}
	if _, err := p.Reload(true); err != nil {
		return nil, err
	}
	return p, nil
}

// Current is the policy in force, with a source for each database that a pattern of this host names: new ones are seen
// within some seconds. It must not be changed.
func (p *Policies) Current() *policy.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.current.Hosts[p.host]; p.Databases == nil || h == nil || len(h.Globs) == 0 {
		return p.current
	}
	if now := time.Now(); p.expanded == nil || now.Sub(p.looked).Abs() >= DefaultWatch {
		p.expanded, p.unnamed = p.current.Expand(p.host, p.Databases)
		p.looked = now
	}
	return p.expanded
}

// Problem is what is wrong with the file now, or with databases that have no source; nil: the file is the policy in force.
func (p *Policies) Problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.problem, p.unnamed)
}

// Reload reads the file, if it has changed. A policy that is not in order is an error, once, and the one in force stays.
// Unless now is set, a file that was changed since the last look waits for the next: an editor may be at it.
func (p *Policies) Reload(now bool) (changed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	data, err := readFile(p.path)
	sum := sha256.Sum256(data)
	if err != nil {
		sum = sha256.Sum256([]byte(err.Error()))
	}
	waits := !now && sum != p.seen
	p.seen = sum
	switch {
	case waits:
		return false, nil
	case p.current != nil && sum == p.sum && now:
		return false, p.problem // whoever asks hears it again
	case p.current != nil && sum == p.sum:
		return false, nil
	}
	p.sum = sum
	next := (*policy.Policy)(nil)
	if err == nil {
		next, err = policy.Parse(data)
	}
	if err == nil && next.Hosts[p.host] == nil {
		err = fmt.Errorf("the policy has no host %s", p.host)
	}
	if err != nil {
		p.problem = fmt.Errorf("policy %s: %w", p.path, err)
		return false, p.problem
	}
	p.current, p.problem, p.expanded, p.unnamed = next, nil, nil, nil
	return true, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, policy.MaxFile+1))
	if err == nil && len(data) > policy.MaxFile {
		err = errors.New("the file is too large")
	}
	return data, err
}

// watch reads the policy again when its file changes or somebody asks.
func (a *Agent) watch(ctx context.Context) {
	for ctx.Err() == nil {
		asked := false
		t := time.NewTimer(a.Watch)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-a.Reload:
			asked = true
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
		changed, err := a.Policies.Reload(asked)
		switch {
		case err != nil:
			a.Log.Error("the new policy is not in order; the old one stays in force", "error", err)
		case changed:
			a.Log.Info("the policy has changed")
		}
		if changed || err != nil {
			a.heartbeat()
			nudge(a.wake)
		}
	}
}
