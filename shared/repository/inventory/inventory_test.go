package inventory_test

import (
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
