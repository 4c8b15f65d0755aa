package verify

import (
	"testing"
	"unsafe"
)

// TestMemoryPerChunk: what is kept of each chunk bounds the memory of a run.
func TestMemoryPerChunk(t *testing.T) {
	if n := unsafe.Sizeof(chunkEntry{}); n > 40 {
		t.Errorf("%d bytes for each chunk", n)
	}
}
