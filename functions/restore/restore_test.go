package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
)

// outQueue keeps what was sent.
type outQueue struct {
	jobs []*events.Job
	fail error
}

func (q *outQueue) Send(_ context.Context, host string, job *events.Job) error {
	if q.fail != nil {
		return q.fail
	}
	body, err := events.EncodeJob(job)
	if err != nil {
		return err
	}
	sent, err := events.DecodeJob(body)
	if err != nil || sent.Host != host {
		return fmt.Errorf("host %s: %w", host, err)
	}
	q.jobs = append(q.jobs, sent)
	return nil
}

type lab struct {
	*repotest.Fixture
	*function
	queue *outQueue
	state *memstate.Store
	keys  map[string]ed25519.PrivateKey
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{Fixture: repotest.New(t), queue: &outQueue{}, state: memstate.New(), keys: map[string]ed25519.PrivateKey{}}
	p := &policy.Policy{Version: 1, Hosts: map[string]*policy.Host{"governance-1": {
		Sources: map[string]*policy.Source{"app": {Files: &policy.Files{Roots: []string{"/srv"}}, Objectives: policy.Objectives{RPO: policy.Duration(time.Hour)}}},
		Restore: policy.Restore{Targets: []string{"/srv/restore"}},
	}}}
	for i, name := range []string{"ada", "bob", "eve"} {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i)
		l.keys[name] = ed25519.NewKeyFromSeed(seed)
		if name != "eve" { // eve is no approver
			p.Approvers = append(p.Approvers, policy.Approver{Name: name, Key: publicLine(l.keys[name])})
		}
	}
	role := granted.Of(t, "restore", false)
	l.function = &function{cloud: &invoketest.Account{File: p, Repo: l.Open(t, role.Store(l.Store))}, state: role.State(l.state), queues: l.queue, now: func() time.Time { return l.Now }}
	for i := range 3 {
		l.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(uint64(i), 5000)})
		l.Now = l.Now.Add(30 * time.Minute)
	}
	return l
}

func publicLine(key ed25519.PrivateKey) string {
	var wire []byte
	for _, part := range [][]byte{[]byte("ssh-ed25519"), key.Public().(ed25519.PublicKey)} {
		wire = binary.BigEndian.AppendUint32(wire, uint32(len(part)))
		wire = append(wire, part...)
	}
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(wire)
}

func (l *lab) call(t *testing.T, payload any) (any, error) {
	t.Helper()
	b, ok := payload.(string)
	if !ok {
		body, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		b = string(body)
	}
	return l.handle(t.Context(), json.RawMessage(b))
}

func (l *lab) must(t *testing.T, payload any) any {
	t.Helper()
	got, err := l.call(t, payload)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (l *lab) signed(t *testing.T, order events.RestoreOrder, names ...string) map[string]any {
	t.Helper()
	out := events.RestoreOrder{Request: order.Request}
	for _, n := range names {
		s, err := approval.Sign(order.Request, n, l.keys[n])
		if err != nil {
			t.Fatal(err)
		}
		out.Signatures = append(out.Signatures, s)
	}
	return map[string]any{"action": "approve", "order": out}
}

// agent sends an event of the agent.
func (l *lab) agent(t *testing.T, kind string, detail any) {
	t.Helper()
	body, err := json.Marshal(detail)
	if err != nil {
		t.Fatal(err)
	}
	var named struct{ Host string }
	if err := json.Unmarshal(body, &named); err != nil {
		t.Fatal(err)
	}
	l.must(t, events.Envelope{ID: "1", DetailType: kind, Source: events.AgentSource(named.Host), Time: l.Now, Detail: body})
}

func (l *lab) status(t *testing.T, id string, want control.RestoreStatus) *control.Restore {
	t.Helper()
	doc := l.must(t, map[string]any{"action": "status", "id": id}).(*control.Restore)
	if doc.Status != want {
		t.Errorf("status %s, want %s: %+v", doc.Status, want, doc.History)
	}
	return doc
}

const wantedApp = `"source":"governance-1/app","target":"/srv/restore/app","reason":"ticket 7"`

func TestPlan(t *testing.T) {
	l := newLab(t)
	p := l.must(t, `{"action":"plan",`+wantedApp+`}`).(*recovery.Plan)
	if p.Selection.Point.Sequence != 3 || p.LostMin != 30 || p.Download <= 0 || !p.Guessed {
		t.Errorf("%+v", p)
	}
	if p = l.must(t, `{"action":"plan","source":"governance-1/app","at":"2026-03-01T12:40:00Z"}`).(*recovery.Plan); p.Selection.Point.Sequence != 2 || p.LostMin != 10 {
		t.Errorf("%+v", p)
	}
	if l.state.Count(memstate.Put) != 0 {
		t.Error("a plan wrote something")
	}
	for _, bad := range []string{
		`{"action":"plan","source":"app"}`, `{"action":"plan","source":"governance-1/app","snapshot":9}`, `{"action":"plan","source":"governance-1/none"}`,
		`{"action":"plan","sauce":"governance-1/app"}`, `{"action":"restore-everything"}`, `{`, ``,
	} {
		if got, err := l.call(t, bad); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

func TestLifeOfARestore(t *testing.T) {
	l := newLab(t)
	got := l.must(t, `{"action":"request",`+wantedApp+`}`).(requested)
	id := got.ID
	if frozen, err := control.SourceFrozen(t.Context(), l.state, l.Source, l.Now.Add(48*time.Hour)); err != nil || !strings.Contains(frozen, id) {
		t.Errorf("not frozen: %q, %v", frozen, err)
	}
	l.must(t, l.signed(t, got.Order, "ada"))
	l.status(t, id, control.RestoreRequested)
	l.must(t, l.signed(t, got.Order, "ada", "ada"))
	l.status(t, id, control.RestoreRequested)
	if _, err := l.call(t, l.signed(t, got.Order, "eve")); err == nil {
		t.Error("anybody approves")
	}
	if len(l.queue.jobs) != 0 {
		t.Fatal("sent before it was approved")
	}
	// The queue does not answer: it stays approved, and the same approval sends it.
	l.queue.fail = errors.New("no answer")
	if _, err := l.call(t, l.signed(t, got.Order, "bob")); err == nil {
		t.Error("no error")
	}
	l.status(t, id, control.RestoreApproved)
	l.queue.fail = nil
	l.must(t, l.signed(t, got.Order, "bob"))
	l.status(t, id, control.RestoreSent)
	if len(l.queue.jobs) != 1 {
		t.Fatalf("%d jobs", len(l.queue.jobs))
	}
	job := l.queue.jobs[0]
	p, _, _ := l.cloud.Policy(t.Context())
	if r, err := approval.Check(p, "governance-1", job.ID, job.Restore, l.Now); err != nil || r.Snapshot != 3 || job.ID != id {
		t.Errorf("the agent would refuse it: %+v, %v", r, err)
	}
	l.must(t, map[string]any{"action": "send", "id": id})
	if len(l.queue.jobs) != 2 {
		t.Errorf("%d jobs", len(l.queue.jobs))
	}
	// Reports come twice, late and for other jobs.
	l.agent(t, events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: id, Host: "governance-1", Kind: events.Restore, Time: l.Now})
	l.agent(t, events.TypeJobRefused, events.JobRefused{Version: 1, Job: id, Host: "governance-1", Kind: events.Restore, Code: events.Duplicate})
	l.agent(t, events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: approval.NewID(), Host: "governance-1", Kind: events.Restore, Time: l.Now})
	l.agent(t, events.TypeHeartbeat, events.Heartbeat{Version: 1, Host: "governance-1"})
	l.status(t, id, control.RestoreAccepted)
	if _, err := l.call(t, map[string]any{"action": "cancel", "id": id, "by": "ada"}); err == nil {
		t.Error("cancelled what runs")
	}
	l.agent(t, events.TypeJobFinished, events.JobFinished{Version: 1, Job: id, Host: "other", Kind: events.Restore, Result: events.OK})
	l.status(t, id, control.RestoreAccepted)
	l.agent(t, events.TypeJobFinished, events.JobFinished{
		Version: 1, Job: id, Host: "governance-1", Kind: events.Restore, Result: events.OK, Snapshot: 3, Started: l.Now, Finished: l.Now.Add(90 * time.Second),
	})
	l.agent(t, events.TypeJobAccepted, events.JobAccepted{Version: 1, Job: id, Host: "governance-1", Kind: events.Restore, Time: l.Now})
	doc := l.status(t, id, control.RestoreDone)
	if last := doc.History[len(doc.History)-1]; last.What != "done in 1m30s" {
		t.Errorf("%+v", doc.History)
	}
	if lines := l.must(t, `{"action":"list"}`).([]line); len(lines) != 1 || lines[0].Status != control.RestoreDone || len(lines[0].Signers) != 2 {
		t.Errorf("%+v", lines)
	}
	if _, err := l.call(t, l.signed(t, got.Order, "ada")); !errors.Is(err, control.ErrRestoreEnded) {
		t.Errorf("%v", err)
	}
}

func TestEndsOfARestore(t *testing.T) {
	l := newLab(t)
	begin := func() requested { return l.must(t, `{"action":"request","expires":"2h",`+wantedApp+`}`).(requested) }
	a := begin()
	if _, err := l.call(t, map[string]any{"action": "cancel", "id": a.ID}); err == nil {
		t.Error("cancelled by nobody")
	}
	l.must(t, map[string]any{"action": "cancel", "id": a.ID, "by": "ada"})
	if _, err := l.call(t, l.signed(t, a.Order, "ada", "bob")); !errors.Is(err, control.ErrRestoreEnded) {
		t.Errorf("%v", err)
	}
	// Another request under the same id, and one that is known already.
	b := begin()
	other := l.signed(t, b.Order, "ada", "bob")
	changed := strings.Replace(string(b.Order.Request), "/srv/restore/app", "/srv/restore/etc", 1)
	if _, err := l.call(t, l.signed(t, events.RestoreOrder{Request: []byte(changed)}, "ada", "bob")); err == nil || !strings.Contains(err.Error(), "another request") {
		t.Errorf("%v", err)
	}
	other["action"] = "request" // as "holdfast approve" wrote it, with all signatures
	if doc := l.must(t, other).(*control.Restore); doc.Status != control.RestoreSent {
		t.Errorf("%+v", doc)
	}
	l.agent(t, events.TypeJobRefused, events.JobRefused{Version: 1, Job: b.ID, Host: "governance-1", Kind: events.Restore, Code: events.NotAllowed, Reason: "the target"})
	l.status(t, b.ID, control.RestoreRefused)
	c := begin()
	l.Now = l.Now.Add(3 * time.Hour)
	l.status(t, c.ID, control.RestoreExpired)
	if _, err := l.call(t, map[string]any{"action": "send", "id": c.ID}); err == nil {
		t.Error("sent an expired request")
	}
	for _, bad := range []any{
		map[string]any{"action": "status", "id": "../config/policy.yaml"},
		map[string]any{"action": "status", "id": approval.NewID()},
		`{"action":"approve"}`, `{"action":"request","source":"governance-1/app"}`, `{"action":"request","expires":"30d",` + wantedApp + `}`, `{"action":"send"}`,
	} {
		if got, err := l.call(t, bad); err == nil {
			t.Errorf("%v: %v", bad, got)
		}
	}
	if n := len(l.queue.jobs); n != 1 {
		t.Errorf("%d jobs were sent", n)
	}
	if _, _, err := statestore.Read[control.Restore](t.Context(), l.state, control.RestoreKey(c.ID)); err != nil {
		t.Error(err)
	}
}
