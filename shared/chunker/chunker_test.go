package chunker

import (
	"math/rand/v2"
	"testing"
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

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func BenchmarkCut(b *testing.B) {
	c := New(table(), Default())
	data := noise(1, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			rest = rest[c.Cut(rest):]
		}
	}
}
