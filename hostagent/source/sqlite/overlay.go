package sqlite

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/spool"
)

// overlay keeps the newest version of pages that were seen in the log of a database, in a file without a name in which
// each page has the place that it has in the database: at most as much as the database has, and never what others need of
// the file system. In memory it has two bits for each page of a region that has any: at most 64 MiB for a database of 1 TiB
// with pages of 4 KiB.
type overlay struct {
	file *os.File
	page uint64 // bytes
	span uint64 // bytes of a region

	mu      sync.Mutex
	regions map[int]*marks // guarded by mu
	pages   int            // that are kept; guarded by mu
	room    spool.Room     // guarded by mu
}

// marks are sets of pages of a region: those that are kept, and those of them that nobody has asked for yet.
type marks struct{ has, fresh []uint64 }

// newOverlay makes an overlay whose file lies in a directory.
func newOverlay(dir string, page uint32, span uint64) (*overlay, error) {
	f, err := scratch.File(dir, "pages-*")
	if err != nil {
		return nil, fmt.Errorf("keep changed pages: %w", err)
	}
	return &overlay{file: f, page: uint64(page), span: span, regions: map[int]*marks{}}, nil
}

// put keeps a page, by its number from 1.
func (o *overlay) put(number uint32, data []byte) error {
	if number == 0 || uint64(len(data)) != o.page {
		return fmt.Errorf("page %d of the log has %d bytes, want %d", number, len(data), o.page)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	at := uint64(number-1) * o.page
	err := o.room.For(o.file, int64(o.pages+1)*int64(o.page))
	if err == nil {
		_, err = o.file.WriteAt(data, int64(at))
	}
	if err != nil {
		return fmt.Errorf("keep a changed page in the state directory (%s), which needs room for those that change during a backup: %w", filepath.Dir(o.file.Name()), err)
	}
	region, i := int(at/o.span), at%o.span/o.page
	m := o.regions[region]
	if m == nil {
		words := (o.span/o.page + 63) / 64
		m = &marks{has: make([]uint64, words), fresh: make([]uint64, words)}
		o.regions[region] = m
	}
	bit := uint64(1) << (i % 64)
	if m.has[i/64]&bit == 0 {
		o.pages++
	}
	m.has[i/64] |= bit
	m.fresh[i/64] |= bit
	return nil
}

// len is how many pages are kept.
func (o *overlay) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pages
}

// apply puts the pages that are kept of a region into its content, as far as data reaches. From then on they are not
// fresh any more.
func (o *overlay) apply(region int, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.regions[region]
	if m == nil {
		return nil
	}
	n := len(data) / int(o.page)
	if err := o.read(region, m.has, data); err != nil {
		return err
	}
	for i := range m.fresh {
		for b := range 64 {
			if i*64+b < n {
				m.fresh[i] &^= 1 << b
			}
		}
	}
	return nil
}

// take puts the fresh pages of a region into data, as far as it reaches, and returns which they are; nil if there are
// none.
func (o *overlay) take(region int, data []byte) (has func(page int) bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.regions[region]
	if m == nil {
		return nil, nil
	}
	fresh := slices.Clone(m.fresh)
	n := len(data) / int(o.page)
	some := false
	for i := range fresh {
		for rest := fresh[i]; rest != 0; rest &= rest - 1 {
			some = some || i*64+bits.TrailingZeros64(rest) < n
		}
	}
	if !some {
		return nil, nil
	}
	if err := o.read(region, fresh, data); err != nil {
		return nil, err
	}
	clear(m.fresh)
	return func(page int) bool { return page < n && fresh[page/64]&(1<<(page%64)) != 0 }, nil
}

// read reads the pages of a set; those that follow each other in one call.
func (o *overlay) read(region int, set []uint64, data []byte) error {
	page, n := int(o.page), len(data)/int(o.page)
	in := func(i int) bool { return i < n && set[i/64]&(1<<(i%64)) != 0 }
	for i := 0; i < n; i++ {
		if !in(i) {
			continue
		}
		end := i + 1
		for in(end) {
			end++
		}
		if _, err := o.file.ReadAt(data[i*page:end*page], int64(uint64(region)*o.span)+int64(i*page)); err != nil {
			return fmt.Errorf("read changed pages again: %w", err)
		}
		i = end
	}
	return nil
}

// reset forgets all pages.
func (o *overlay) reset() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.regions, o.pages, o.room = map[int]*marks{}, 0, spool.Room{Leave: o.room.Leave}
	if err := o.file.Truncate(0); err != nil {
		return fmt.Errorf("forget changed pages: %w", err)
	}
	return nil
}

func (o *overlay) close() error { return o.file.Close() }
