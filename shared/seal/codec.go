package seal

import (
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// The methods by which chunks are encoded.
const (
	methodStored = 0 // the plain bytes themselves
	methodZstd   = 1 // exactly one zstd frame
)

// ErrEncoding says that the encoding of a chunk is not what docs/format.md specifies.
var ErrEncoding = errors.New("chunk is not encoded as specified")

// Codec compresses and decompresses chunks. Make one with [NewCodec]; calls work in their caller's goroutine, as many at
// a time as there are processors.
type Codec struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// NewCodec returns a codec. It starts nothing and needs no closing; its memory is bounded by a few MiB per processor.
func NewCodec() *Codec {
	n := runtime.GOMAXPROCS(0)
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(n),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(4<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("seal: zstd encoder: " + err.Error()) // only for options out of range
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(snapshot.MaxChunk), zstd.WithDecoderMaxWindow(snapshot.MaxChunk), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("seal: zstd decoder: " + err.Error())
	}
	return &Codec{encoder: encoder, decoder: decoder}
}

// Compress appends the encoding of a chunk to dst: a method byte and a body, at most one byte longer than plain.
func (c *Codec) Compress(dst, plain []byte) []byte {
	start := len(dst)
	if c.pays(plain, dst[start:]) {
		dst = c.encoder.EncodeAll(plain, append(dst, methodZstd))
		if body := len(dst) - start - 1; gains(body, len(plain)) {
			return dst
		}
	}
	return append(append(dst[:start], methodStored), plain...)
}

// gains reports whether compression to n bytes is worth the time that reading takes for it.
func gains(n, plain int) bool { return n < plain-plain/50 }

const (
	trialFrom  = 128 << 10 // chunks from this size on are tried before they are compressed
	trialSize  = 32 << 10
	trialParts = 16
)

// pays guesses whether a chunk can be compressed. Where samples of it look like noise, and a part from its middle does not
// shrink, all of it is stored: media, archives and encrypted data then cost little. room is empty; its capacity may be used.
func (c *Codec) pays(plain, room []byte) bool {
	if len(plain) < 16 {
		return false
	}
	if len(plain) < trialFrom || !noisy(plain) {
		return true
	}
	middle := plain[len(plain)/2:][:trialSize]
	return gains(len(c.encoder.EncodeAll(middle, room)), trialSize)
}

// noisy reports whether samples of plain have an entropy of more than 7.9 bits per byte.
func noisy(plain []byte) bool {
	const part = 1 << 10
	var counts [256]uint32
	step := (len(plain) - part) / (trialParts - 1)
	for i := range trialParts {
		for _, b := range plain[i*step:][:part] {
			counts[b]++
		}
	}
	const total = float64(part * trialParts)
	entropy := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / total
			entropy -= p * math.Log2(p)
		}
	}
	return entropy > 7.9
}

// Decompress appends the plain chunk to dst. It must have exactly plainLen bytes; neither more memory nor more time is
// spent on one that has others.
func (c *Codec) Decompress(dst, encoded []byte, plainLen int) ([]byte, error) {
	if len(encoded) == 0 || plainLen < 0 || plainLen > snapshot.MaxChunk {
		return nil, fmt.Errorf("%w: %d bytes for %d", ErrEncoding, len(encoded), plainLen)
	}
	body := encoded[1:]
	switch encoded[0] {
	case methodStored:
		if len(body) != plainLen {
			return nil, fmt.Errorf("%w: %d bytes where %d are due", ErrEncoding, len(body), plainLen)
		}
		return append(dst, body...), nil
	case methodZstd:
		if len(body) > plainLen {
			return nil, fmt.Errorf("%w: frame of %d bytes for %d", ErrEncoding, len(body), plainLen)
		}
		return c.unzstd(dst, body, plainLen)
	}
	return nil, fmt.Errorf("%w: method %d", ErrEncoding, encoded[0])
}

func (c *Codec) unzstd(dst, frame []byte, plainLen int) ([]byte, error) {
	if err := checkFrame(frame, plainLen); err != nil {
		return nil, err
	}
	start := len(dst)
	if cap(dst)-start < plainLen {
		grown := make([]byte, start, start+plainLen)
		copy(grown, dst)
		dst = grown
	}
	// The decoder never writes past the capacity.
	out, err := c.decoder.DecodeAll(frame, dst[:start:start+plainLen])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	if len(out)-start != plainLen {
		return nil, fmt.Errorf("%w: %d bytes where %d are due", ErrEncoding, len(out)-start, plainLen)
	}
	return out, nil
}

// checkFrame walks the blocks of a frame without decoding them: body must be exactly one frame, without a dictionary, and
// if it tells its content's size, that must be right. The decoder itself would also take several frames, or skip some.
func checkFrame(body []byte, plainLen int) error {
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	if h.Skippable || h.DictionaryID != 0 || h.HasFCS && h.FrameContentSize != uint64(plainLen) {
		return fmt.Errorf("%w: frame of %d bytes where %d are due, or not of plain data", ErrEncoding, h.FrameContentSize, plainLen)
	}
	rest := body[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return fmt.Errorf("%w: truncated frame", ErrEncoding)
		}
		header := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
		last = header&1 != 0
		size := header >> 3
		if header>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		if len(rest)-3 < size {
			return fmt.Errorf("%w: truncated frame", ErrEncoding)
		}
		rest = rest[3+size:]
	}
	if h.HasCheckSum && len(rest) >= 4 {
		rest = rest[4:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes after the frame", ErrEncoding, len(rest))
	}
	return nil
}
