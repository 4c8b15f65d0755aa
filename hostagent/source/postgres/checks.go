package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxDamaged is how many damaged pages are named; the others are counted.
const maxDamaged = 1000

// look returns what sees the bytes of a file as they pass; nil: nobody need see them.
func (c *capture) look(rel string, size uint64) func(at uint64, part []byte) error {
	if dir, name := path.Split(rel); dir == "pg_wal/" {
		return c.wal.file(name, size)
	}
	if rel == controlFile {
		c.control = nil
		return func(_ uint64, part []byte) error { c.control = append(c.control, part...); return nil }
	}
	r, ok := postgres.ParseRelation(rel)
	if !ok {
		return nil
	}
	if r.Fork == "init" && r.Segment == 0 {
		c.result.Unlogged++
	}
	return c.pages.file(r, rel, size)
}

// controlFile is what recovery reads first.
const controlFile = "global/pg_control"

// pageCheck checks the checksums of pages.
type pageCheck struct {
	on      bool
	page    int
	segment uint32 // pages in one file
	start   postgres.LSN
	damaged []damagedPage
	count   uint64
}

// damagedPage is a page whose checksum is wrong.
type damagedPage struct {
	rel      string
	relation postgres.Relation
	block    uint32
	err      error
}

// file returns what checks the pages of a file of a relation.
func (p *pageCheck) file(r postgres.Relation, rel string, size uint64) func(at uint64, part []byte) error {
	if !p.on || r.Temporary {
		return nil
	}
	first := r.FirstBlock(p.segment)
	return func(at uint64, part []byte) error {
		// A part begins with a page, and only the last page of a file may be cut off: the server was extending it, and
		// WAL has it.
		for ; len(part) >= p.page; at, part = at+uint64(p.page), part[p.page:] {
			page := part[:p.page]
			if postgres.ParsePage(page).New() {
				continue // also one that is half written: WAL has it whole
			}
			block := first + uint32(at/uint64(p.page))
			if err := postgres.CheckPage(page, block, p.start); err != nil {
				if p.count++; p.count <= maxDamaged {
					p.damaged = append(p.damaged, damagedPage{rel, r, block, err})
				}
			}
		}
		return nil
	}
}

// walCheck follows the WAL of a backup as it passes.
type walCheck struct {
	origin postgres.Origin
	start  postgres.LSN // of the first segment
	walker *postgres.Walker
	bytes  uint64
	err    error
}

func newWALCheck(o postgres.Origin, start postgres.LSN) *walCheck {
	w := &walCheck{origin: o, start: start.SegmentStart(o.SegmentSize)}
	w.walker = postgres.NewWalker(o, w.start)
	return w
}

// segment reports whether a file is a segment of WAL.
func (w *walCheck) segment(rel string) bool {
	dir, name := path.Split(rel)
	n, err := postgres.ParseName(name, w.origin.SegmentSize)
	return dir == "pg_wal/" && err == nil && n.Kind == postgres.Segment
}

// file returns what follows a file of pg_wal; nil: it is none that counts.
func (w *walCheck) file(name string, size uint64) func(at uint64, part []byte) error {
	n, err := postgres.ParseName(name, w.origin.SegmentSize)
	if err != nil || n.Kind != postgres.Segment {
		return nil
	}
	w.bytes += size
	if n.Timeline != w.origin.Timeline || n.Start < w.start {
		return nil
	}
	return func(at uint64, part []byte) error {
		if w.err == nil && at == 0 && n.Start != w.walker.Next() {
			w.err = fmt.Errorf("after %s comes the segment %s", w.walker.Next(), name)
		}
		good := 0
		if w.err == nil {
			good, w.err = w.walker.Write(part)
		}
		if w.err != nil {
			// Behind the end of what was written stands what the file held before it was used again. Recovery ends before
			// it, whatever it is: zeros take no room.
			good = (good + postgres.BlockSize - 1) / postgres.BlockSize * postgres.BlockSize
			clear(part[min(good, len(part)):])
		}
		return nil
	}
}

// reaches says what is missing of the WAL up to the end of the backup.
func (w *walCheck) reaches(stop postgres.LSN) error {
	if w.walker.End() >= stop {
		return nil // what comes behind it is of no matter
	}
	if w.err != nil {
		return w.err
	}
	return fmt.Errorf("it ends at %s", w.walker.End())
}

// end is up to where all WAL is there.
func (w *walCheck) end() postgres.LSN {
	if w.err != nil {
		return w.walker.End()
	}
	return w.walker.Next()
}

// fileSum is what came of a file.
type fileSum struct {
	size uint64
	crc  uint32
}

// seen notes what came of a file, for the comparison with the manifest.
func (c *capture) seen(rel string, f *incoming) error {
	if c.wal.segment(rel) {
		return nil // the manifest does not tell of them: they prove themselves
	}
	key := pathKey(rel)
	if _, twice := c.sums[key]; twice {
		return c.failed("run the backup again", "%s came twice", rel)
	}
	c.sums[key] = fileSum{f.size, f.crc}
	return nil
}

func pathKey(rel string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, rel)
	return h.Sum64()
}

// manifest takes in the backup manifest, and keeps it for the comparison.
func (c *capture) manifest(ctx context.Context) error {
	c.text.temp = c.Temp
	if _, err := io.Copy(&c.text, c.backup); err != nil {
		return c.disturbed(err)
	}
	h := *c.owner
	h.Name, h.Mode, h.Size = manifestFile, c.owner.Mode&0o777&^0o111, c.text.size
	e := c.entry(manifestFile, &h, snapshot.File)
	e.MTime = snapshot.Time{Sec: c.newest.Unix()}
	f := &incoming{entry: e, rel: manifestFile, size: uint64(c.text.size), content: c.text.from(0)}
	var err error
	if f.before, err = c.before.find(e.Path); err != nil {
		return err
	}
	return c.store(ctx, f)
}

const manifestFile = "backup_manifest"

// prove checks that all came that the server has sent, and that a recovery from it will be consistent.
func (c *capture) prove(ctx context.Context) error {
	if err := c.compare(); err != nil {
		return err
	}
	control, err := postgres.ParseControl(c.control)
	switch {
	case err != nil:
		return c.failed("it was being written: run the backup again", "%s: %w", controlFile, err)
	case control.System != c.result.System:
		return c.failed("", "%s is of the system %d, the server of %d", controlFile, control.System, c.result.System)
	}
	if err := c.wal.reaches(c.result.Stop); err != nil {
		return c.failed("the server removed WAL during the backup, or it is damaged: look into its log; more of it is kept by wal_keep_size, or where a replication slot is free",
			"the WAL that the backup needs, from %s to %s, is not whole: %w", c.result.Start, c.result.Stop, err)
	}
	c.result.WALBytes, c.result.WALEnd = c.wal.bytes, c.wal.end()
	return c.nameDamage(ctx)
}

// compare checks that what came is what the manifest says, no more and no less.
func (c *capture) compare() error {
	const hint = "run the backup again; if it is said again, something between the server and here alters data: look at memory, disks and the network"
	var wrong []string
	more := 0
	found := func(format string, args ...any) {
		if len(wrong) == 5 {
			more++
			return
		}
		wrong = append(wrong, fmt.Sprintf(format, args...))
	}
	m, err := postgres.ReadManifest(c.text.from(0), func(f postgres.ManifestFile) error {
		key := pathKey(f.Path)
		got, ok := c.sums[key]
		delete(c.sums, key) // one that it names twice is missing
		switch {
		case !ok:
			found("%s is missing", f.Path)
		case got.size != uint64(f.Size):
			found("%s has %d bytes, not %d", f.Path, got.size, f.Size)
		case f.Algorithm != "CRC32C" || !bytes.Equal(f.Checksum, binary.LittleEndian.AppendUint32(nil, got.crc)):
			found("%s has another checksum", f.Path)
		}
		return nil
	})
	if err != nil {
		return c.failed(hint, "backup manifest: %w", err)
	}
	if m.System != 0 && m.System != c.result.System {
		return c.failed(hint, "the backup manifest is of the system %d, the server of %d", m.System, c.result.System)
	}
	if len(c.sums) > 0 {
		found("%d files came that it does not name", len(c.sums))
	}
	if len(wrong) == 0 {
		return nil
	}
	if more > 0 {
		wrong = append(wrong, fmt.Sprintf("and %d more", more))
	}
	return c.failed(hint, "what came is not what the server's backup manifest says: %s", strings.Join(wrong, ", "))
}

// emit gives all entries to the session, in order.
func (c *capture) emit(ctx context.Context) error {
	root := *c.owner
	root.Mode = c.mode
	e := c.entry("", &root, snapshot.Directory)
	e.MTime = snapshot.Time{Sec: c.newest.Unix()}
	c.result.Counts.Directories++
	c.result.Roots = []string{c.root}
	if err := c.all.add(e); err != nil {
		return err
	}
	return c.all.each(func(e *snapshot.Entry) error {
		if err := c.session.Emit(ctx, e); err != nil {
			return fmt.Errorf("add %q to the tree: %w", e.Path, err)
		}
		return nil
	})
}

// done takes a file whose content is stored. It may be called by several goroutines.
func (c *capture) done(e, before *snapshot.Entry) error {
	c.mu.Lock()
	n := &c.stored
	n.Files++
	n.Bytes += e.Size
	switch {
	case before == nil:
		n.NewFiles++
	case changed(before, e):
		n.ChangedFiles++
	}
	c.mu.Unlock()
	c.progress.Add(1, 0, 0)
	return c.all.add(e)
}

// changed reports whether a file's content differs from what the parent has.
func changed(before, now *snapshot.Entry) bool {
	return before.Size != now.Size || before.FileID != now.FileID || !slices.Equal(before.Extents, now.Extents) ||
		!slices.EqualFunc(before.Maps, now.Maps, func(a, b snapshot.MapRef) bool { return a.Ref == b.Ref })
}
