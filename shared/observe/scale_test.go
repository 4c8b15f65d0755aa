package observe_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

// generated is a repository with many hosts of two sources each.
type generated struct {
	*repotest.Fixture
	policy   *policy.Policy
	state    *memstate.Store
	template snapshot.Manifest
}

func generate(t testing.TB, sources, packs int) *generated {
	t.Helper()
	g := &generated{Fixture: repotest.New(t), state: memstate.New(), policy: &policy.Policy{Version: 1, Hosts: map[string]*policy.Host{}}}
	g.template = *g.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(1, 100)}).Manifest
	for i := range sources / 2 {
		host := fmt.Sprintf("host-%05d", i)
		h := &policy.Host{Sources: map[string]*policy.Source{}}
		jobs := &control.HostJobs{Version: 1, Host: host, Seen: g.Now, Sources: map[string]*control.SourceJobs{}}
		for _, name := range []string{"db", "etc"} {
			o := policy.Objectives{Tier: policy.Standard, RPO: policy.DefaultRPO, Copies: 1, KeyCheck: policy.DefaultKeyCheck, Verify: policy.DefaultVerify}
			if name == "db" {
				o.Tier, o.RPO = policy.High, policy.Duration(time.Hour)
			}
			h.Sources[name] = &policy.Source{Files: &policy.Files{Roots: []string{"/" + name}}, Objectives: o}
			jobs.Sources[name] = &control.SourceJobs{State: control.StateOK, Last: &control.Ended{Job: "j", Result: events.OK, Finished: g.Now}}
			src := snapshot.Source{Host: host, Name: name}
			for n := uint64(1); n <= 3; n++ {
				g.add(t, src, n)
			}
			for n := range packs {
				key := layout.PackKey(src, snapshot.ChainID{byte(n)}, snapshot.Hash{byte(i), byte(i >> 8), byte(n), byte(n >> 8)})
				if err := g.Store.Put(t.Context(), key, objstore.Bytes([]byte("x"))); err != nil {
					t.Fatal(err)
				}
			}
		}
		g.policy.Hosts[host] = h
		if _, err := statestore.Write(t.Context(), g.state, control.JobsKey(host), jobs, ""); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// add puts a snapshot's manifest and the receipt of the control plane about it.
func (g *generated) add(t testing.TB, src snapshot.Source, n uint64) {
	t.Helper()
	id := snapshot.ID{Source: src, Sequence: n}
	m := g.template
	m.Host, m.Source, m.Sequence, m.ChainStart, m.Started, m.Finished = src.Host, src.Name, n, n, g.Now, g.Now
	if n > 1 {
		m.Previous = snapshot.Hash{byte(n)}.String()
	}
	if err := g.Repo.PutDocument(t.Context(), layout.ManifestKey(id), m); err != nil {
		t.Fatal(err)
	}
	stored, err := g.Repo.Manifest(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r := record.Receipt{Sequence: n, Manifest: stored.Hash.String(), Level: "bytes", Result: record.Pass, Started: g.Now, Finished: g.Now}
	if err := g.Repo.PutDocument(t.Context(), layout.ReceiptKey(id, layout.ReceiptCloud, g.Now, r.Level), r); err != nil {
		t.Fatal(err)
	}
}

// pass makes one pass and returns it with the requests that it made.
func (g *generated) pass(t testing.TB) (*observe.Pass, *observe.Fleet, int64, int) {
	t.Helper()
	f := &observe.Fleet{Watch: &observe.Watch{Repo: g.Repo}, State: g.state, Policy: g.policy, Now: func() time.Time { return g.Now }}
	before := g.state.Count(memstate.Get) + g.state.Count(memstate.Put)
	p, err := f.Pass(t.Context(), 0, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Failures) > 0 || p.Late > 0 || p.Conflicts > 0 {
		t.Fatalf("failures %v, late %d, conflicts %d", p.Failures, p.Late, p.Conflicts)
	}
	return p, f, f.Watch.Requests(), g.state.Count(memstate.Get) + g.state.Count(memstate.Put) - before
}

// TestRequests asserts what passes over many sources cost, in requests: a source in which nothing happened is one
// listing per look, a new snapshot one read of its manifest and one of its receipt.
func TestRequests(t *testing.T) {
	const sources, hosts = 200, 100
	g := generate(t, sources, 0)
	p, f, requests, _ := g.pass(t)
	if want := int64(sources * (1 + 3 + 3 + 1)); requests != want || p.Looks != sources {
		t.Errorf("the first pass: %d requests for %d looks, want %d", requests, p.Looks, want)
	}
	judged, _ := f.Judge(p, observe.Rules{SilentAfter: time.Hour, ReceiptWithin: time.Hour})
	for _, j := range judged {
		for _, s := range j.States {
			if s.Breach {
				t.Errorf("%+v", s)
			}
		}
	}
	if _, _, requests, state := g.pass(t); requests != 0 || state > observe.Shards {
		t.Errorf("a pass right after: %d requests, %d of the state store", requests, state)
	}
	// After a third of the hour the sources with that RPO are due, the others are not.
	g.Now = g.Now.Add(20 * time.Minute)
	p, _, requests, state := g.pass(t)
	if requests != sources/2 || p.Looks != sources/2 || p.Audits != 0 {
		t.Errorf("%d requests for %d looks, %d audits", requests, p.Looks, p.Audits)
	}
	if state > 2*observe.Shards+hosts {
		t.Errorf("%d requests of the state store", state)
	}
	// A new snapshot each.
	g.Now = g.Now.Add(20 * time.Minute)
	for host := range g.policy.Hosts {
		g.add(t, snapshot.Source{Host: host, Name: "db"}, 4)
	}
	if _, _, requests, _ = g.pass(t); requests != sources/2*(1+1+1) {
		t.Errorf("%d requests for a new snapshot of each of %d sources", requests, sources/2)
	}
	// After a day everything is listed, once, and the store is asked whether it locks.
	g.Now = g.Now.Add(24 * time.Hour)
	if p, _, requests, _ = g.pass(t); requests != 2*sources || p.Looks != sources {
		t.Errorf("the audit: %d requests for %d looks", requests, p.Looks)
	}
}

// TestFindingsAndLocks: what verify and lifecycle wrote down is told, and a store that locks what arrives protects.
func TestFindingsAndLocks(t *testing.T) {
	g := generate(t, 2, 0)
	g.Store.KeepLocks(14 * 24 * time.Hour)
	src := snapshot.Source{Host: "host-00000", Name: "db"}
	err := statestore.Update(t.Context(), g.state, control.LifecycleFindingsKey(src), func(f *control.Findings) error {
		f.Note(src, g.Now, []control.Finding{
			{By: "versions", Key: "v1/x", Problem: "delete marker"},
			{By: "versions", Key: "v1/y", Problem: "delete marker"},
			{By: "rotation", Key: "v1/z", Problem: "unnamed", Warning: true},
			{By: "retention", Key: "v1", Problem: "shortened", Detail: "3 snapshots go", Warning: true},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = statestore.Update(t.Context(), g.state, control.LifecycleSourceKey(src), func(d *control.LifecycleSource) error {
		d.Protected = &compliance.Lock{Sequence: 2, Until: g.Now.Add(24 * time.Hour), Wanted: g.Now.Add(31 * 24 * time.Hour), Checked: g.Now}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p, f, _, _ := g.pass(t)
	judged, _ := f.Judge(p, observe.Rules{})
	got := map[string]bool{}
	for _, s := range judged[0].States {
		if s.Code != "ok" {
			got[string(s.Code)+": "+s.Cause] = s.Breach
		}
	}
	want := map[string]bool{
		"tampered: 2 findings by versions: delete marker: v1/x": true, "noted: 1 finding by rotation: unnamed: v1/z": false,
		"retention_waits: 1 finding by retention: shortened: 3 snapshots go":                                       false,
		"lock_short: @2 is locked until 2026-03-02T12:00:00Z only, the policy keeps it until 2026-04-01T12:00:00Z": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// What was too short is read again with the next look, not a day later: an alert ends when its cause does.
	err = statestore.Update(t.Context(), g.state, control.LifecycleSourceKey(src), func(d *control.LifecycleSource) error {
		d.Protected.Until = d.Protected.Wanted
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Now = g.Now.Add(2 * time.Hour)
	p, f, _, _ = g.pass(t)
	judged, _ = f.Judge(p, observe.Rules{})
	for _, s := range judged[0].States {
		if s.Code == compliance.LockShort {
			t.Errorf("%+v", s)
		}
	}
	g.Now = g.Now.Add(15 * 24 * time.Hour)
	p, f, _, _ = g.pass(t)
	judged, _ = f.Judge(p, observe.Rules{})
	protected := true
	for _, s := range judged[1].States {
		protected = protected && s.Code != "not_protected"
	}
	if protected {
		t.Error("a lock that has run out protects")
	}
}

// TestPassEndsInTime: what is not reached is left for the next pass, which begins with it.
func TestPassEndsInTime(t *testing.T) {
	g := generate(t, 40, 0)
	f := &observe.Fleet{Watch: &observe.Watch{Repo: g.Repo}, State: g.state, Policy: g.policy, Parallel: 1, Now: func() time.Time { return g.Now }}
	p, err := f.Pass(t.Context(), 7, time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if p.Looks != 0 || p.Late < 40 {
		t.Errorf("%d looks, %d late", p.Looks, p.Late)
	}
	judged, hosts := f.Judge(p, observe.Rules{SilentAfter: time.Hour})
	for _, j := range judged {
		if j.Known || len(j.States) != 0 {
			t.Errorf("%s is judged before anybody looked: %+v", j.Source, j.States)
		}
	}
	if len(judged) != 40 || len(hosts) != 20 {
		t.Errorf("%d sources, %d hosts", len(judged), len(hosts))
	}
	first := p.Next
	if p, err = f.Pass(t.Context(), first, time.Now().Add(time.Hour)); err != nil || p.Looks != 40 || p.Late != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	// That nobody looks is told when it lasts.
	g.Now = g.Now.Add(3 * time.Hour)
	p, err = f.Pass(t.Context(), first, time.Now().Add(-time.Second))
	if err != nil {
		t.Fatal(err)
	}
	judged, _ = f.Judge(p, observe.Rules{})
	found := false
	for _, s := range judged[0].States {
		found = found || s.Code == "not_looked" && s.Breach
	}
	if !found {
		t.Errorf("%+v", judged[0].States)
	}
}

// BenchmarkPass is what a pass over 10,000 sources costs besides the waiting for the store, in CPU and requests: `go test -bench Pass
// -benchtime 1x`. The requests are those that TestRequests asserts.
func BenchmarkPass(b *testing.B) {
	const sources = 10_000
	for b.Loop() {
		b.StopTimer()
		g := generate(b, sources, 0)
		b.StartTimer()
		for _, step := range []struct {
			name string
			next time.Duration
		}{{"first", 0}, {"idle", 0}, {"normal", 20 * time.Minute}, {"audit", 24 * time.Hour}} {
			g.Now = g.Now.Add(step.next)
			begun := cpu(b)
			p, f, requests, state := g.pass(b)
			judged, hosts := f.Judge(p, observe.Rules{SilentAfter: time.Hour, ReceiptWithin: time.Hour})
			b.ReportMetric((cpu(b) - begun).Seconds(), step.name+"-cpu-s")
			b.ReportMetric(float64(requests), step.name+"-requests")
			b.ReportMetric(float64(state), step.name+"-state")
			if len(judged) != sources || len(hosts) != sources/2 {
				b.Fatalf("%d sources, %d hosts", len(judged), len(hosts))
			}
		}
		bytes := 0
		for n := range observe.Shards {
			body, _, err := g.state.Get(b.Context(), observe.ShardKey(n))
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(body)
		}
		b.ReportMetric(float64(bytes)/sources, "state-B/source")
	}
}

// cpu is the time that the processor has spent on this process: what a wall clock says here depends on the neighbours.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
