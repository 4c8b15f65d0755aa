package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/granted"
)

// opened is a repository that is open.
type opened struct{ repo *repository.Repository }

func (o opened) Repository(context.Context, *policy.Policy) (*repository.Repository, error) {
	if o.repo == nil {
		return nil, repository.ErrNoRepository
	}
	return o.repo, nil
}

// TestManifests finds what the manifests of a real repository tell.
func TestManifests(t *testing.T) {
	ctx := context.Background()
	f := repotest.New(t)
	p, err := policy.Parse([]byte(`{version: 1, hosts: {governance-1: {sources: {app: {files: {roots: [/srv]}, ` +
		`schedule: {full: "0 0 1 * *", differential: "0 0 * * 0", incremental: "0 * * * *"}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	s := &stored{opened{f.Open(t, granted.Of(t, "coordinate", false).Store(f.Store))}}
	if e, err := s.Newest(ctx, p, f.Source); err != nil || e.Sequence != 0 {
		t.Errorf("an empty repository: %+v, %v", e, err)
	}
	start := f.Now
	times := map[snapshot.SnapshotType]time.Time{}
	for i, kind := range []snapshot.SnapshotType{snapshot.Full, snapshot.Incremental, snapshot.Differential, snapshot.Incremental, snapshot.Incremental} {
		f.Now = start.Add(time.Duration(i) * 24 * time.Hour)
		times[kind] = f.Now
		if m := f.Backup(t, kind, repotest.Tree{repotest.Root + "/a": fmt.Append(nil, i)}); m.Type != kind {
			t.Fatalf("snapshot %d is %s", i+1, m.Type)
		}
	}
	e, err := s.Newest(ctx, p, f.Source)
	if err != nil || e.Sequence != 5 || e.Type != snapshot.Incremental || !e.Arrived.Equal(f.Now) {
		t.Errorf("%+v, %v", e, err)
	}
	if h := e.Settled; !h.Full.Equal(times[snapshot.Full]) || !h.Differential.Equal(times[snapshot.Differential]) || !h.Incremental.Equal(times[snapshot.Incremental]) {
		t.Errorf("settled %+v, want %v", h, times)
	}
	if at, err := s.Arrived(ctx, p, f.ID(3)); err != nil || !at.Equal(times[snapshot.Differential]) {
		t.Errorf("%s, %v", at, err)
	}
	if at, err := s.Arrived(ctx, p, f.ID(6)); err != nil || !at.IsZero() {
		t.Errorf("%s, %v", at, err)
	}

	// What a long run stored while it was still at work is not the end of that run.
	newest, err := f.Repo.Manifest(ctx, f.ID(5))
	if err != nil {
		t.Fatal(err)
	}
	half := *newest.Manifest
	half.Sequence, half.Unfinished, half.Partial, half.Type, half.Parent, half.ChainStart = 6, true, true, snapshot.Full, 0, 6
	half.Previous = newest.Hash.String()
	if err := f.Repo.PutDocument(ctx, layout.ManifestKey(f.ID(6)), half); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Newest(ctx, p, f.Source); err != nil || e.Sequence != 5 || !e.Settled.Full.Equal(times[snapshot.Full]) {
		t.Errorf("a run that was cut off is taken for done: %+v, %v", e, err)
	}
	if err := f.Store.Delete(ctx, layout.ManifestKey(f.ID(6))); err != nil {
		t.Fatal(err)
	}

	// A manifest of somebody who may not speak for the host proves nothing.
	other, err := keyring.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := other.Signer()
	key := layout.ManifestKey(f.ID(6))
	forged := keyring.Sign(signer, f.Repo.ID(), key, []byte(`{"sequence":6,"type":"full"}`))
	if err := f.Store.Put(ctx, key, objstore.Bytes(forged)); err != nil {
		t.Fatal(err)
	}
	if err := f.Store.Put(ctx, layout.ManifestKey(f.ID(7)), objstore.Bytes([]byte("nonsense"))); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Newest(ctx, p, f.Source); err != nil || e.Sequence != 5 {
		t.Errorf("a forged manifest counts: %+v, %v", e, err)
	}
	// The chain's full has expired.
	if err := f.Store.Delete(ctx, layout.ManifestKey(f.ID(1))); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Newest(ctx, p, f.Source); err != nil || e.Sequence != 5 || !e.Settled.Full.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	closed := &stored{opened{}}
	if _, err := closed.Newest(ctx, p, f.Source); !errors.Is(err, repository.ErrNoRepository) {
		t.Errorf("%v", err)
	}
	if _, err := closed.Arrived(ctx, p, f.ID(1)); !errors.Is(err, repository.ErrNoRepository) {
		t.Errorf("%v", err)
	}
}

// TestEvidenceTimes takes the begin of a capture from its length, not from the host's clock.
func TestEvidenceTimes(t *testing.T) {
	arrived := time.Date(2026, 3, 6, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		started, finished time.Time
		want              time.Time
	}{
		"right":                {arrived.Add(-10 * time.Minute), arrived.Add(-time.Second), arrived.Add(-10*time.Minute + time.Second)},
		"a clock that is late": {arrived.Add(-10 * time.Hour), arrived.Add(-9 * time.Hour), arrived.Add(-time.Hour)},
		"a clock ahead":        {arrived.Add(9 * time.Hour), arrived.Add(10 * time.Hour), arrived.Add(-time.Hour)},
		"put back meanwhile":   {arrived, arrived.Add(-time.Hour), arrived},
	} {
		e := evidence(&snapshot.Manifest{Started: tt.started, Finished: tt.finished}, arrived)
		if !e.Started.Equal(tt.want) || !e.Arrived.Equal(arrived) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestQueues sends through the real client.
func TestQueues(t *testing.T) {
	ctx := context.Background()
	services := invoketest.StartAWS(t)
	t.Setenv("AWS_ENDPOINT_URL_SQS", services.URL)
	cfg := aws.Config{Region: "us-east-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})}
	own := services.Queue("coordinate")
	services.Queue("holdfast-web-1")
	for name, base := range map[string]string{"asked for": "", "known": services.URL + "/123456789012"} {
		t.Run(name, func(t *testing.T) {
			asked := services.Requests("AmazonSQS.GetQueueUrl")
			q := newSQS(cfg, environment.Coordinate{Queue: own, QueueBase: base})
			var jobs []*events.Job
			for i := range 23 {
				due := time.Unix(int64(i), 0).UTC()
				jobs = append(jobs, &events.Job{
					Version: 1, ID: events.JobID("p", "web-1/etc", due, "backup", "full"), Host: "web-1", Source: "etc",
					Kind: events.Backup, Type: "full", Due: due, NotAfter: due,
				})
			}
			before := services.Requests("AmazonSQS.SendMessageBatch")
			for range 2 {
				if err := q.Send(ctx, "web-1", jobs); err != nil {
					t.Fatal(err)
				}
			}
			bodies := services.Take("holdfast-web-1")
			if n := services.Requests("AmazonSQS.SendMessageBatch") - before; n != 6 || len(bodies) != 46 {
				t.Errorf("%d messages in %d requests", len(bodies), n)
			}
			if j, err := events.DecodeJob([]byte(bodies[22])); err != nil || j.ID != jobs[22].ID {
				t.Errorf("%+v, %v", j, err)
			}
			if n := services.Requests("AmazonSQS.GetQueueUrl") - asked; n > 1 || n == 1 && base != "" {
				t.Errorf("asked %d times for the queue", n)
			}
			for _, host := range []string{"nowhere", "with.dot"} {
				if err := q.Send(ctx, host, jobs[:1]); !errors.Is(err, errNoQueue) {
					t.Errorf("%s: %v", host, err)
				}
			}
			if err := q.Fan(ctx, []events.Tick{{Version: 1, Shard: 0, Shards: 2}, {Version: 1, Shard: 1, Shards: 2}}); err != nil {
				t.Error(err)
			}
			if ticks := services.Take("coordinate"); len(ticks) != 2 || !strings.Contains(ticks[1], `"shard":1`) {
				t.Errorf("%q", ticks)
			}
		})
	}
	gone := newSQS(cfg, environment.Coordinate{Queue: services.URL + "/123456789012/gone"})
	if err := gone.Fan(ctx, []events.Tick{{}}); !errors.Is(err, errNoQueue) {
		t.Errorf("%v", err)
	}
}
