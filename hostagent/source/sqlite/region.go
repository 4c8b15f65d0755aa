package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// regions is how many regions a file of size bytes has.
func (c *capture) regions(size uint64) int {
	span := c.writer.Span()
	return int((size + span - 1) / span)
}

// region reads a region of a file, puts what is known to be newer into it, and has stored what is new of it.
func (c *capture) region(ctx context.Context, file *os.File, number int, size uint64) error {
	b, err := c.lend(ctx)
	if err != nil {
		return err
	}
	defer b.Release()
	from := uint64(number) * c.writer.Span()
	n, err := c.read(file, b.data[:min(c.writer.Span(), size-min(size, from))], from)
	if err != nil {
		return err
	}
	c.tell(uint64(n), size)
	data := b.data[:c.whole(b.data, n)]
	if len(data) == 0 {
		return c.writer.Forget(ctx, number) // the file has become shorter
	}
	if err := c.over.apply(number, data); err != nil {
		return err
	}
	return c.writer.Region(ctx, number, data, b)
}

// whole makes n bytes of a region whole pages: of what lies behind the end of a file, SQLite reads zeros.
func (c *capture) whole(data []byte, n int) int {
	page := int(c.page)
	end := (n + page - 1) / page * page
	clear(data[n:end])
	return end
}

// read reads until p is full or the file ends.
func (c *capture) read(file *os.File, p []byte, from uint64) (n int, err error) {
	for n < len(p) {
		m, err := file.ReadAt(p[n:min(len(p), n+readStep)], int64(from)+int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, &Error{Path: c.Path, Err: err, hint: "look at the disk (dmesg, smartctl); what was backed up before stays restorable"}
		}
	}
	return n, nil
}

// tell tells of n bytes that were read of a file of size bytes.
func (c *capture) tell(n, size uint64) {
	c.result.Counts.ReadBytes += n
	told := min(n, size-min(size, c.told)) // what is read again is no more of the file
	c.told += told
	c.progress.Add(0, told, n)
}

// finish lays the pages that are newer than what was stored over it, and completes a database of size bytes.
func (c *capture) finish(ctx context.Context, size uint64) error {
	span := c.writer.Span()
	for number, from := 0, uint64(0); from < size; number, from = number+1, from+span {
		if err := c.patch(ctx, number, min(span, size-from)); err != nil {
			return err
		}
	}
	extents, maps, err := c.writer.Finish(ctx, size)
	if err != nil {
		return err
	}
	c.stored = stored{size, extents, maps}
	c.result.PageSize, c.result.Pages = c.page, uint32(size/uint64(c.page))
	return nil
}

// patch gives the newest pages of a region, and the length that it has in the end.
func (c *capture) patch(ctx context.Context, number int, length uint64) error {
	b, err := c.lend(ctx)
	if err != nil {
		return err
	}
	defer b.Release()
	data := b.data[:length]
	has, err := c.over.take(number, data)
	if err != nil {
		return err
	}
	if has == nil {
		if c.writer.Length(number) == length {
			return nil
		}
		has = func(int) bool { return false }
	}
	return c.writer.Patch(ctx, number, data, has, b)
}

// unknown counts a page that neither the file nor the log has. That of the lock bytes has no content.
func (c *capture) unknown(region, page int) {
	if number := uint64(region)*(c.writer.Span()/uint64(c.page)) + uint64(page) + 1; number != uint64(sqlite.LockPage(c.page)) {
		c.blank++
	}
}

// fileSize is the size of a database by its file: whole pages. SQLite calls a database damaged that is shorter than its
// first page says.
func (c *capture) fileSize(file *os.File) (uint64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, &Error{Path: c.Path, Err: fmt.Errorf("stat: %w", err)}
	}
	page := uint64(c.page)
	there := (uint64(info.Size()) + page - 1) / page
	head := make([]byte, sqlite.HeaderSize)
	n, err := c.read(file, head, 0)
	if err != nil {
		return 0, err
	}
	if h, err := sqlite.ParseHeader(head[:n]); err == nil && h.PagesKnown && uint64(h.Pages) > there {
		c.result.Problems = nil
		c.problem("check", fmt.Sprintf("the database is damaged: it should have %d pages of %d bytes and has %d; what is there was saved", h.Pages, c.page, there))
	}
	return there * page, nil
}
