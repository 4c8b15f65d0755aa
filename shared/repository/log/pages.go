package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxPosition is the longest position of a tail, in bytes.
const maxPosition = 64 << 10

// Record is one record of a log. Of kind [KindSQLite] it holds pages of the database as they are after the newest commit,
// each once. Where More is true the pages alone are no state of the database: it goes on in the records that follow, up to
// the first without More. Of kind [KindPostgres] it holds either WAL or a history.
type Record struct {
	Place    Place     // that it has; not for Append
	Sequence uint64    // that it has; not for Append
	Time     time.Time // of the newest commit, by the writer's clock; of WAL, by the server's: no commit in it or before it is later, and all until then are there
	More     bool      // not for Append, which splits large records itself

	PageSize uint32 // bytes: a power of two from 512 to 65536
	Pages    uint32 // of the database, after the newest commit
	Position []byte // of the tail, opaque; at most 64 KiB
	// Each calls yield with the pages, ascending by number. What yield gets is valid until it returns. For Append it must
	// be repeatable.
	Each func(yield func(number uint32, page []byte) error) error

	WAL     *WAL     // of kind [KindPostgres]: this, or
	History *History // this
}

func checkPageSize(n uint64) error {
	if n < 512 || n > 65536 || n&(n-1) != 0 {
		return fmt.Errorf("%w: pages of %d bytes", snapshot.ErrFormat, n)
	}
	return nil
}

// header appends what comes before the pages of a body, but for their count.
func (r *Record) header(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.PageSize))
	dst = binary.AppendUvarint(dst, uint64(r.Pages))
	dst = binary.AppendUvarint(dst, uint64(len(r.Position)))
	return append(dst, r.Position...)
}

// bodies cuts the record into bodies of at most about splitAt bytes and gives them to emit in order; last is the one
// that ends it. A body is valid until emit returns.
func (r *Record) bodies(emit func(body []byte, last bool) error) error {
	if r.WAL != nil || r.History != nil {
		return emit(r.appendWAL(nil), true)
	}
	if err := checkPageSize(uint64(r.PageSize)); err != nil {
		return err
	}
	if len(r.Position) > maxPosition {
		return fmt.Errorf("position of %d bytes", len(r.Position))
	}
	header := r.header(nil)
	var pages, body []byte
	count, last := 0, uint32(0)      // of the body
	before, some := uint32(0), false // of the whole record
	flush := func(end bool) error {
		body = append(body[:0], header...)
		body = binary.AppendUvarint(body, uint64(count))
		body = append(body, pages...)
		pages, count, last = pages[:0], 0, 0
		return emit(body, end)
	}
	err := r.Each(func(number uint32, page []byte) error {
		switch {
		case number == 0 || some && number <= before:
			return fmt.Errorf("page %d comes after page %d", number, before)
		case len(page) != int(r.PageSize):
			return fmt.Errorf("page %d has %d bytes, not %d", number, len(page), r.PageSize)
		}
		before, some = number, true
		if len(pages)+len(page) > splitAt && count > 0 {
			if err := flush(false); err != nil {
				return err
			}
		}
		pages = binary.AppendUvarint(pages, uint64(number-last))
		pages = append(pages, page...)
		count, last = count+1, number
		return nil
	})
	if err != nil {
		return err
	}
	return flush(true)
}

// decodePages parses the body of a record of kind sqlite into r; all of it is checked, and the pages alias it.
func decodePages(body []byte, r *Record) error {
	d := decoder{b: body}
	size, total := d.uvarint(), d.uvarint()
	if d.err == nil {
		if d.err = checkPageSize(size); d.err == nil && total > math.MaxUint32 {
			d.fail("database of %d pages", total)
		}
	}
	position := d.uvarint()
	if d.err == nil && position > maxPosition {
		d.fail("position of %d bytes", position)
	}
	r.Position = d.bytes(int(min(position, math.MaxInt32)))
	count := d.uvarint()
	if d.err == nil && count > uint64(len(body)-d.off)/(size+1) {
		d.fail("%d pages of %d bytes do not fit in %d", count, size, len(body)-d.off)
	}
	if d.err != nil {
		return fmt.Errorf("decode pages: %w", d.err)
	}
	r.PageSize, r.Pages = uint32(size), uint32(total)
	start := d.off
	if err := walkPages(body[start:], int(size), count, nil); err != nil {
		return fmt.Errorf("decode pages: %w", err)
	}
	r.Each = func(yield func(uint32, []byte) error) error { return walkPages(body[start:], int(size), count, yield) }
	return nil
}

var errTrailing = errors.New("bytes after the last page")

func walkPages(b []byte, size int, count uint64, yield func(uint32, []byte) error) error {
	d := decoder{b: b}
	number := uint64(0)
	for range count {
		delta := d.uvarint()
		page := d.bytes(size)
		number += delta
		if d.err == nil && (delta == 0 || delta > math.MaxUint32 || number > math.MaxUint32) {
			d.fail("page number %d+%d", number-delta, delta)
		}
		if d.err != nil {
			return d.err
		}
		if yield == nil {
			continue
		}
		if err := yield(uint32(number), page); err != nil {
			return err
		}
	}
	if d.off != len(b) {
		return fmt.Errorf("%w: %w", snapshot.ErrFormat, errTrailing)
	}
	return nil
}

// decodeBody parses the body of a record by the kind of its epoch; all of it is checked, and the record aliases it. Bodies
// of kinds that this program does not know are passed over.
func decodeBody(h *record.LogHead, e *entry, r *Record) error {
	switch h.Kind {
	case KindSQLite:
		return decodePages(e.body, r)
	case KindPostgres:
		return decodeWAL(e, h.Postgres.SegmentSize, r)
	}
	return nil
}

// CheckRecord reports whether bytes are a record of a kind, without its length, as docs/format.md specifies. It is for who
// sets this package against other readers.
func CheckRecord(kind string, b []byte) error {
	e, err := decodeEntry(b)
	if err != nil {
		return err
	}
	if kind == KindPostgres {
		return decodeWAL(&e, 0, new(Record))
	}
	return decodePages(e.body, new(Record))
}
