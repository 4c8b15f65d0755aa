package seal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"chunk ", "pack ", "manifest ", "snapshot ", "retention ", "\n"}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
	}
	return b[:n]
}

func TestCodecRoundTrip(t *testing.T) {
	c := NewCodec()
	for _, n := range []int{0, 1, 15, 16, 17, 100, 4096, trialFrom - 1, trialFrom, 1 << 20, 5 << 20, snapshot.MaxChunk} {
		for name, plain := range map[string][]byte{"noise": noise(n), "text": text(n), "zeros": make([]byte, n)} {
			encoded := c.Compress([]byte("before"), plain)[6:]
			if len(encoded) > n+1 {
				t.Errorf("%d bytes of %s: encoded in %d", n, name, len(encoded))
			}
			if name != "noise" && n > 1000 && len(encoded) > n/2 {
				t.Errorf("%d bytes of %s: compressed to %d", n, name, len(encoded))
			}
			got, err := c.Decompress([]byte("before"), encoded, n)
			if err != nil || !bytes.Equal(got[6:], plain) || string(got[:6]) != "before" {
				t.Fatalf("%d bytes of %s: %v", n, name, err)
			}
			if _, err := c.Decompress(nil, encoded, n+1); !errors.Is(err, ErrEncoding) {
				t.Errorf("%d bytes of %s as %d: %v", n, name, n+1, err)
			}
			if n > 0 {
				if _, err := c.Decompress(nil, encoded, n-1); !errors.Is(err, ErrEncoding) {
					t.Errorf("%d bytes of %s as %d: %v", n, name, n-1, err)
				}
			}
		}
	}
}

// TestNoiseRepeats checks that what looks like noise but repeats is compressed all the same.
func TestNoiseRepeats(t *testing.T) {
	plain := bytes.Repeat(noise(10_000), 100)
	if n := len(NewCodec().Compress(nil, plain)); n > len(plain)/10 {
		t.Fatalf("%d bytes compressed to %d", len(plain), n)
	}
}

func zstdFrame(t testing.TB, plain []byte, options ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(plain, nil)
}

// streamFrame is a frame that does not tell its content's size, and has a checksum, as other writers make them.
func streamFrame(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), 1000)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForeignFrames opens frames of other writers.
func TestForeignFrames(t *testing.T) {
	c, plain := NewCodec(), text(500_000)
	for name, frame := range map[string][]byte{
		"best": zstdFrame(t, plain, zstd.WithEncoderLevel(zstd.SpeedBestCompression)),
		"sum":  zstdFrame(t, plain, zstd.WithEncoderCRC(true)),
		"size": streamFrame(t, plain),
	} {
		got, err := c.Decompress(nil, append([]byte{methodZstd}, frame...), len(plain))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecompressRefuses(t *testing.T) {
	c, plain := NewCodec(), text(10_000)
	frame := zstdFrame(t, plain)
	half := zstdFrame(t, plain[:5000])
	zstdOf := func(parts ...[]byte) []byte { return append([]byte{methodZstd}, bytes.Join(parts, nil)...) }
	for name, encoded := range map[string][]byte{
		"empty":           {},
		"method":          append([]byte{2}, plain...),
		"no frame":        zstdOf(),
		"stored as zstd":  zstdOf(plain),
		"truncated":       zstdOf(frame[:len(frame)-1]),
		"trailing byte":   zstdOf(frame, []byte{0}),
		"two frames":      zstdOf(half, zstdFrame(t, plain[5000:])),
		"empty frame":     zstdOf(frame, zstdFrame(t, nil, zstd.WithZeroFrames(true))),
		"skippable first": zstdOf([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, frame),
		"skippable last":  zstdOf(frame, []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}),
		"dictionary":      zstdOf(zstdFrame(t, plain, zstd.WithEncoderDictRaw(7, []byte("a dictionary of some words")))),
		"longer frame":    zstdOf(zstdFrame(t, noise(10_000))),
	} {
		if got, err := c.Decompress(nil, encoded, len(plain)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for _, n := range []int{-1, snapshot.MaxChunk + 1} {
		if _, err := c.Decompress(nil, zstdOf(frame), n); !errors.Is(err, ErrEncoding) {
			t.Errorf("plain length %d: %v", n, err)
		}
	}
}

// TestDecompressBomb gives frames of 64 MiB for chunks of 64 KiB: they must cost no memory to speak of.
func TestDecompressBomb(t *testing.T) {
	c := NewCodec()
	zeros := make([]byte, 64<<20)
	for name, frame := range map[string][]byte{"told": zstdFrame(t, zeros), "untold": streamFrame(t, zeros)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.Decompress(nil, append([]byte{methodZstd}, frame...), 64<<10)
		runtime.ReadMemStats(&after)
		if reserved := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrEncoding) || reserved > 4<<20 {
			t.Errorf("%s: %v, %d bytes reserved", name, err, reserved)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	c := NewCodec()
	for _, plain := range [][]byte{nil, []byte("abc"), text(300), make([]byte, 5000)} {
		f.Add(c.Compress(nil, plain), uint32(len(plain)))
		f.Add(append([]byte{methodZstd}, streamFrame(f, plain)...), uint32(len(plain)))
	}
	f.Fuzz(func(t *testing.T, encoded []byte, plainLen uint32) {
		got, err := c.Decompress(nil, encoded, int(plainLen%(1<<20)))
		switch {
		case err != nil && !errors.Is(err, ErrEncoding):
			t.Fatalf("%v is no ErrEncoding", err)
		case err == nil && len(got) != int(plainLen%(1<<20)):
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func FuzzCompress(f *testing.F) {
	c := NewCodec()
	f.Add([]byte("some content"), uint16(3))
	f.Fuzz(func(t *testing.T, plain []byte, repeat uint16) {
		plain = bytes.Repeat(plain, int(repeat)%100)
		encoded := c.Compress(nil, plain)
		if got, err := c.Decompress(nil, encoded, len(plain)); err != nil || !bytes.Equal(got, plain) || len(encoded) > len(plain)+1 {
			t.Fatalf("%d bytes in %d: %v", len(plain), len(encoded), err)
		}
	})
}

func benchmarkCompress(b *testing.B, plain []byte) {
	c := NewCodec()
	dst := make([]byte, 0, 2*len(plain))
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		c.Compress(dst, plain)
	}
}

func BenchmarkCompressText(b *testing.B)  { benchmarkCompress(b, text(1<<20)) }
func BenchmarkCompressNoise(b *testing.B) { benchmarkCompress(b, noise(1<<20)) }

func BenchmarkDecompress(b *testing.B) {
	c, plain := NewCodec(), text(1<<20)
	encoded := c.Compress(nil, plain)
	dst := make([]byte, 0, len(plain))
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Decompress(dst, encoded, len(plain)); err != nil {
			b.Fatal(err)
		}
	}
}
