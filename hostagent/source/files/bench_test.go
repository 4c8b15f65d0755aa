package files

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// compressing is a session that does the work of a real one on chunks, and throws the result away.
type compressing struct {
	*fakeSession
	encoders chan *zstd.Encoder
	aead     cipher.AEAD
}

func newCompressing(s *fakeSession) *compressing {
	c := &compressing{fakeSession: s, encoders: make(chan *zstd.Encoder, 8)}
	for range cap(c.encoders) {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err)
		}
		c.encoders <- e
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	if c.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	return c
}

func (c *compressing) Chunk(ctx context.Context, kind snapshot.Kind, plain []byte) (snapshot.Ref, error) {
	ref, err := c.fakeSession.Chunk(ctx, kind, plain)
	c.mu.Lock()
	c.chunks[ref.ID] = nil
	c.mu.Unlock()
	e := <-c.encoders
	out := e.EncodeAll(plain, nil)
	c.encoders <- e
	c.aead.Seal(out[:0], make([]byte, 12), out, nil)
	return ref, err
}

// BenchmarkCapture captures the source of Go: the first time, and when nothing has changed since.
func BenchmarkCapture(b *testing.B) {
	o := Options{Roots: []string{filepath.Join(runtime.GOROOT(), "src")}} //nolint:staticcheck // the tree is only an example
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			benchmark(b, newCompressing(newSession()), o)
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		s := newSession()
		benchmark(b, s, o)
		for b.Loop() {
			benchmark(b, newCompressing(s.child(time.Now().Add(time.Hour))), o)
		}
	})
	b.Run("scan", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := Scan(b.Context(), o); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmark(b *testing.B, s Session, o Options) {
	r, err := Capture(b.Context(), o, s, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(r.Counts.Bytes))
	b.ReportMetric(float64(r.Counts.Files), "files")
}
