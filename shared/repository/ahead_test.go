package repository

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGroups(t *testing.T) {
	small := func(int) uint32 { return 1000 }
	for name, test := range map[string]struct {
		n     int
		plain func(int) uint32
		want  [][2]int
	}{
		"none":   {0, small, nil},
		"few":    {3, small, [][2]int{{0, 3}}},
		"growth": {30, small, [][2]int{{0, 4}, {4, 12}, {12, 28}, {28, 30}}},
		"large":  {3, func(int) uint32 { return 300 << 10 }, [][2]int{{0, 1}, {1, 2}, {2, 3}}},
		"mixed":  {4, func(i int) uint32 { return uint32(i%2) * groupBytes }, [][2]int{{0, 3}, {3, 4}}},
	} {
		if d := cmp.Diff(test.want, groups(test.n, test.plain)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, g := range groups(1000, small)[5:] {
		if g[1]-g[0] > groupMost {
			t.Errorf("a group of %d", g[1]-g[0])
		}
	}
}

// TestAhead sees the order of results, how much is read before it is needed, and that nothing goes on after the end.
func TestAhead(t *testing.T) {
	var begun, under atomic.Int64
	read := func(ctx context.Context, i int) (int, error) {
		under.Add(1)
		defer under.Add(-1)
		begun.Add(1)
		if i == 7 {
			return 0, errors.New("seven")
		}
		return i, ctx.Err()
	}
	var got []int
	var fault error
	ahead(t.Context(), 20, read, func(i int, err error) bool {
		if err != nil {
			fault = err
			return true
		}
		if most := int64(1 + min(len(got), 1)*(len(got)+groupsAhead)); begun.Load() > most {
			t.Errorf("%d reads have begun when result %d is used, want at most %d", begun.Load(), i, most)
		}
		got = append(got, i)
		return true
	})
	if d := cmp.Diff([]int{0, 1, 2, 3, 4, 5, 6}, got); d != "" || fault == nil || fault.Error() != "seven" {
		t.Errorf("got %v, %v", got, fault)
	}
	begun.Store(0)
	ahead(t.Context(), 20, read, func(int, error) bool { return false })
	if begun.Load() != 1 || under.Load() != 0 {
		t.Errorf("%d reads for one result, %d still under way", begun.Load(), under.Load())
	}
}

func TestFreeList(t *testing.T) {
	l := freeList{most: 2}
	a, b, c := l.get(10), l.get(100), l.get(1000)
	l.put(a)
	l.put(b)
	l.put(c) // too many
	if got := l.get(50); got != b || len(*got) != 50 {
		t.Errorf("got %d of %d bytes, want the smallest that has room", len(*got), cap(*got))
	}
	if got := l.get(50); got != a || len(*got) != 50 {
		t.Error("want the one that is left, grown")
	}
	huge := make([]byte, keptMost+1)
	l.put(&huge)
	if got := l.get(1); got == &huge {
		t.Error("a huge buffer was kept")
	}
}
