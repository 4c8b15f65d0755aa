package main

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/shared/statestore"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

func TestOrders(t *testing.T) {
	s := newStage(t, "{keep_last: 1}")
	for _, bad := range []string{`{"dryrun":true}`, `{"sources":["x"]}`, `[]`, `{} {}`, `{"shard":2,"shards":2}`, `{"shard":-1}`} {
		if _, err := s.f.handle(t.Context(), []byte(bad)); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
	if _, err := newFunction(environment.Lifecycle{Lock: "FOREVER"}, region{stage: s}, s.state, s.state, nil); err == nil {
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
