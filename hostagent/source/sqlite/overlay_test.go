package sqlite

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlay puts pages at random, and compares what comes out with a map.
func TestOverlay(t *testing.T) {
	const page, span = 512, 64 << 10
	source := rand.NewChaCha8([32]byte{1})
	rng := rand.New(source)
	o, err := newOverlay(t.TempDir(), page, span)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.close() }()
	has, fresh := map[int][]byte{}, map[int]bool{}
	for range 200 {
		for range rng.IntN(40) {
			number, data := rng.IntN(5*span/page), make([]byte, page)
			_, _ = source.Read(data)
			if err := o.put(uint32(number)+1, data); err != nil {
				t.Fatal(err)
			}
			has[number], fresh[number] = data, true
		}
		region := rng.IntN(5)
		data := make([]byte, page*(1+rng.IntN(span/page)))
		want := make([]byte, len(data))
		first := region * span / page
		if rng.IntN(2) == 0 {
			for i := range len(data) / page {
				copy(want[i*page:], has[first+i])
				delete(fresh, first+i)
			}
			if err := o.apply(region, data); err != nil {
				t.Fatal(err)
			}
		} else {
			taken, err := o.take(region, data)
			if err != nil {
				t.Fatal(err)
			}
			some := false
			for i := range len(data) / page {
				if got := taken != nil && taken(i); got != fresh[first+i] {
					t.Fatalf("page %d: %t, want %t", first+i, got, !got)
				}
				if fresh[first+i] {
					copy(want[i*page:], has[first+i])
					some = true
				}
			}
			if some { // all of the region are taken then, those behind the end as well
				for i := range span / page {
					delete(fresh, first+i)
				}
			}
		}
		if !bytes.Equal(data, want) {
			t.Fatal("another content")
		}
		if o.len() != len(has) {
			t.Fatalf("%d pages, want %d", o.len(), len(has))
		}
	}
	if err := o.reset(); err != nil || o.len() != 0 {
		t.Error(err)
	}
	if taken, err := o.take(0, make([]byte, span)); taken != nil || err != nil {
		t.Error("something is left", err)
	}
	for _, bad := range []struct {
		number uint32
		data   []byte
	}{{0, make([]byte, page)}, {1, make([]byte, page-1)}} {
		if err := o.put(bad.number, bad.data); err == nil {
			t.Errorf("page %d of %d bytes was taken", bad.number, len(bad.data))
		}
	}
}

// TestOverlayFull has a disk that is full.
func TestOverlayFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	o := &overlay{file: full, page: 512, span: 64 << 10, regions: map[int]*marks{}}
	if err := o.put(1, make([]byte, 512)); err == nil || !strings.Contains(err.Error(), "no space") || !strings.Contains(err.Error(), "state directory") {
		t.Error(err)
	}
	if o.len() != 0 {
		t.Error("kept what could not be written")
	}
}

// TestOverlayLeavesRoom has a file system with less free than others need.
func TestOverlayLeavesRoom(t *testing.T) {
	o, err := newOverlay(t.TempDir(), 512, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.close() }()
	o.room.Leave = 1 << 62
	if err := o.put(1, make([]byte, 512)); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "needs room") {
		t.Errorf("%v", err)
	}
	if o.len() != 0 {
		t.Errorf("%d pages", o.len())
	}
}
