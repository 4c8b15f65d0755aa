package postgres_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	follower "github.com/btcdecoded/holdfast/hostagent/replicate/postgres"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// kept makes a directory for what a server archives, and the settings for it.
func kept(t *testing.T) (dir string, config map[string]string) {
	t.Helper()
	dir = filepath.Join(cluster.Account(t).Dir(t), "kept")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cluster.Account(t).Give(t, dir)
	return dir, map[string]string{"archive_mode": "on", "archive_command": "cp %p " + dir + "/%f", "wal_keep_size": "64MB"}
}

// settled waits until a server has archived all that it has to.
func settled(t *testing.T, s *cluster.Server) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		ready, err := filepath.Glob(filepath.Join(s.Dir, "pg_wal", "archive_status", "*.ready"))
		if err == nil && len(ready) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server archives nothing")
		}
	}
}

// epochs counts those of the log.
func (w *world) epochs() (n int) {
	w.t.Helper()
	streams, err := log.Streams(w.t.Context(), w.fix.Open(w.t, w.fix.Store), w.src)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range streams {
		n += len(s.Epochs)
	}
	return n
}

// TestPushPutBack puts a server back to an older state, from where it archives segments once more under the same names: none
// of them is taken for the one that is stored.
func TestPushPutBack(t *testing.T) {
	t.Parallel()
	first, config := kept(t)
	config["wal_keep_size"] = "0"
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: config})
	full := func(s *cluster.Server, client string) {
		w.leads(s, 0)
		w.write(client, 5)()
		s.Psql("SELECT pg_switch_wal()")
	}
	full(w.server, "a")
	settled(t, w.server)
	w.archive(first, nil)
	if b, err := w.base(t.Context()); b.Number != 1 || err != nil {
		t.Fatal(b, err)
	}
	own := w.server
	own.Stop("fast")
	dir := filepath.Join(own.Owner.Dir(t), "data")
	own.CopyTo(t, dir)
	own.Restart()
	const segments = 20 // more than are remembered
	for range segments {
		full(own, "b")
	}
	settled(t, own)
	own.Stop("fast") // which archives once more
	w.archive(first, nil)
	want := w.acknowledged(anyLSN)

	again, config := kept(t)
	config["wal_keep_size"] = "0"
	old := cluster.Open(t, dir, cluster.Options{Config: config})
	before := len(glob(t, again, "0*"))
	for range segments - 2 {
		full(old, "c")
	}
	settled(t, old)
	pushed := glob(t, again, "0*")[before:]
	if len(pushed) < segments/2 {
		t.Fatalf("%d segments", len(pushed))
	}
	for i, path := range pushed {
		p, err := follower.Push(t.Context(), w.options(nil), path)
		if err == nil || i > 3 && !strings.Contains(err.Error(), "other WAL") && !strings.Contains(err.Error(), "put back") {
			t.Errorf("%s: %+v, %v", filepath.Base(path), p, err)
		}
	}
	old.Stop("fast")
	// The one of before goes on. What it gives once more is known.
	for _, p := range w.archive(first, nil) {
		if p.Gap != "" || p.Stored != 0 {
			t.Errorf("%+v", p)
		}
	}
	w.wantRows(w.restore(time.Time{}), want)
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPushEpoch wants that processes go on with one epoch, each after the other, and that a killed one leaves its number alone.
func TestPushEpoch(t *testing.T) {
	t.Parallel()
	dir, config := kept(t)
	w := newWorld(t, cluster.Options{SegmentSize: 1, Config: config})
	full := func(client string) {
		w.write(client, 5)()
		w.server.Psql("SELECT pg_switch_wal()")
		settled(t, w.server)
	}
	for range 5 {
		full("a")
	}
	if pushed := w.archive(dir, nil); len(pushed) < 5 || !pushed[0].Began || pushed[1].Began {
		t.Fatalf("%+v", pushed)
	}
	if b, err := w.base(t.Context()); b.Number != 1 || err != nil {
		t.Fatal(b, err)
	}
	full("b")
	w.archive(dir, nil)
	if n := w.epochs(); n != 1 {
		t.Errorf("%d epochs of one log", n)
	}
	key := filepath.Join(w.options(nil).Dir, "follow.key")
	info, err := os.Stat(key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key of the epoch: %v, %v", info, err)
	}
	// A process dies in the midst of a put, of which nobody knows whether it arrives after all.
	full("c")
	w.fix.Store.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put {
			return mem.Fault{Err: objstore.Transient(errors.New("away"))}
		}
		return mem.Fault{}
	})
	died := glob(t, dir, "0*")
	o := w.options(nil)
	ctx, cancel := context.WithCancel(t.Context())
	o.Tell = func(e replicate.Event) {
		if e.Kind == replicate.Trouble {
			cancel()
		}
	}
	if _, err := follower.Push(ctx, o, died[len(died)-1]); err == nil {
		t.Fatal("it was stored while the store was away")
	}
	w.fix.Store.SetHook(nil)
	w.archive(dir, nil)
	full("d")
	w.archive(dir, nil)
	if n := w.epochs(); n != 2 {
		t.Errorf("%d epochs, after a put that may still arrive", n)
	}
	// A key that is damaged is none.
	if err := os.WriteFile(key, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	full("e")
	w.archive(dir, nil)
	if n := w.epochs(); n != 3 {
		t.Errorf("%d epochs, after the key was lost", n)
	}
	w.wantRows(w.restore(time.Time{}), w.acknowledged(anyLSN))
}
