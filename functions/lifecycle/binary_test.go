package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/scene"
)

func answer(t *testing.T, r invoketest.Result) passed {
	t.Helper()
	if r.Err != nil || r.Failure != nil {
		t.Fatalf("%v, %+v", r.Err, r.Failure)
	}
	var out passed
	if err := json.Unmarshal(r.Body, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func named(s *scene.Scene) map[string]any {
	return map[string]any{"sources": []string{s.Source.String()}}
}

// fill makes snapshots that are verified, and puts them into the bucket.
func fill(t *testing.T, s *scene.Scene, n int) {
	t.Helper()
	s.Signer(t, "lifecycle", "condemned", "expired", "receipts/cloud")
	s.Now = time.Now().Add(-time.Hour)
	for i := range n {
		s.Backup(t, snapshot.Full, repotest.Tree{"/srv/a": repotest.Noise(uint64(i), 50<<10)})
	}
	_, err := verify.Run(t.Context(), s.Open(t, s.Store), verify.Options{Level: verify.Bytes, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Push(t)
}

// TestLockedBucket runs the real binary on buckets that lock what arrives, in both modes.
func TestLockedBucket(t *testing.T) {
	for _, mode := range []types.ObjectLockRetentionMode{types.ObjectLockRetentionModeGovernance, types.ObjectLockRetentionModeCompliance} {
		t.Run(string(mode), func(t *testing.T) {
			s := scene.Start(t, bucket.Options{Lock: mode}, "{keep_last: 2}")
			fill(t, s, 3)
			m, err := s.Repo.Manifest(t.Context(), s.ID(3))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Repo.PutDocument(t.Context(), layout.MarkKey(s.ID(3), strings.Repeat("a", 32)), record.Mark{Sequence: 3, Manifest: m.Hash.String(), Mark: record.Hold}); err != nil {
				t.Fatal(err)
			}
			s.Push(t)
			f := s.Function(t, ".", "lifecycle", map[string]string{"HOLDFAST_LOCK_MODE": string(mode)})
			took, err := f.Init()
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			out := answer(t, f.Invoke(named(s)))
			if out.Done != 1 || len(out.Reports) != 1 || len(out.Reports[0].Findings) > 0 || len(out.Reports[0].Prune.Condemned) != 1 {
				t.Fatalf("%+v", out)
			}
			locker := s.Remote.(objstore.Locker)
			for _, key := range append(s.Keys(t, "/snapshots/"), layout.RepositoryKey, layout.AccessKey(1)) {
				l, err := locker.LockOf(t.Context(), key)
				kept := key != layout.ManifestKey(s.ID(1))
				if err != nil || kept == l.Until.Before(began.Add(lock.Slack+lock.Step-time.Minute)) || l.Hold != (key == layout.ManifestKey(s.ID(3))) {
					t.Errorf("%s: %+v, %v", key, l, err)
				}
				if err := s.Remote.Delete(t.Context(), key); !errors.Is(err, objstore.ErrLocked) {
					t.Errorf("%s: %v", key, err)
				}
			}
			// A second pass has nothing to lock.
			if out := answer(t, f.Invoke(named(s))); out.Reports[0].Locks.Extended != 0 || out.Reports[0].Error != "" {
				t.Errorf("%+v", out.Reports[0].Locks)
			}
			// Somebody hides a manifest and overwrites a pack.
			versioned := s.Remote.(objstore.Versioned)
			if err := errors.Join(
				versioned.Hide(t.Context(), layout.ManifestKey(s.ID(2))),
				versioned.PutVersion(t.Context(), s.Keys(t, "/packs/")[0], objstore.Bytes([]byte("garbage"))),
			); err != nil {
				t.Fatal(err)
			}
			if out := answer(t, f.Invoke(named(s))); len(out.Reports[0].Findings) != 2 {
				t.Errorf("%+v", out.Reports[0].Findings)
			}
			memory, err := f.Memory()
			if err != nil || memory > 200<<20 {
				t.Errorf("memory %d, %v", memory, err)
			}
			t.Logf("ready after %s, memory %d MiB", took, memory>>20)
		})
	}
}

// TestRemoval lets time go by, by the server's clock, until everything that nothing needs is gone with all versions.
func TestRemoval(t *testing.T) {
	s := scene.Start(t, bucket.Options{Versioned: true}, "{keep_last: 2}")
	fill(t, s, 3)
	s.Age(t, "v1/", 60*day)
	f := s.Function(t, ".", "lifecycle", nil)
	dry := named(s)
	dry["dry_run"] = true
	if out := answer(t, f.Invoke(dry)); len(out.Reports[0].Prune.Condemned) != 1 || len(s.Keys(t, "/condemned/")) != 0 {
		t.Errorf("%+v", out)
	}
	answer(t, f.Invoke(named(s)))
	if len(s.Keys(t, "/condemned/")) != 1 || len(s.Keys(t, "/snapshots/")) != 3 {
		t.Error(s.Keys(t, ""))
	}
	s.Age(t, "v1/", 8*day)
	before := len(s.Keys(t, "/packs/"))
	out := answer(t, f.Invoke(named(s)))
	if out.Removed != 1 || out.Freed == 0 || len(s.Keys(t, "/snapshots/")) != 2 || len(s.Keys(t, "/packs/")) >= before || len(s.Keys(t, "/condemned/")) != 0 {
		t.Errorf("%+v, %v", out.Reports[0].Prune, s.Keys(t, ""))
	}
	err := s.Remote.(objstore.Versioned).ListVersions(t.Context(), "", func(v objstore.Version) error {
		if v.DeleteMarker || !v.Current || v.Key == layout.ManifestKey(s.ID(1)) {
			t.Errorf("left over: %+v", v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), s.Remote, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	res, err := verify.Run(t.Context(), repo, verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Errorf("%v, %+v", err, res)
	}
	if strings.Contains(f.Output(), "HOLDFAST-SIGNER") {
		t.Error("the log has a secret")
	}
}
