package seal

import (
	"bytes"
	"sync"
	"testing"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func TestPageID(t *testing.T) {
	keys := NewKeys(sampleKey(), sampleContext())
	page := noise(8 << 10)
	id := keys.PageID(page)
	if id == (snapshot.FileID{}) || id != keys.PageID(bytes.Clone(page)) {
		t.Errorf("the id of a page is %x, then %x", id, keys.PageID(page))
	}
	seen := map[snapshot.FileID]string{id: "the page", keys.FileID(page): "its file id"}
	check := func(what string, id snapshot.FileID) {
		if before, ok := seen[id]; ok {
			t.Errorf("%s has the id of %s", what, before)
		}
		seen[id] = what
	}
	for bit := range 8 * len(page) {
		page[bit/8] ^= 1 << (bit % 8)
		check("a page with another bit", keys.PageID(page))
		page[bit/8] ^= 1 << (bit % 8)
	}
	check("a shorter one", keys.PageID(page[:len(page)-1]))
	check("none", keys.PageID(nil))
	check("zeros", keys.PageID(make([]byte, 8<<10)))
	check("fewer zeros", keys.PageID(make([]byte, 4<<10)))
	other := sampleKey()
	other[0]++
	check("the page under another key", NewKeys(other, sampleContext()).PageID(page))

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if keys.PageID(page) != id {
					t.Error("side by side it is another")
					return
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkPageID(b *testing.B) {
	keys := NewKeys(sampleKey(), sampleContext())
	page := noise(8 << 10)
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		keys.PageID(page)
	}
}
