package observe_test

import (
	"errors"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/statestore/memstate"
)

var errDenied = errors.New("access denied")

// TestDamagedShard: what is remembered of some sources can't be understood any more. They are looked at anew, and not
// left out for ever.
func TestDamagedShard(t *testing.T) {
	g := generate(t, 2, 1)
	g.pass(t)
	n := observe.ShardOf("host-00000")
	_, tag, err := g.state.Get(t.Context(), observe.ShardKey(n))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.state.Put(t.Context(), observe.ShardKey(n), []byte(`{"sources": 7`), tag); err != nil {
		t.Fatal(err)
	}
	g.Now = g.Now.Add(time.Minute)
	p, f, _, _ := g.pass(t)
	if judged, hosts := f.Judge(p, observe.Rules{}); len(judged) != 2 || len(hosts) != 1 || p.Unread != 0 {
		t.Errorf("%d sources of %d hosts are judged, %d shards unread: %v", len(judged), len(hosts), p.Unread, p.Failures)
	}
	if _, _, err := g.state.Get(t.Context(), observe.ShardKey(n)); err != nil {
		t.Error(err)
	}
}

// TestUnreadShard: the state store does not let go of one shard. That is counted.
func TestUnreadShard(t *testing.T) {
	g := generate(t, 4, 1)
	n := observe.ShardOf("host-00000")
	if n == observe.ShardOf("host-00001") {
		t.Fatal("want two shards")
	}
	g.state.Before = func(op memstate.Op, key string) error {
		if op == memstate.Get && key == observe.ShardKey(n) {
			return errDenied
		}
		return nil
	}
	f := &observe.Fleet{Watch: &observe.Watch{Repo: g.Repo}, State: g.state, Policy: g.policy, Now: func() time.Time { return g.Now }}
	p, err := f.Pass(t.Context(), 0, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if judged, _ := f.Judge(p, observe.Rules{}); len(judged) != 2 || p.Unread != 1 {
		t.Errorf("%d sources are judged, %d shards unread", len(judged), p.Unread)
	}
}
