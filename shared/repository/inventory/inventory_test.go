package inventory_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestTake(t *testing.T) {
	src := snapshot.Source{Host: "h", Name: "etc"}
	id := snapshot.ID{Source: src, Sequence: 7}
	var chain snapshot.ChainID
	var hash snapshot.Hash
	hash[0] = 9
	hex32 := strings.Repeat("ab", 16)
	store := mem.New()
	known := []string{
		layout.ManifestKey(id), layout.CondemnedKey(id), layout.ExpiredKey(id), layout.PackKey(src, chain, hash),
		layout.ListKey(src, hash.String()), layout.KeyKey(src, hash.String(), hex32), layout.MarkKey(id, hex32),
		layout.DamagedKey(src, hash), layout.ReceiptKey(id, layout.ReceiptCloud, time.Unix(1, 0), "bytes"),
	}
	p := layout.SourcePrefix(src)
	unknown := []string{
		p + "x", p + "snapshots/7.json", p + "packs/zz", p + "lists/" + strings.ToUpper(hash.String()) + "A", p + "keys/a/b.json",
		p + "marks/0000000007/x.json", p + "damaged/" + hash.String(), p + "receipts/host/x.json", p + "log/y",
	}
	for _, key := range append(append([]string{"v1/h/etc2/x", "v1/h/other"}, known...), unknown...) {
		if err := store.Put(t.Context(), key, objstore.Bytes([]byte(key))); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := inventory.Take(t.Context(), store, src)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Unknown) != len(unknown) || inv.Objects != len(known)+len(unknown) {
		t.Errorf("%d objects, unknown: %v", inv.Objects, inv.Unknown)
	}
	sizes := []int{
		len(inv.Manifests), len(inv.Condemned), len(inv.Expired), len(inv.Packs), len(inv.Lists), len(inv.Keys), len(inv.Marks),
		len(inv.Damaged), len(inv.Receipts),
	}
	for i, n := range sizes {
		if n != 1 {
			t.Errorf("kind %d: %d objects, want 1", i, n)
		}
	}
	pack := inventory.Pack{Chain: chain, ID: hash}
	if o := inv.Packs[pack]; o.Size != int64(len(inv.PackKey(pack))) || o.Checksum != inventory.Differs {
		t.Errorf("pack: %+v", o)
	}
	if inv.Highest() != 7 || len(inv.MarksOf(7)) != 1 || len(inv.MarksOf(8)) != 0 {
		t.Errorf("highest %d, marks %v", inv.Highest(), inv.MarksOf(7))
	}
}

func TestWitnessed(t *testing.T) {
	src := snapshot.Source{Host: "h", Name: "etc"}
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	store := mem.New()
	arrive := func(after time.Duration) {
		store.SetClock(func() time.Time { return start.Add(after) })
		key := layout.ListKey(src, fmt.Sprintf("%064x", int64(after)))
		if err := store.Put(t.Context(), key, objstore.Bytes([]byte(key))); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	for _, d := range []time.Duration{0, day, 2 * day, 2*day + time.Minute, 20_000 * day, 20_001 * day} {
		arrive(d)
	}
	inv, err := inventory.Take(t.Context(), store, src)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ from, to, want time.Duration }{
		{0, 2 * day, 2 * day},
		{0, 3 * day, 3 * day},
		{0, 10 * day, 4 * day},
		{day / 2, day, day / 2},
		{0, 20_000 * day, 4 * day},
		{0, 20_001 * day, 5 * day},
		{day, day, 0},
		{2 * day, day, 0},
		{30_000 * day, 30_001 * day, day},
	} {
		if got := inv.Witnessed(start.Add(tt.from), start.Add(tt.to), 2*day); got != tt.want {
			t.Errorf("from %s to %s: %s, want %s", tt.from, tt.to, got, tt.want)
		}
	}
}

func FuzzKeys(f *testing.F) {
	for _, rest := range []string{"snapshots/0000000001.json", "keys/a/b.json", "marks/0000000001/x.json", "packs//", "receipts/host/-.json", "lists/", "x"} {
		f.Add(rest)
	}
	src := snapshot.Source{Host: "h", Name: "etc"}
	f.Fuzz(func(t *testing.T, rest string) {
		inv, err := inventory.Take(t.Context(), one(layout.SourcePrefix(src)+rest), src)
		if err != nil {
			t.Fatal(err)
		}
		n := len(inv.Manifests) + len(inv.Condemned) + len(inv.Expired) + len(inv.Packs) + len(inv.Lists) + len(inv.Keys) +
			len(inv.Marks) + len(inv.Damaged) + len(inv.Receipts) + len(inv.Unknown)
		if n != 1 {
			t.Errorf("%q is filed %d times", rest, n)
		}
		// What is filed gives the same key again.
		for n := range inv.Manifests {
			if layout.ManifestKey(snapshot.ID{Source: src, Sequence: n}) != layout.SourcePrefix(src)+rest {
				t.Errorf("%q is taken for snapshot %d", rest, n)
			}
		}
		for k := range inv.Keys {
			if inv.KeyKey(k) != layout.SourcePrefix(src)+rest {
				t.Errorf("%q is taken for key %v", rest, k)
			}
		}
		for m := range inv.Marks {
			if inv.MarkKey(m) != layout.SourcePrefix(src)+rest {
				t.Errorf("%q is taken for mark %v", rest, m)
			}
		}
	})
}

// one is a store that lists one key.
type one string

func (o one) List(_ context.Context, _ string, fn func(objstore.Info) error) error {
	return fn(objstore.Info{Key: string(o)})
}
func (one) Put(context.Context, string, objstore.Content) error { return objstore.ErrDenied }
func (one) Delete(context.Context, string) error                { return objstore.ErrDenied }
func (one) Stat(context.Context, string) (objstore.Info, error) {
	return objstore.Info{}, objstore.ErrNotExist
}

func (one) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, objstore.ErrNotExist
}
