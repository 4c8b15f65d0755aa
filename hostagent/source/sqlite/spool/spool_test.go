package spool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/spool"
)

func page(size int, version uint64) []byte {
	b := make([]byte, size)
	for at := 0; at < size; at += 8 {
		binary.BigEndian.PutUint64(b[at:], version+uint64(at))
	}
	return b
}

// TestAgainstMap does what a map does, in memory and in a file.
func TestAgainstMap(t *testing.T) {
	const size = 512
	for _, memory := range []int64{-1, 10 * size, 1 << 20} {
		random := rand.New(rand.NewPCG(1, uint64(memory)))
		s := spool.New(spool.Options{Dir: t.TempDir(), Memory: memory})
		want, staged := map[uint32]uint64{}, map[uint32]uint64{}
		for step := range 20000 {
			switch random.IntN(100) {
			case 0:
				s.Keep()
				maps.Copy(want, staged)
				clear(staged)
			case 1:
				s.Drop()
				clear(staged)
			case 2:
				if random.IntN(20) == 0 {
					s.Reset()
					clear(want)
					clear(staged)
				}
			case 3:
				limit := 100 + random.Uint32N(60)
				s.Trim(limit)
				maps.DeleteFunc(want, func(n uint32, _ uint64) bool { return n > limit })
			default:
				n := 1 + random.Uint32N(150)
				staged[n] = uint64(step) << 20
				if err := s.Put(n, page(size, staged[n])); err != nil {
					t.Fatal(err)
				}
			}
			if step%500 == 0 {
				compare(t, s, want, size)
			}
		}
		s.Keep()
		maps.Copy(want, staged)
		compare(t, s, want, size)
		s.Close()
		if err := s.Put(1, page(size, 1)); !errors.Is(err, os.ErrClosed) || s.Len() > 0 {
			t.Errorf("%d pages after the end, %v", s.Len(), err)
		}
	}
}

func compare(t *testing.T, s *spool.Spool, want map[uint32]uint64, size int) {
	t.Helper()
	if s.Len() != len(want) {
		t.Fatalf("%d pages, want %d", s.Len(), len(want))
	}
	var order []uint32
	err := s.Each(func(n uint32, b []byte) error {
		order = append(order, n)
		if !bytes.Equal(b, page(size, want[n])) {
			t.Fatalf("page %d is another", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(order) || len(order) != len(want) {
		t.Fatalf("pages in the order %v", order)
	}
	buf := make([]byte, size)
	for n := range uint32(200) {
		v, there := want[n]
		ok, err := s.Get(n, buf)
		if err != nil || ok != there || ok && !bytes.Equal(buf, page(size, v)) {
			t.Fatalf("page %d: %v, %v", n, ok, err)
		}
	}
}

func TestFull(t *testing.T) {
	s := spool.New(spool.Options{Dir: t.TempDir(), Memory: 1024, Disk: 1024})
	for n := range uint32(4) {
		if err := s.Put(n+1, page(512, 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Keep()
	if err := s.Put(9, page(512, 1)); !errors.Is(err, spool.ErrFull) {
		t.Fatalf("the fifth page: %v", err)
	}
	s.Drop()
	if s.Len() != 4 {
		t.Errorf("%d pages", s.Len())
	}
	if err := s.Put(1, page(1024, 1)); err == nil {
		t.Error("a page of another size was taken")
	}
	s.Reset()
	if err := s.Put(1, page(1024, 1)); err != nil {
		t.Errorf("of another size after Reset: %v", err)
	}
}

// TestLeavesRoom has a file system with less free than others need.
func TestLeavesRoom(t *testing.T) {
	s := spool.New(spool.Options{Dir: t.TempDir(), Memory: 1024, Leave: 1 << 62})
	for n := range uint32(2) {
		if err := s.Put(n+1, page(512, 1)); err != nil {
			t.Fatalf("in memory: %v", err)
		}
	}
	s.Keep()
	if err := s.Put(3, page(512, 1)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on disk: %v", err)
	}
	s.Drop()
	compare(t, s, map[uint32]uint64{1: 1, 2: 1}, 512)
}

// TestNoName wants that nothing of a process that is killed stays.
func TestNoName(t *testing.T) {
	dir := t.TempDir()
	s := spool.New(spool.Options{Dir: dir, Memory: -1})
	if err := s.Put(1, page(512, 1)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	other := spool.New(spool.Options{Dir: dir})
	if err := other.Put(1, page(512, 7)); err != nil {
		t.Fatal(err)
	}
	other.Keep()
	if err := s.Add(other); err != nil {
		t.Fatal(err)
	}
	compare(t, s, map[uint32]uint64{1: 7}, 512)
}
