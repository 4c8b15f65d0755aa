package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	frameHead   = 5         // type (u8) and length (u32 BE, which counts itself)
	frameBuffer = 256 << 10 // a server sends at most 128 KiB of WAL, or 32 KiB of a backup, at once
	maxFrame    = 64 << 20  // of what is no data: rows, errors
)

// frames reads messages of the protocol from a connection. It is the reader of pgproto3's frontend, to which it never gives
// more than what is left of one message, so that the frontend holds nothing back and the next message can be read from here
// just as well: in place, without a copy, and in large steps.
type frames struct {
	r      io.Reader
	buf    []byte
	rp, wp int
	left   int // of the message that the frontend is reading
}

func newFrames(r io.Reader) *frames { return &frames{r: r, buf: make([]byte, frameBuffer)} }

// Read gives the frontend what it may have.
func (f *frames) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.left == 0 {
		_, n, err := f.head()
		if err != nil {
			return 0, err
		}
		f.left = frameHead + n
	}
	if f.rp == f.wp {
		if err := f.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p[:min(len(p), f.left)], f.buf[f.rp:f.wp])
	f.rp += n
	f.left -= n
	return n, nil
}

// next reads a message. Its body is valid until the next call.
func (f *frames) next() (kind byte, body []byte, err error) {
	if f.left != 0 {
		return 0, nil, errors.New("the connection is in the middle of a message")
	}
	kind, n, err := f.head()
	if err != nil {
		return 0, nil, err
	}
	if err := f.fill(frameHead + n); err != nil {
		return 0, nil, cut(err)
	}
	body = f.buf[f.rp+frameHead : f.rp+frameHead+n]
	f.rp += frameHead + n
	return kind, body, nil
}

// head looks at the next message's type and the length of its body.
func (f *frames) head() (kind byte, length int, err error) {
	if err := f.fill(frameHead); err != nil {
		if f.rp < f.wp {
			err = cut(err)
		}
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(f.buf[f.rp+1:])
	if n < 4 || n-4 > maxFrame {
		return 0, 0, fmt.Errorf("message %q of %d bytes: this is no PostgreSQL server, or the connection is disturbed", f.buf[f.rp], n)
	}
	return f.buf[f.rp], int(n) - 4, nil
}

// fill reads until n bytes are there. Errors: io.EOF, also after some of them.
func (f *frames) fill(n int) error {
	if f.wp-f.rp >= n {
		return nil
	}
	if f.rp == f.wp {
		f.rp, f.wp = 0, 0
	}
	if len(f.buf)-f.rp < n {
		buf := f.buf
		if len(buf) < n {
			buf = make([]byte, n)
		}
		f.wp = copy(buf, f.buf[f.rp:f.wp])
		f.buf, f.rp = buf, 0
	}
	for f.wp-f.rp < n {
		m, err := f.r.Read(f.buf[f.wp:])
		f.wp += m
		if err != nil && f.wp-f.rp < n {
			return err
		}
	}
	return nil
}

// cut is what an end in the middle of a message is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
