package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// scan reads the log without an index: there is none (exclusive locking mode), or nobody is connected to it, and what
// counts is what the next process would recover: all up to the last commit whose checksums are right.
func (t *Tail) scan(ctx context.Context, page pageFunc, raw indexBytes) (Batch, error) {
	if t.files.index == nil {
		if _, err := look(t.shmPath()); err == nil {
			return Batch{}, t.reindex()
		}
	}
	now, err := look(t.walPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Batch{}, stateOf(t.path, err)
	}
	gone := err != nil || !now.same(t.files.walID)
	if !gone && t.scanned != (Stamp{}) && now.stamp == t.scanned {
		return t.undisturbed(raw)
	}
	if gone && t.files.index != nil {
		return t.over(raw) // who removed the log went by the index, all of which was read
	}
	return t.rescan(ctx, page, raw, gone)
}

// rescan reads what the log has more; gone: it was removed.
func (t *Tail) rescan(ctx context.Context, page pageFunc, raw indexBytes, gone bool) (Batch, error) {
	before, err := held(t.files.wal)
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	seen := t.now().wall
	parts, c, h, err := t.planScan(ctx, raw)
	if err != nil {
		return Batch{}, err
	}
	t.watch.drain()
	heard := t.watch.mark()
	if ok, err := t.alone(raw); err != nil {
		return Batch{}, err
	} else if !ok && !gone {
		return Batch{}, errAgain
	}
	frames, err := t.deliver(ctx, parts, &c, page)
	if errors.Is(err, errBroken) {
		return Batch{}, t.busy(err)
	}
	if err != nil {
		return Batch{}, err
	}
	if gone && frames == 0 {
		return t.over(raw)
	}
	b := t.acceptScan(raw, h, &c, heard, frames)
	b.More = gone
	if frames > 0 {
		b.Time = seen
	}
	if after, err := held(t.files.wal); err == nil && after.stamp == before.stamp && settled(after.stamp.Changed, seen) {
		t.scanned = after.stamp
	}
	return b, nil
}

// busy is an error after which what page got does not count, and a later Poll begins again.
func (t *Tail) busy(err error) error {
	return &StateError{State: Busy, Path: t.path, Err: err, Hint: "the next look may find it at rest"}
}

// alone reports whether still nobody is connected.
func (t *Tail) alone(raw indexBytes) (bool, error) {
	if t.files.index == nil {
		_, err := look(t.shmPath())
		return errors.Is(err, os.ErrNotExist), nil
	}
	who, err := t.files.connection()
	if err != nil {
		return false, stateOf(t.path, err)
	}
	now, err := t.files.readIndex()
	if err != nil {
		return false, stateOf(t.path, err)
	}
	return who == nobody && now.commits() == raw.commits(), nil
}

// undisturbed looks at the database file when the log is as it was.
func (t *Tail) undisturbed(raw indexBytes) (Batch, error) {
	now, gap, err := t.present()
	if err != nil {
		return Batch{}, err
	}
	if gap == nil && t.file == (Stamp{}) {
		t.noteFile(raw)
		return t.idle(), nil
	}
	if gap == nil && t.unwritten(now) {
		return t.idle(), nil
	}
	log, err := look(t.walPath())
	if err != nil || log.stamp != t.scanned {
		return Batch{}, errAgain
	}
	if ok, err := t.alone(raw); err != nil {
		return Batch{}, err
	} else if !ok {
		return Batch{}, errAgain
	}
	if gap != nil {
		t.gap = gap
		return Batch{}, gap
	}
	return Batch{}, t.touched()
}

// noteFile takes the database file's times down, if it has all that was read and nobody is there to write to it.
func (t *Tail) noteFile(raw indexBytes) {
	x, err := raw.parse()
	if t.pos.Frames > 0 && (err != nil || x.Salt != t.pos.Salt || x.Backfilled < t.pos.Frames) {
		return // the log has what the file has not
	}
	t.watch.forget()
	db, gap, statErr := t.present()
	ok, err := t.alone(raw)
	log, logErr := look(t.walPath())
	quiet := err == nil && ok && logErr == nil && log.stamp == t.scanned
	if quiet && statErr == nil && gap == nil && settled(db.stamp.Changed, t.now().wall) {
		t.file, t.pos.File = db.stamp, db.stamp
	}
}

// planScan says which frames are to be delivered, and proves that nothing else was committed.
func (t *Tail) planScan(ctx context.Context, raw indexBytes) ([]part, tally, sqlite.WALHeader, error) {
	none := tally{frames: t.pos.Frames, sum: t.pos.Checksum, before: t.verify}
	h, ok, err := t.files.walHeader()
	if err != nil {
		return nil, none, h, stateOf(t.path, err)
	}
	if ok && h.PageSize != t.page {
		return nil, none, h, t.lose(PageSize, fmt.Sprintf("pages have %d bytes now, not %d", h.PageSize, t.page), 0)
	}
	if ok && (h.Salt == t.pos.Salt || t.back(h.Salt)) {
		p, c, err := t.further(ctx, h)
		if err != nil || c.most == 0 {
			return nil, none, h, err
		}
		return []part{p}, tallyFrom(p), h, nil
	}
	if whole, err := t.whole(); err != nil {
		return nil, none, h, err
	} else if !whole && t.pos.Frames > 0 {
		return t.stitch(ctx, h, ok)
	} else if !whole {
		if err := t.nothingBefore(raw, ok); err != nil {
			return nil, none, h, err
		}
	}
	if !ok {
		return nil, none, h, nil
	}
	fresh := part{chain: h.Chain(), from: 1}
	c, err := t.commits(ctx, &fresh)
	if err != nil || c.most == 0 {
		return nil, none, h, err
	}
	return []part{fresh}, tallyFrom(fresh), h, nil
}

// nothingBefore fails with a gap unless nothing was committed between the position, before which a log began, and what the
// log has now; ok is whether that has a header.
func (t *Tail) nothingBefore(raw indexBytes, ok bool) error {
	if t.pos.Salt == (sqlite.Salt{}) {
		if t.unvisited(raw) {
			return nil
		}
		return t.touched()
	}
	if ok || !t.pos.HasChange {
		return t.lose(Unproven, "the log was reset before it was read, and it has no index", 0)
	}
	return nil
}

// unvisited reports whether the index says that nobody committed since it was taken in last.
func (t *Tail) unvisited(raw indexBytes) bool {
	_, known := t.base()
	return known && raw.are(t.seen)
}

// whole reports whether the database file has all that was read, and was not written to since.
func (t *Tail) whole() (bool, error) {
	if t.file == (Stamp{}) {
		return false, nil
	}
	now, gap, err := t.present()
	return err == nil && gap == nil && t.unwritten(now), err
}

// commits walks p, whose end is not known, and ends it with the last transaction.
func (t *Tail) commits(ctx context.Context, p *part) (tally, error) {
	c := tallyFrom(*p)
	_, _, err := t.walk(ctx, *p, func(n uint32, f sqlite.Frame, data []byte) error { c.add(n, f, data); return nil })
	p.to = c.frames
	return c, err
}

// further finds what the position's generation has more. The newest transaction that was read is looked at again: if its
// commit failed at the last moment, another one has taken its place.
func (t *Tail) further(ctx context.Context, h sqlite.WALHeader) (part, tally, error) {
	check := part{chain: h.Chain(), from: t.verify.frames + 1, to: t.pos.Frames}
	if t.verify.frames > 0 {
		check.chain.Sum = t.verify.sum
	}
	if check.to >= check.from {
		chain, last, err := t.walk(ctx, check, func(uint32, sqlite.Frame, []byte) error { return nil })
		if err != nil {
			return part{}, tally{}, err
		}
		if last != t.pos.Frames || chain.Sum != t.pos.Checksum {
			return part{}, tally{}, t.lose(Rewound, "other frames are in the log where some were read", 0)
		}
	}
	p := part{chain: h.Chain(), from: t.pos.Frames + 1}
	if t.pos.Frames > 0 {
		p.chain.Sum = t.pos.Checksum
	}
	c, err := t.commits(ctx, &p)
	return p, c, err
}

// stitch reads over a reset without an index. If the salts say that there was just one, and the last frame that was read is
// still in its place, so is what followed it.
func (t *Tail) stitch(ctx context.Context, h sqlite.WALHeader, ok bool) ([]part, tally, sqlite.WALHeader, error) {
	lost := func(err error) ([]part, tally, sqlite.WALHeader, error) {
		if err == nil {
			err = t.lose(Unproven, "the log was reset, and it has no index", 0)
		}
		return nil, tally{}, h, err
	}
	if !ok || h.Salt[0] != t.pos.Salt[0]+1 {
		return lost(nil)
	}
	var b [sqlite.FrameHeaderSize]byte
	if _, err := t.files.wal.ReadAt(b[:], sqlite.FrameOffset(t.pos.Frames, t.page)); err != nil && !errors.Is(err, io.EOF) {
		return lost(stateOf(t.path, err))
	}
	if f := sqlite.ParseFrame(b[:]); f.Salt != t.pos.Salt || f.Sum != t.pos.Checksum {
		return lost(nil)
	}
	old := part{chain: sqlite.Chain{BigEndian: t.order, Salt: t.pos.Salt, Sum: t.pos.Checksum}, from: t.pos.Frames + 1}
	before, err := t.commits(ctx, &old)
	if err != nil {
		return lost(err)
	}
	fresh := part{chain: h.Chain(), from: 1}
	after, err := t.commits(ctx, &fresh)
	if err != nil {
		return lost(err)
	}
	var parts []part
	if before.most > 0 {
		parts = append(parts, old)
	}
	if after.most > 0 {
		parts = append(parts, fresh)
	} else {
		return lost(nil) // the header alone is there: the next Poll knows more
	}
	return parts, tallyFrom(parts[0]), h, nil
}

// acceptScan moves the position behind what was delivered.
func (t *Tail) acceptScan(raw indexBytes, h sqlite.WALHeader, c *tally, heard heard, frames int) Batch {
	t.watch.settle(heard)
	t.dead = t.files.index != nil
	if t.dead {
		t.seen = raw.commits()
	}
	b := t.idle()
	if frames == 0 {
		return b
	}
	t.former, t.order = Position{}, h.BigEndian
	t.pos.Salt, t.pos.Frames, t.pos.Checksum = h.Salt, c.frames, c.sum
	t.file, t.pos.File, t.pos.HasChange = Stamp{}, Stamp{}, false
	t.pages, t.verify = c.pages, c.before
	b = t.idle()
	b.Frames = frames
	b.Commits, _ = t.doubled.count(c)
	return b
}
