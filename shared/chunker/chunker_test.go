package chunker

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// table returns a fixed gear table.
func table() *[256]uint64 {
	r := rand.New(rand.NewPCG(1, 2))
	var t [256]uint64
	for i := range t {
		t[i] = r.Uint64()
	}
	return &t
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// lengths cuts all of data.
func lengths(c *Chunker, data []byte) (list []int) {
	for len(data) > 0 {
		n := c.Cut(data)
		list = append(list, n)
		data = data[n:]
	}
	return list
}

// plainCut is the definition, byte by byte, without any of the tricks of Cut.
func plainCut(c *Chunker, data []byte) int {
	n := min(len(data), c.sizes.Max)
	for i := c.sizes.Min + 1; i <= n; i++ {
		hash := uint64(0)
		for _, b := range data[max(0, i-window):i] {
			hash = hash<<1 + c.gear[b]
		}
		limit := c.loose
		if i <= c.sizes.Avg {
			limit = c.strict
		}
		if hash < limit {
			return i
		}
	}
	return n
}

func TestDefinition(t *testing.T) {
	c := New(table(), Sizes{Min: 64, Avg: 256, Max: 1024})
	for seed := range byte(20) {
		for data := noise(seed, 20_000); len(data) > 0; {
			n := c.Cut(data)
			if want := plainCut(c, data); n != want {
				t.Fatalf("seed %d: chunk of %d bytes, want %d", seed, n, want)
			}
			data = data[n:]
		}
	}
}

// TestPlaces pins where content is cut: a version that cuts elsewhere would store everything again.
func TestPlaces(t *testing.T) {
	want := []int{1074931, 1980694, 1851087, 1242774, 1103442, 1103591, 1149276, 1593297, 1483820}
	got := lengths(New(table(), Default()), noise(1, 12<<20))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestBounds(t *testing.T) {
	s := Default()
	c := New(table(), s)
	for _, n := range []int{0, 1, 63, 64, s.Min - 1, s.Min} {
		if got := c.Cut(noise(1, n)); got != n {
			t.Errorf("content of %d bytes cut at %d", n, got)
		}
	}
	for name, data := range map[string][]byte{"noise": noise(2, 24<<20), "zeros": make([]byte, 24<<20)} {
		list := lengths(c, data)
		sum := 0
		for i, n := range list {
			sum += n
			if n > s.Max || n < s.Min && i < len(list)-1 {
				t.Errorf("%s: chunk of %d bytes", name, n)
			}
		}
		if avg := sum / len(list); sum != len(data) || name == "noise" && (avg < s.Avg*3/4 || avg > s.Avg*3/2) {
			t.Errorf("%s: %d bytes in %d chunks", name, sum, len(list))
		}
	}
}

// TestBuffered checks that the caller may hand in any number of bytes from Max on.
func TestBuffered(t *testing.T) {
	c := New(table(), Default())
	data := noise(3, 20<<20)
	for len(data) > 0 {
		n := c.Cut(data)
		if got := c.Cut(data[:min(len(data), Default().Max)]); got != n {
			t.Fatalf("cut at %d with Max bytes, at %d with all", got, n)
		}
		data = data[n:]
	}
}

// TestInsertion checks what the package is for: an insertion changes only the chunks around it.
func TestInsertion(t *testing.T) {
	c := New(table(), Default())
	data := noise(4, 32<<20)
	changed := append(append(append([]byte(nil), data[:10<<20]...), "inserted"...), data[10<<20:]...)
	known := map[[32]byte]bool{}
	count := func(data []byte) (fresh int) {
		for len(data) > 0 {
			n := c.Cut(data)
			if h := sha256.Sum256(data[:n]); !known[h] {
				known[h] = true
				fresh++
			}
			data = data[n:]
		}
		return fresh
	}
	total := count(data)
	if fresh := count(changed); fresh == 0 || fresh > 4 {
		t.Fatalf("%d of %d chunks are new after an insertion", fresh, total)
	}
}

// TestKeyed checks that another table cuts elsewhere.
func TestKeyed(t *testing.T) {
	other := table()
	other[0]++
	data := noise(5, 16<<20)
	if cmp.Equal(lengths(New(table(), Default()), data), lengths(New(other, Default()), data)) {
		t.Fatal("the table does not matter")
	}
}

func TestSizes(t *testing.T) {
	for _, s := range []Sizes{{}, {63, 256, 1024}, {64, 255, 1024}, {256, 256, 1024}, {64, 256, 256}, {64, 1 << 31, 1 << 32}} {
		if s.Check() == nil {
			t.Errorf("%v pass", s)
		}
	}
	if err := Default().Check(); err != nil {
		t.Error(err)
	}
}

func FuzzCut(f *testing.F) {
	c := New(table(), Sizes{Min: 64, Avg: 256, Max: 1024})
	f.Add(noise(1, 300))
	f.Add(make([]byte, 300))
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			n := c.Cut(data)
			if n != plainCut(c, data) {
				t.Fatalf("chunk of %d bytes, want %d", n, plainCut(c, data))
			}
			data = data[n:]
		}
	})
}

func BenchmarkCut(b *testing.B) {
	c := New(table(), Default())
	data := noise(1, 64<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			rest = rest[c.Cut(rest):]
		}
	}
}
