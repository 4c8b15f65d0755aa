package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
	"github.com/btcdecoded/holdfast/test/granted"
)

// stage is a function with a repository and a state store in memory.
type stage struct {
	*repotest.Fixture
	t     *testing.T
	f     *function
	id    *keyring.Identity
	state *memstate.Store
	role  *granted.Role // what the function may do

	metrics bytes.Buffer
	asked   []events.Reread // ranges, in the function's own queue
}

// Send implements queue.
func (s *stage) Send(_ context.Context, list []events.Reread) error {
	s.asked = append(s.asked, list...)
	return nil
}

// Repository implements backend.
func (s *stage) Repository(ctx context.Context) (*repository.Repository, error) {
	return repository.Open(ctx, s.role.Store(s.Store), s.id)
}

func newStage(t *testing.T, snapshots int) *stage {
	s := &stage{Fixture: repotest.New(t), t: t, state: memstate.New(), role: granted.Of(t, "verify", false)}
	for n := range snapshots {
		s.backup(uint64(n))
	}
	s.id = s.Grant(t, "*", "receipts/cloud", "damaged")
	s.f = newFunction(environment.Verify{Workers: 1}, s, s.role.State(s.state), nil)
	s.f.out = &s.metrics
	s.f.now = func() time.Time { return s.Now }
	return s
}

func (s *stage) backup(seed uint64) {
	kind := snapshot.Incremental
	if seed%3 == 0 {
		kind = snapshot.Full
	}
	s.Backup(s.t, kind, repotest.Tree{"/srv/a": repotest.Noise(seed, 100<<10), "/srv/b": repotest.Noise(7, 50<<10)})
	s.Now = s.Now.Add(time.Hour)
}

// event is what S3 sends for an object.
func event(key string) string {
	return fmt.Sprintf(`{"version":"0","id":"1","detail-type":"Object Created","source":"aws.s3","account":"1","time":"2026-03-01T12:00:00Z","region":"eu-central-1","resources":[],`+
		`"detail":{"version":"0","bucket":{"name":"b"},"object":{"key":%q,"size":1,"etag":"x","sequencer":"y"},"reason":"PutObject"}}`, key)
}

// batch calls the function with messages of the queue and returns the numbers of those that failed.
func (s *stage) batch(bodies ...string) []string {
	s.t.Helper()
	var records []map[string]any
	for i, body := range bodies {
		records = append(records, map[string]any{"messageId": fmt.Sprint(i), "eventSource": "aws:sqs", "body": body})
	}
	payload, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.f.handle(s.t.Context(), payload)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		s.t.Fatal(err)
	}
	var failures struct {
		BatchItemFailures []struct{ ItemIdentifier string }
	}
	if err := json.Unmarshal(text, &failures); err != nil {
		s.t.Fatal(err)
	}
	out := []string{}
	for _, f := range failures.BatchItemFailures {
		out = append(out, f.ItemIdentifier)
	}
	return out
}

func (s *stage) tick() toured {
	s.t.Helper()
	answer, err := s.f.handle(s.t.Context(), []byte(`{"version":1,"time":"2026-03-01T12:00:00Z"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.(toured)
}

func (s *stage) receipts(level string) map[uint64]string {
	s.t.Helper()
	out := map[uint64]string{}
	for _, key := range repotest.Keys(s.Store, "/receipts/cloud/") {
		var r record.Receipt
		if _, err := s.Open(s.t, s.Store).Document(s.t.Context(), key, &r); err != nil {
			s.t.Fatal(err)
		}
		if r.Level == level {
			out[r.Sequence] = r.Result
		}
	}
	return out
}

func (s *stage) findings() []string {
	s.t.Helper()
	doc, _, err := statestore.Read[control.Findings](s.t.Context(), s.state, control.VerifyFindingsKey(s.Source))
	if err != nil && !errors.Is(err, statestore.ErrNotExist) {
		s.t.Fatal(err)
	}
	out := []string{}
	if doc != nil {
		for _, f := range doc.Findings {
			out = append(out, f.By+" "+f.Key+" "+f.Problem)
		}
	}
	return out
}

func TestArrivals(t *testing.T) {
	s := newStage(t, 4)
	key := func(n uint64) string { return layout.ManifestKey(s.ID(n)) }
	failed := s.batch(event(key(1)), "poison", event(key(2)), event(key(2)), event("v1/access/0000000001.json"), event("v1/a/b/snapshots/1.json"),
		event("v1/../x/snapshots/0000000001.json"), event("other"), `{"id":"1","detail-type":"Object Removed","source":"aws.s3","detail":{}}`)
	if diff := cmp.Diff([]string{"1"}, failed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[uint64]string{1: "pass", 2: "pass"}, s.receipts("structure")); diff != "" {
		t.Error(diff)
	}
	if n := len(repotest.Keys(s.Store, "/receipts/")); n != 2 {
		t.Errorf("%d receipts of two snapshots", n)
	}
	// A pack of the third is gone: found, on record, told.
	var pack string
	m, err := s.Repo.Manifest(t.Context(), s.ID(3))
	if err != nil {
		t.Fatal(err)
	}
	infos, err := s.Repo.Lists(t.Context(), m.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range repotest.Keys(s.Store, "/packs/") {
		if strings.HasSuffix(k, infos[len(infos)-1].ID.String()) {
			pack = k
		}
	}
	s.Store.Tamper(pack, nil)
	if failed := s.batch(event(key(3))); len(failed) > 0 {
		t.Errorf("%v", failed)
	}
	if s.receipts("structure")[3] != "fail" || !slices.Contains(s.findings(), "arrival "+pack+" missing") {
		t.Errorf("%v, %v", s.receipts("structure"), s.findings())
	}
	// One that is gone without a record, and trouble of the store, which lets the message come again.
	doc, _ := s.Store.Object(key(4))
	s.Store.Tamper(key(4), nil)
	if failed := s.batch(event(key(4))); len(failed) > 0 || !slices.Contains(s.findings(), "arrival "+key(4)+" missing") {
		t.Errorf("%v, %v", failed, s.findings())
	}
	s.Store.Tamper(key(4), doc)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if strings.Contains(c.Key, "/lists/") && c.Op == mem.Get {
			return mem.Fault{Err: objstore.Transient(errors.New("slow down"))}
		}
		return mem.Fault{}
	})
	if failed := s.batch(event(key(4))); len(failed) != 1 {
		t.Errorf("%v", failed)
	}
	s.Store.SetHook(nil)
	if failed := s.batch(event(key(4))); len(failed) > 0 || s.receipts("structure")[4] != "pass" {
		t.Errorf("%v", failed)
	}
}

// TestForgedByTheCloud has a manifest that the function's own signer signed: its key may have been stolen.
func TestForgedByTheCloud(t *testing.T) {
	s := newStage(t, 1)
	signer, _ := s.id.Signer()
	key := layout.ManifestKey(s.ID(1))
	doc, _ := s.Store.Object(key)
	payload, _, err := keyring.Peek(doc)
	if err != nil {
		t.Fatal(err)
	}
	s.Store.Tamper(key, keyring.Sign(signer, s.Repo.ID(), key, payload))
	if failed := s.batch(event(key)); len(failed) > 0 {
		t.Errorf("%v", failed)
	}
	if diff := cmp.Diff([]string{"arrival " + key + " " + string(verify.Untrusted)}, s.findings()); diff != "" {
		t.Error(diff)
	}
	if len(s.receipts("structure")) > 0 {
		t.Error("a receipt about a forged manifest")
	}
}

func TestRotation(t *testing.T) {
	s := newStage(t, 4)
	s.batch(event(layout.ManifestKey(s.ID(4))))
	s.f.env.RunBytes = 1 // a pack or two in each run
	packs := len(repotest.Keys(s.Store, "/packs/"))
	runs, read := 0, 0
	for out := s.tick(); ; out = s.tick() {
		runs++
		read += out.Packs
		s.Now = s.Now.Add(time.Hour)
		if out.Laps == 1 {
			break
		}
		if runs > 50 {
			t.Fatal("it never ends")
		}
	}
	if runs < 2 || read != packs {
		t.Errorf("%d runs, %d of %d packs", runs, read, packs)
	}
	if diff := cmp.Diff(map[uint64]string{1: "pass", 2: "pass", 3: "pass", 4: "pass"}, s.receipts("bytes")); diff != "" {
		t.Error(diff)
	}
	// Nothing is due; then only what is new; then everything again.
	if out := s.tick(); out.Looked != 0 || out.Packs != 0 {
		t.Errorf("%+v", out)
	}
	s.f.env.RunBytes = 0
	s.backup(11)
	s.batch(event(layout.ManifestKey(s.ID(5))))
	s.Now = s.Now.Add(freshEvery)
	if out := s.tick(); out.Packs != len(repotest.Keys(s.Store, "/packs/"))-packs || out.Laps != 0 || s.receipts("bytes")[5] != "pass" {
		t.Errorf("%+v", out)
	}
	s.Now = s.Now.Add(period)
	if out := s.tick(); out.Laps != 1 || out.Packs != len(repotest.Keys(s.Store, "/packs/")) {
		t.Errorf("%+v", out)
	}
	// Damage that is as old as the last look is found by the next lap, and told.
	key := repotest.Keys(s.Store, "/packs/")[2]
	s.Store.Tamper(key, []byte("rot"))
	s.Now = s.Now.Add(period)
	if out := s.tick(); out.Findings == 0 || !slices.Contains(s.findings(), "rotation "+key+" "+string(verify.SizeDiffers)) {
		t.Errorf("%+v, %v", out, s.findings())
	}
	if len(repotest.Keys(s.Store, "/damaged/")) != 1 {
		t.Error("no record of the damage")
	}
}

// TestRollback has a source whose end was cut off, and one that is gone.
func TestRollback(t *testing.T) {
	s := newStage(t, 3)
	s.tick()
	s.Store.Tamper(layout.ManifestKey(s.ID(3)), nil)
	s.Now = s.Now.Add(period)
	s.tick()
	if !slices.Contains(s.findings(), "rotation "+layout.ManifestKey(s.ID(3))+" "+string(verify.RolledBack)) {
		t.Errorf("%v", s.findings())
	}
	for _, key := range repotest.Keys(s.Store, layout.SourcePrefix(s.Source)) {
		s.Store.Tamper(key, nil)
	}
	s.Now = s.Now.Add(period)
	if s.tick(); !slices.Contains(s.findings(), "rotation "+layout.ManifestKey(s.ID(3))+" "+string(verify.RolledBack)) {
		t.Errorf("%v", s.findings())
	}
}

// TestCursor is held by one invocation, and survives crashes and garbage.
func TestCursor(t *testing.T) {
	s := newStage(t, 2)
	call := func(id string) toured {
		t.Helper()
		ctx, cancel := context.WithTimeout(lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: id}), 15*time.Minute)
		defer cancel()
		answer, err := s.f.handle(ctx, []byte(`{"version":1}`))
		if err != nil {
			t.Fatal(err)
		}
		return answer.(toured)
	}
	crashed := control.VerifyCursor{Version: 1, Busy: control.Lease{Owner: "one", Until: s.Now.Add(10 * time.Minute)}}
	if _, err := statestore.Write(t.Context(), s.state, control.VerifyCursorKey, crashed, ""); err != nil {
		t.Fatal(err)
	}
	if out := call("two"); !out.Busy {
		t.Errorf("%+v", out)
	}
	s.Now = s.Now.Add(10 * time.Minute)
	if out := call("two"); out.Busy || out.Laps != 1 {
		t.Errorf("%+v", out)
	}
	_, tag, err := s.state.Get(t.Context(), control.VerifyCursorKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.state.Put(t.Context(), control.VerifyCursorKey, []byte("{garbage"), tag); err != nil {
		t.Fatal(err)
	}
	if out := call("three"); out.Laps != 1 {
		t.Errorf("%+v", out)
	}
	// A cursor with a member that says nothing.
	_, tag, err = s.state.Get(t.Context(), control.VerifyCursorKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.state.Put(t.Context(), control.VerifyCursorKey, []byte(`{"version":1,"sources":{"governance-1/config":null,"other/gone":null}}`), tag); err != nil {
		t.Fatal(err)
	}
	if out := call("four"); out.Laps != 1 {
		t.Errorf("%+v", out)
	}
}

// TestShards puts each source into one shard, and a source that fails keeps no other from its turn.
func TestShards(t *testing.T) {
	s := newStage(t, 1)
	for _, name := range []string{"b", "c", "d", "e"} {
		s.Source.Name = name
		s.backup(1)
	}
	total := 0
	for shard := range 3 {
		answer, err := s.f.handle(t.Context(), fmt.Appendf(nil, `{"version":1,"shard":%d,"shards":3}`, shard))
		if err != nil {
			t.Fatal(err)
		}
		total += answer.(toured).Sources
	}
	if total != 5 || len(s.receipts("bytes")) == 0 {
		t.Errorf("%d sources", total)
	}
	s.Now = s.Now.Add(period)
	s.Store.SetHook(func(c mem.Call) mem.Fault {
		if strings.HasPrefix(c.Key, "v1/governance-1/c/") {
			return mem.Fault{Err: errors.New("no")}
		}
		return mem.Fault{}
	})
	if out := s.tick(); out.Failed != 1 || out.Laps != 4 {
		t.Errorf("%+v", out)
	}
	if _, err := s.f.handle(t.Context(), []byte(`{"version":1,"shard":3,"shards":3}`)); err == nil {
		t.Error("a shard that is none")
	}
}

// FuzzArrived finds a manifest only in an event of S3 that names just its key.
func FuzzArrived(f *testing.F) {
	f.Add([]byte(event("v1/web/app/snapshots/0000000001.json")))
	f.Add([]byte(event("v1/access/snapshots/0000000001.json")))
	f.Add([]byte(`{"detail-type":"Object Created","source":"aws.s3","detail":{"object":{"key":7}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id, ok, err := arrived(body)
		if err != nil || !ok {
			return
		}
		if again, ok := parseManifest(layout.ManifestKey(id)); !ok || again != id || id.Source.Check() != nil {
			t.Errorf("%s of %q", id, body)
		}
	})
}
