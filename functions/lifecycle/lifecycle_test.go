package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

const day = 24 * time.Hour

// stage is a function with a repository, a replica and a state store in memory.
type stage struct {
	*repotest.Fixture
	t        *testing.T
	f        *function
	id       *keyring.Identity
	verifier *keyring.Identity
	state    *memstate.Store
	policy   *policy.Policy
	replica  *mem.Store // nil: none
}

func (s *stage) Repository(ctx context.Context) (*repository.Repository, *policy.Policy, error) {
	repo, err := repository.Open(ctx, s.Store, s.id)
	return repo, s.policy, err
}

func (s *stage) Replica(ctx context.Context, _ *repository.Repository) (*repository.Repository, error) {
	if s.replica == nil {
		return nil, nil
	}
	return repository.Open(ctx, s.replica, s.id)
}

func newStage(t *testing.T, rules string) *stage {
	t.Helper()
	s := &stage{Fixture: repotest.New(t), t: t, state: memstate.New()}
	s.Store.KeepVersions()
	s.Store.KeepLocks(lock.Default)
	s.rules(rules)
	s.id = s.Grant(t, "*", "condemned", "expired", "receipts/cloud")
	s.verifier = s.Grant(t, "*", "receipts/cloud", "damaged")
	f, err := newFunction(environment.Lifecycle{Lock: "COMPLIANCE"}, s, s.state)
	if err != nil {
		t.Fatal(err)
	}
	s.f = f
	f.now = func() time.Time { return s.Now }
	return s
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
	answer, err := s.f.handle(s.t.Context(), json.RawMessage(order))
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.(passed)
}

func (s *stage) doc() *control.LifecycleSource {
	s.t.Helper()
	d, _, err := statestore.Read[control.LifecycleSource](s.t.Context(), s.state, control.LifecycleSourceKey(s.Source))
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *stage) findings() []string {
	s.t.Helper()
	d, _, err := statestore.Read[control.Findings](s.t.Context(), s.state, control.LifecycleFindingsKey(s.Source))
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

const tick = `{"version":1,"time":"2026-03-01T12:00:00Z"}`

// TestMonths backs up every other day with a full a fortnight, keeps seven, and has a pass after each.
func TestMonths(t *testing.T) {
	s := newStage(t, "{daily: 7}")
	ever := map[string]bool{}
	for n := range 32 {
		kind := snapshot.Incremental
		if n%7 == 0 {
			kind = snapshot.Full
		}
		s.backup(kind)
		s.Now = s.Now.Add(day)
		for _, key := range s.Store.Keys() {
			ever[key] = true
		}
		if out := s.call(tick); out.Failed > 0 || out.Done != 1 {
			t.Fatalf("snapshot %d: %+v", n, out)
		}
		d := s.doc()
		if d.Protected == nil || d.Protected.Until.Before(d.Protected.Wanted) || len(s.findings()) > 0 {
			t.Fatalf("snapshot %d: %+v, %v", n, d.Protected, s.findings())
		}
	}
	numbers := s.CheckAll(t, s.Store)
	// Seven are kept, seven wait, and the locks of others last for a step more.
	if len(numbers) < 10 || len(numbers) > 31 {
		t.Errorf("%d snapshots are left: %v", len(numbers), numbers)
	}
	journal := s.journaled()
	for _, key := range s.Store.Keys() {
		delete(ever, key)
	}
	for key := range ever {
		if !journal[key] {
			t.Errorf("%s was deleted and is not in the journal", key)
		}
	}
	if len(ever) == 0 || s.doc().Last == nil {
		t.Error("nothing ever went")
	}
	res, err := verify.Run(t.Context(), s.Open(t, s.Store), verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res)
	}
	// Of what is kept nothing can be deleted; whoever has all rights gets no further.
	for _, key := range append(repotest.Keys(s.Store, "/snapshots/"), layout.RepositoryKey, layout.AccessKey(1)) {
		if err := s.Store.Delete(t.Context(), key); !errors.Is(err, objstore.ErrLocked) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestStopsAndAsks has a policy that drops half of the snapshots.
func TestStopsAndAsks(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 10 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	s.rules("{daily: 3}")
	s.Now = s.Now.Add(day)
	if out := s.call(tick); out.Done != 1 || s.doc().Shortened == nil || !slices.Contains(s.findings(), "retention: retention was shortened") {
		t.Errorf("%+v, %v", out, s.findings())
	}
	s.Now = s.Now.Add(8 * day)
	before := s.Store.Keys()
	s.call(tick)
	w := s.doc().Waiting
	if w == nil || w.Drop != 7 || w.Total != 10 || len(w.Snapshots) != 7 || len(repotest.Keys(s.Store, "/condemned/")) > 0 {
		t.Fatalf("%+v", w)
	}
	if diff := cmp.Diff(before, s.Store.Keys()); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(s.findings(), "retention: too many snapshots would go") {
		t.Errorf("%v", s.findings())
	}
	// A dry run shows it, a wrong plan is none, the right one goes on.
	out := s.call(`{"dry_run":true,"sources":["governance-1/app"]}`)
	if len(out.Reports) != 1 || out.Reports[0].Waiting == nil || out.Reports[0].Waiting.Plan != w.Plan || len(out.Reports[0].Decisions) != 10 {
		t.Errorf("%+v", out)
	}
	s.call(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":"0123"}}`)
	if len(repotest.Keys(s.Store, "/condemned/")) > 0 {
		t.Error("a wrong plan was agreed to")
	}
	if _, err := s.f.handle(t.Context(), []byte(`{"confirm":{"governance-1/app":"`+w.Plan+`"}}`)); err == nil {
		t.Error("a plan of a source that is not named")
	}
	s.call(fmt.Sprintf(`{"sources":["governance-1/app"],"confirm":{"governance-1/app":%q}}`, w.Plan))
	if n := len(repotest.Keys(s.Store, "/condemned/")); n != 7 || s.doc().Waiting != nil {
		t.Errorf("%d announced, %+v", n, s.doc().Waiting)
	}
}

// TestFreeze has a restore that runs while removals are due.
func TestFreeze(t *testing.T) {
	s := newStage(t, "{keep_last: 2}")
	s.Store.KeepLocks(0)
	s.f.rules.Mode = ""
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.call(tick)
	s.Now = s.Now.Add(8 * day)
	freeze := func(until time.Duration) {
		t.Helper()
		if err := control.FreezeSource(t.Context(), s.state, s.Source, s.Now, s.Now.Add(until), "restore 1"); err != nil {
			t.Fatal(err)
		}
	}
	freeze(2 * day)
	s.call(tick)
	if s.doc().Frozen == "" || len(s.CheckAll(t, s.Store)) != 3 {
		t.Errorf("%+v", s.doc())
	}
	// A freeze that comes in the midst of a pass stops it at the next deletion.
	s.Now = s.Now.Add(3 * day)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && strings.Contains(c.Key, "/expired/") {
			freeze(day)
		}
		return mem.Fault{}
	})
	s.call(tick)
	s.Store.SetHook(nil)
	if len(s.CheckAll(t, s.Store)) != 3 || s.doc().Frozen == "" {
		t.Errorf("%+v", s.doc())
	}
	s.Now = s.Now.Add(2 * day)
	s.call(tick)
	if len(s.CheckAll(t, s.Store)) != 2 || s.doc().Frozen != "" {
		t.Errorf("%+v", s.doc())
	}
}

// TestHolds has a legal hold come and go.
func TestHolds(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	m, err := s.Repo.Manifest(t.Context(), s.ID(1))
	if err != nil {
		t.Fatal(err)
	}
	mark := func(id string, k record.Mark) {
		t.Helper()
		k.Sequence, k.Manifest, k.Time = 1, m.Hash.String(), s.Now
		if err := s.Repo.PutDocument(t.Context(), layout.MarkKey(s.ID(1), id), k); err != nil {
			t.Fatal(err)
		}
	}
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	mark(a, record.Mark{Mark: record.Hold, Value: "case 7"})
	s.call(tick)
	held := func() int {
		n := 0
		for _, key := range s.Store.Keys() {
			if l, err := s.Store.LockOf(t.Context(), key); err != nil {
				t.Fatal(err)
			} else if l.Hold {
				n++
			}
		}
		return n
	}
	if held() < 4 {
		t.Errorf("%d objects on hold", held())
	}
	for range 5 {
		s.Now = s.Now.Add(40 * day)
		s.call(tick)
	}
	if got := s.CheckAll(t, s.Store); !slices.Contains(got, 1) {
		t.Errorf("what is held is gone: %v", got)
	}
	mark(b, record.Mark{Mark: record.Hold, Ends: a})
	s.Now = s.Now.Add(day)
	s.call(tick)
	if held() != 0 {
		t.Errorf("%d objects still on hold", held())
	}
	for range 5 {
		s.Now = s.Now.Add(40 * day)
		s.call(tick)
	}
	if diff := cmp.Diff([]uint64{3}, s.CheckAll(t, s.Store)); diff != "" {
		t.Error(diff)
	}
}

// TestLocksInTrouble say so, and nothing is believed.
func TestLocksInTrouble(t *testing.T) {
	s := newStage(t, "{daily: 30}")
	for range 3 {
		s.backup(snapshot.Full)
	}
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Lock && strings.Contains(c.Key, "/packs/") {
			return mem.Fault{Err: objstore.ErrDenied}
		}
		return mem.Fault{}
	})
	if out := s.call(tick); out.Failed != 1 || !slices.Contains(s.findings(), "lock: locked for less time than it is kept") {
		t.Errorf("%+v, %v", out, s.findings())
	}
	if d := s.doc(); d.Protected == nil || !d.Protected.Until.Before(d.Protected.Wanted) || d.Error == "" {
		t.Errorf("%+v", d)
	}
	s.Store.SetHook(nil)
	if out := s.call(tick); out.Done != 1 || len(s.findings()) > 0 || s.doc().Error != "" {
		t.Errorf("%+v, %v", out, s.findings())
	}
}

// TestUnknownSource is in no policy: it loses nothing, and is protected.
func TestUnknownSource(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	s.Source.Name = "orphan"
	for range 5 {
		s.backup(snapshot.Full)
		s.Now = s.Now.Add(30 * day)
		s.call(tick)
	}
	if n := len(s.CheckAll(t, s.Store)); n != 5 || s.doc().Protected.Until.Before(s.Now) {
		t.Errorf("%d", n)
	}
}

func TestOrders(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for _, bad := range []string{`{"dryrun":true}`, `{"sources":["x"]}`, `[]`, `{} {}`, `{"shard":2,"shards":2}`, `{"shard":-1}`} {
		if _, err := s.f.handle(t.Context(), []byte(bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	if _, err := newFunction(environment.Lifecycle{Lock: "FOREVER"}, s, s.state); err == nil {
		t.Error("a mode that is none")
	}
	// Nobody's turn, and somebody else's lease.
	s.backup(snapshot.Full)
	s.call(tick)
	if out := s.call(tick); out.Sources != 0 {
		t.Errorf("%+v", out)
	}
	err := statestore.Update(t.Context(), s.state, control.LifecycleShardKey(0, 0), func(c *control.LifecycleCursor) error {
		c.Busy = control.Lease{Owner: "other", Until: s.Now.Add(time.Minute)}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.call(`{"sources":["governance-1/app"]}`); !out.Busy {
		t.Errorf("%+v", out)
	}
	writes := s.state.Count(memstate.Put)
	if out := s.call(`{"dry_run":true}`); out.Busy || out.Done != 1 || s.state.Count(memstate.Put) != writes {
		t.Errorf("a dry run writes: %+v", out)
	}
}

// TestCrashes ends a pass at each call of the store, as a killed process does, and has another one.
func TestCrashes(t *testing.T) {
	for at := 0; ; at += 7 {
		s := newStage(t, "{keep_last: 2}")
		s.Store.KeepLocks(0)
		s.f.rules.Default = time.Nanosecond
		for range 3 {
			s.backup(snapshot.Full)
		}
		s.call(tick)
		s.Now = s.Now.Add(60 * day)
		base := s.Store.Calls()
		var crashed atomic.Bool
		s.Store.SetHook(func(c mem.Call) mem.Fault {
			if c.Number <= base+at {
				return mem.Fault{}
			}
			crashed.Store(true)
			return mem.Fault{Err: errors.New("killed"), Persisted: at%2 == 0 && c.Number == base+at+1}
		})
		_, _ = s.f.handle(t.Context(), []byte(tick))
		s.Store.SetHook(nil)
		s.CheckAll(t, s.Store)
		for range 3 {
			s.Now = s.Now.Add(60 * day)
			if out := s.call(tick); out.Failed > 0 {
				t.Fatalf("crash at %d: %+v, %s", at, out, s.doc().Error)
			}
		}
		if diff := cmp.Diff([]uint64{2, 3}, s.CheckAll(t, s.Store)); diff != "" {
			t.Fatalf("crash at %d: %s", at, diff)
		}
		if !crashed.Load() {
			return
		}
	}
}

// FuzzOrder accepts only what it understands whole.
func FuzzOrder(f *testing.F) {
	for _, text := range []string{tick, `{"dry_run":true,"sources":["a/b"],"confirm":{"a/b":"x"}}`, `{"dry-run":true}`, `{"shard":1,"shards":2}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		o, sources, err := decodeOrder(payload)
		if err != nil {
			return
		}
		if len(sources) != len(o.Sources) || len(o.Confirm) > len(sources) || o.Shard < 0 || o.Shard > 0 && o.Shard >= o.Shards {
			t.Errorf("%q gives %+v", payload, o)
		}
	})
}
