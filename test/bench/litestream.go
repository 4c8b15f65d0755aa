package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/test/bucket"
)

const (
	toolLitestream                      = "litestream"
	litestreamModule, litestreamPackage = "github.com/benbjohnson/litestream@v0.5.18", "./cmd/litestream"
)

// litestreamConfig writes the configuration of one database. Interval 0 is its default.
func litestreamConfig(path, database, endpoint, bucketName, prefix string, interval time.Duration) error {
	var b strings.Builder
	fmt.Fprintf(&b, "dbs:\n  - path: %s\n", database)
	if interval > 0 {
		fmt.Fprintf(&b, "    monitor-interval: %s\n", interval)
	}
	fmt.Fprintf(&b, "    replica:\n      type: s3\n      bucket: %s\n      path: %s\n      endpoint: %s\n      region: us-east-1\n      force-path-style: true\n",
		bucketName, prefix, endpoint)
	if interval > 0 {
		fmt.Fprintf(&b, "      sync-interval: %s\n", interval)
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

// litestreamEnv are the credentials in the names that it reads.
func litestreamEnv(s *bucket.S3) []string {
	env := s.Env()
	for _, e := range s.Env() {
		if name, value, _ := strings.Cut(e, "="); name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" {
			env = append(env, strings.Replace(name, "AWS_", "LITESTREAM_", 1)+"="+value)
		}
	}
	return env
}

// delivery says that all transactions up to a number were in the store at a time.
type delivery struct {
	at time.Time
	n  int64
}

// ltxFiles collects what arrives below a directory, in files that say which transaction is the newest in them. Files that
// litestream removes later were read before.
type ltxFiles struct {
	dir  string
	head uint32 // number of the page that has the newest transaction
	seen map[string]bool
	all  []delivery
}

// look reads files that were not read before.
func (f *ltxFiles) look() error {
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || f.seen[path] || !strings.HasSuffix(path, ".ltx") {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		f.seen[path] = true
		page, err := ltxPage(b, f.head)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if page == nil {
			return nil
		}
		n, err := headOf(page)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		f.all = append(f.all, delivery{info.ModTime(), n})
		return nil
	})
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

var errLTX = errors.New("not what an LTX file looks like")

// ltxPage returns a page of an LTX file; nil if it has none of that number. A file is a header of 100 bytes, pages, each
// with a header (number, and in newer ones flags and the size of what follows) and as an LZ4 frame or block, an index and
// a trailer: https://github.com/superfly/ltx.
func ltxPage(b []byte, number uint32) ([]byte, error) {
	const header = 100
	if len(b) < header || string(b[:4]) != "LTX1" {
		return nil, errLTX
	}
	size := int(binary.BigEndian.Uint32(b[8:]))
	for b = b[header:]; ; {
		if len(b) < ltxPageHeader {
			return nil, errLTX
		}
		n, flags := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:])
		if n == 0 {
			return nil, nil //nolint:nilnil // there is none
		}
		b = b[ltxPageHeader:]
		var page []byte
		var rest []byte
		var err error
		if flags&ltxSized != 0 {
			if len(b) < 4 {
				return nil, errLTX
			}
			length := int(binary.BigEndian.Uint32(b))
			if b = b[4:]; length > len(b) {
				return nil, errLTX
			}
			page, err = lz4Block(b[:length], size)
			rest = b[length:]
		} else {
			page, rest, err = lz4Frame(b, size)
		}
		if err != nil {
			return nil, err
		}
		if n == number {
			return page, nil
		}
		b = rest
	}
}

const (
	ltxPageHeader = 6
	ltxSized      = 1 // a block whose size stands before it
)

// lz4Frame decodes an LZ4 frame (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md) and returns what follows it.
func lz4Frame(b []byte, size int) (plain, rest []byte, err error) {
	if len(b) < 7 || binary.LittleEndian.Uint32(b) != 0x184d2204 {
		return nil, nil, errLTX
	}
	flags := b[4]
	at := 7
	if flags&8 != 0 {
		at += 8 // size of the content
	}
	if flags&1 != 0 {
		at += 4 // dictionary
	}
	for {
		if at+4 > len(b) {
			return nil, nil, errLTX
		}
		length := binary.LittleEndian.Uint32(b[at:])
		at += 4
		if length == 0 {
			break
		}
		n := int(length &^ (1 << 31))
		if at+n > len(b) {
			return nil, nil, errLTX
		}
		if length>>31 == 1 {
			plain = append(plain, b[at:at+n]...)
		} else {
			block, err := lz4Block(b[at:at+n], size)
			if err != nil {
				return nil, nil, err
			}
			plain = append(plain, block...)
		}
		at += n
		if flags&16 != 0 {
			at += 4 // checksum of the block
		}
	}
	if flags&4 != 0 {
		at += 4 // checksum of the content
	}
	if at > len(b) {
		return nil, nil, errLTX
	}
	return plain, b[at:], nil
}

// lz4Block decodes an LZ4 block of up to size bytes: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md.
func lz4Block(b []byte, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	length := func(n int) (int, bool) {
		if n < 15 {
			return n, true
		}
		for len(b) > 0 {
			c := b[0]
			b = b[1:]
			if n += int(c); c < 255 {
				return n, true
			}
		}
		return 0, false
	}
	for len(b) > 0 {
		token := b[0]
		b = b[1:]
		literals, ok := length(int(token >> 4))
		if !ok || literals > len(b) {
			return nil, errLTX
		}
		out = append(out, b[:literals]...)
		if b = b[literals:]; len(b) == 0 {
			break // the last sequence has literals only
		}
		if len(b) < 2 {
			return nil, errLTX
		}
		offset := int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		match, ok := length(int(token & 15))
		if !ok || offset == 0 || offset > len(out) || len(out)+match+4 > size {
			return nil, errLTX
		}
		for range match + 4 {
			out = append(out, out[len(out)-offset])
		}
	}
	return out, nil
}

// headOf reads the newest transaction from the page of the writer's table head: a leaf with one row of two columns, of which
// the first is the row's number (https://www.sqlite.org/fileformat2.html).
func headOf(page []byte) (int64, error) {
	if len(page) < 512 || page[0] != 13 || binary.BigEndian.Uint16(page[3:]) != 1 {
		return 0, errors.New("not the page of table head")
	}
	at := int(binary.BigEndian.Uint16(page[8:]))
	if at+5 > len(page) {
		return 0, errors.New("not a row of table head")
	}
	// Sizes are all below 128: length of the record, number of the row, length of its head, types of two columns.
	cell := page[at:]
	if cell[2] != 3 {
		return 0, errors.New("not a row of table head")
	}
	kind, value := cell[4], cell[5:]
	switch kind {
	case 8, 9:
		return int64(kind - 8), nil
	case 1, 2, 3, 4, 5, 6:
		width := map[byte]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}[kind]
		if width > len(value) {
			return 0, errors.New("not a row of table head")
		}
		var n int64
		for _, c := range value[:width] {
			n = n<<8 | int64(c)
		}
		return n, nil
	}
	return 0, errors.New("not a number in table head")
}
