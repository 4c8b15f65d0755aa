package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/btcdecoded/holdfast/functions/invoke/invoketest"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/scene"
)

func answer(t *testing.T, r invoketest.Result) string {
	t.Helper()
	if r.Err != nil || r.Failure != nil {
		t.Fatalf("%v, %+v", r.Err, r.Failure)
	}
	return string(r.Body)
}

// TestBinary runs the real binary on a bucket that locks what arrives.
func TestBinary(t *testing.T) {
	s := scene.Start(t, bucket.Options{Lock: types.ObjectLockRetentionModeCompliance}, "{daily: 7}")
	s.Signer(t, "verify", "receipts/cloud", "damaged")
	s.Now = time.Now().Add(-time.Hour)
	for n := range uint64(3) {
		s.Backup(t, snapshot.Incremental, repotest.Tree{"/srv/a": repotest.Noise(n, 200<<10)})
	}
	s.Push(t)
	f := s.Function(t, ".", "verify", nil)
	took, err := f.Init()
	if err != nil {
		t.Fatal(err)
	}
	message := func(key string) map[string]any {
		return map[string]any{"messageId": key, "eventSource": "aws:sqs", "body": event(key)}
	}
	batch := map[string]any{"Records": []any{
		message(layout.ManifestKey(s.ID(1))), message(layout.ManifestKey(s.ID(2))), message(layout.ManifestKey(s.ID(2))),
		map[string]any{"messageId": "poison", "eventSource": "aws:sqs", "body": "{"},
	}}
	if got := answer(t, f.Invoke(batch)); got != `{"batchItemFailures":[{"itemIdentifier":"poison"}]}` {
		t.Error(got)
	}
	if keys := s.Keys(t, "/receipts/cloud/"); len(keys) != 2 || !strings.Contains(keys[0], "-structure-") {
		t.Errorf("%v", keys)
	}
	var out toured
	tick := map[string]any{"version": 1, "time": time.Now()}
	if err := json.Unmarshal([]byte(answer(t, f.Invoke(tick))), &out); err != nil || out.Laps != 1 || out.Packs != len(s.Keys(t, "/packs/")) || out.Findings != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	warm := f.Invoke(tick)
	if got := answer(t, warm); !strings.Contains(got, `"looked":0`) {
		t.Error(got)
	}
	memory, err := f.Memory()
	if err != nil || memory > 128<<20 {
		t.Errorf("memory %d, %v", memory, err)
	}
	if !f.Said(`"RereadBehind":0`) {
		t.Error("no metrics")
	}
	// Somebody puts garbage over a pack: the locked version stays below it. The next lap finds it.
	pack := s.Keys(t, "/packs/")[0]
	if err := s.Remote.(objstore.Versioned).PutVersion(t.Context(), pack, objstore.Bytes([]byte("garbage"))); err != nil {
		t.Fatal(err)
	}
	err = statestore.Update(t.Context(), s.State, control.VerifyCursorKey, func(c *control.VerifyCursor) error {
		c.Sources[s.Source.String()].Begun = time.Now().Add(-31 * 24 * time.Hour)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(answer(t, f.Invoke(tick))), &out); err != nil || out.Findings == 0 || len(s.Keys(t, "/damaged/")) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if !f.Said(`"problem":"size differs"`) {
		t.Error("the finding is not in the log")
	}
	if strings.Contains(f.Output(), "HOLDFAST-SIGNER") {
		t.Error("the log has a secret")
	}
	t.Logf("ready after %s, warm tick %s, memory %d MiB", took, warm.Duration, memory>>20)
}
