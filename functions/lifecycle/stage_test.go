package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
)

const day = 24 * time.Hour

const tick = `{"version":1,"time":"2026-03-01T12:00:00Z"}`

// stage is the two regions: a function with a repository and a state store in memory, and where a test makes one, a
// second function that tends the replica.
type stage struct {
	*repotest.Fixture
	t        *testing.T
	f        *function
	id       *keyring.Identity
	verifier *keyring.Identity
	state    *memstate.Store
	policy   *policy.Policy
	stale    string // why the policy may be an older one

	replica *mem.Store      // nil: none
	second  *function       // of the region of the replica
	there   *memstate.Store // its state

	role, secondRole *granted.Role // what the functions may do
}

// region is what a function of one region opens.
type region struct {
	*stage
	second bool
}

func (r region) Open(ctx context.Context) (*opened, error) {
	store := r.role.Store(r.Store)
	if r.second {
		store = r.secondRole.Store(r.replica)
	}
	repo, err := repository.Open(ctx, store, r.id)
	return &opened{repo: repo, policy: r.policy, stale: r.stale}, err
}

func (r region) Primary(ctx context.Context, _ *repository.Repository) (*repository.Repository, error) {
	if !r.second {
		return nil, nil
	}
	return repository.Open(ctx, r.secondRole.First(r.Store), r.id)
}

func newStage(t *testing.T, rules string) *stage {
	t.Helper()
	s := &stage{Fixture: repotest.New(t), t: t, state: memstate.New(), role: granted.Of(t, "lifecycle", false), secondRole: granted.Of(t, "lifecycle", true)}
	s.Store.KeepVersions()
	s.Store.KeepLocks(lock.Default)
	s.rules(rules)
	s.id = s.Grant(t, "*", "condemned", "expired", "receipts/cloud")
	s.verifier = s.Grant(t, "*", "receipts/cloud", "damaged")
	f, err := newFunction(environment.Lifecycle{Lock: "COMPLIANCE"}, region{stage: s}, s.role.State(s.state), s.role.State(s.state), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.f = f
	f.now = func() time.Time { return s.Now }
	return s
}

// copied makes the replica, as it is now, and the function that tends it.
func (s *stage) copied() {
	s.t.Helper()
	s.replica, s.there = s.Store.Clone(), memstate.New()
	f, err := newFunction(environment.Lifecycle{Lock: "COMPLIANCE", Primary: "s3://b?region=r"}, region{stage: s, second: true}, s.secondRole.State(s.there), s.secondRole.FirstState(s.state), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.second = f
	f.now = func() time.Time { return s.Now }
}

// replicate does what replication of the bucket does.
func (s *stage) replicate() {
	for _, key := range s.Store.Keys() {
		data, _ := s.Store.Object(key)
		if _, there := s.replica.Object(key); !there {
			_ = s.replica.Put(s.t.Context(), key, objstore.Bytes(data))
		}
	}
}

func (s *stage) rules(rules string) {
	s.t.Helper()
	p, err := policy.Parse(fmt.Appendf(nil, `
version: 1
repository: {primary: "s3://b?region=r", recipients: [age1cn2fnl6ant2qrxt436mwf9mn65d43yyg4y0a47qem3ah93f6ng2qfg79ht]}
hosts:
  governance-1:
    sources:
      app: {files: {roots: [/srv]}, schedule: {incremental: "0 3 * * *"}, retention: %s}
`, rules))
	if err != nil {
		s.t.Fatal(err)
	}
	s.policy = p
}

// backup makes a snapshot, which is verified, and lets a day go by.
func (s *stage) backup(kind snapshot.SnapshotType) {
	s.t.Helper()
	m := s.Backup(s.t, kind, repotest.Tree{"/srv/a": repotest.Noise(uint64(len(s.Trees)), 20_000), "/srv/b": repotest.Noise(99, 30_000)})
	s.verify(s.Store, m.Sequence)
	s.Now = s.Now.Add(day)
}

func (s *stage) verify(store objstore.Store, n uint64) {
	s.t.Helper()
	_, err := verify.Run(s.t.Context(), repotest.OpenAs(s.t, store, s.verifier), verify.Options{
		Level: verify.Bytes, Snapshots: []snapshot.ID{s.ID(n)}, Record: true, Place: layout.ReceiptCloud, Now: func() time.Time { return s.Now },
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) call(order string) passed {
	s.t.Helper()
	return s.callOn(s.f, order)
}

// callSecond calls the function in the region of the replica.
func (s *stage) callSecond(order string) passed {
	s.t.Helper()
	return s.callOn(s.second, order)
}

func (s *stage) callOn(f *function, order string) passed {
	s.t.Helper()
	answer, err := f.handle(s.t.Context(), json.RawMessage(order))
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.(passed)
}

func (s *stage) doc() *control.LifecycleSource { return s.docIn(s.state) }

func (s *stage) docIn(state *memstate.Store) *control.LifecycleSource {
	s.t.Helper()
	d, _, err := statestore.Read[control.LifecycleSource](s.t.Context(), state, control.LifecycleSourceKey(s.Source))
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stage) findings() []string { return s.findingsIn(s.state) }

func (s *stage) findingsIn(state *memstate.Store) []string {
	s.t.Helper()
	d, _, err := statestore.Read[control.Findings](s.t.Context(), state, control.LifecycleFindingsKey(s.Source))
	if err != nil && !errors.Is(err, statestore.ErrNotExist) {
		s.t.Fatal(err)
	}
	out := []string{}
	if d != nil {
		for _, f := range d.Findings {
			out = append(out, f.By+": "+f.Problem)
		}
	}
	return out
}

// journaled are all keys in the journal.
func (s *stage) journaled() map[string]bool {
	s.t.Helper()
	out := map[string]bool{}
	err := s.state.List(s.t.Context(), control.JournalPrefix(s.Source), func(key string) error {
		d, _, err := statestore.Read[control.Deletions](s.t.Context(), s.state, key)
		if err != nil {
			return err
		}
		for _, k := range d.Keys {
			out[k] = true
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}
