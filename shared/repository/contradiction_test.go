package repository_test

import (
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// A host that was somebody else's for a while left a snapshot whose lists contradict each other. Nothing can be built on
// it, and no backup may fail because of it.
func TestContradictingListsBeginAChain(t *testing.T) {
	store := mem.New()
	r, _ := initialise(t, store)
	state := t.TempDir()
	one := noise(3, 4, 1000)
	first := mustBackup(t, r, state, "", one)
	packs, err := r.Lists(t.Context(), first.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	again := objstore.Bytes(snapshot.EncodeList(packs[:1]))
	list := snapshot.List{List: snapshot.Hash(again.SHA256).String(), Size: again.Size, Packs: 1, Bytes: int64(packs[0].Size)}
	if list.List == first.Lists[0].List {
		other := packs[0]
		other.Size++
		again = objstore.Bytes(snapshot.EncodeList([]snapshot.PackInfo{other}))
		list = snapshot.List{List: snapshot.Hash(again.SHA256).String(), Size: again.Size, Packs: 1, Bytes: int64(other.Size)}
	}
	if err := store.Put(t.Context(), layout.ListKey(src, list.List), again); err != nil {
		t.Fatal(err)
	}
	forged := *first.Manifest
	forged.Sequence, forged.Type, forged.Parent, forged.Previous = 2, snapshot.Incremental, 1, first.Hash.String()
	forged.Lists = append([]snapshot.List{list}, forged.Lists...)
	if err := r.PutDocument(t.Context(), layout.ManifestKey(forged.ID()), forged); err != nil {
		t.Fatal(err)
	}
	third := mustBackup(t, r, state, "", one)
	if third.Type != snapshot.Full {
		t.Errorf("it is %s", third.Type)
	}
	wantRestored(t, r, third, one)
}
