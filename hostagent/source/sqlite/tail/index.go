package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// changed takes in a wal-index whose head is not the one that was seen last.
func (t *Tail) changed(ctx context.Context, page pageFunc, raw indexBytes) (Batch, error) {
	// What inotify tells belongs to the time before this head only if the head is still the same after it was asked.
	t.watch.drain()
	heard := t.watch.mark()
	again, err := t.files.readIndex()
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	if again.commits() != raw.commits() {
		return Batch{}, errAgain
	}
	x, err := raw.parse()
	if errors.Is(err, sqlite.ErrUnsettled) {
		return t.unsettled(ctx, page, raw)
	}
	if err != nil {
		return Batch{}, &StateError{State: Unsupported, Path: t.path, Err: err}
	}
	if x.MaxFrame > 0 && x.PageSize != t.page {
		return Batch{}, t.lose(PageSize, fmt.Sprintf("pages have %d bytes now, not %d", x.PageSize, t.page), 0)
	}
	parts, c, err := t.plan(ctx, x)
	if err != nil {
		return Batch{}, err
	}
	seen := t.now().wall
	frames, err := t.deliver(ctx, parts, &c, page)
	if err == nil && frames > 0 && x.MaxFrame > 0 && c.sum != x.Frame {
		err = fmt.Errorf("frame %d of the log: %w", x.MaxFrame, errBroken)
	}
	if errors.Is(err, errBroken) {
		return Batch{}, t.broken(ctx, raw, err)
	}
	if err != nil {
		return Batch{}, err
	}
	return t.accept(raw, x, &c, heard, frames, seen), nil
}

// unsettled has the index looked at again that some process is about to write: it hides what was committed before. If
// nobody is connected, the log itself counts.
func (t *Tail) unsettled(ctx context.Context, page pageFunc, raw indexBytes) (Batch, error) {
	who, err := t.files.connection()
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	if now, lookErr := look(t.shmPath()); lookErr != nil || !now.same(t.files.shmID) {
		return t.over(raw)
	}
	if who == nobody {
		return t.scan(ctx, page, raw)
	}
	return Batch{}, errAgain
}

// plan says which frames are to be delivered so that all is read that the index x stands for, and proves that nothing else
// was committed. Frames of the position's own generation are checked only on delivery, those of others also now.
func (t *Tail) plan(ctx context.Context, x sqlite.Index) ([]part, tally, error) {
	// An index that was recovered from an empty log has no salts: it is of no generation that could be told from another.
	if x.Salt == t.pos.Salt && x.Salt != (sqlite.Salt{}) || t.back(x.Salt) {
		if x.MaxFrame < t.pos.Frames {
			return nil, tally{}, t.lose(Rewound, fmt.Sprintf("the log has %d frames, %d of it were read", x.MaxFrame, t.pos.Frames), 0)
		}
		if x.MaxFrame > 0 && x.MaxFrame == t.pos.Frames && x.Frame != t.pos.Checksum {
			return nil, tally{}, t.lose(Rewound, "other frames are in the log where some were read", 0)
		}
		if x.MaxFrame == t.pos.Frames {
			return nil, tally{}, nil
		}
		p, err := t.rest(x)
		return []part{p}, tallyFrom(p), err
	}
	var parts []part
	c := tally{}
	if x.MaxFrame > 0 {
		h, ok, err := t.files.walHeader()
		if err != nil {
			return nil, c, stateOf(t.path, err)
		}
		if !ok || h.Salt != x.Salt || h.PageSize != t.page {
			return nil, c, t.unlessReset(x, "the log's header does not match its index")
		}
		fresh := part{chain: h.Chain(), from: 1, to: x.MaxFrame}
		c = tallyFrom(fresh)
		chain, last, err := t.walk(ctx, fresh, func(n uint32, f sqlite.Frame, data []byte) error { c.add(n, f, data); return nil })
		if err != nil {
			return nil, c, err
		}
		if last != x.MaxFrame || chain.Sum != x.Frame {
			return nil, c, t.unlessReset(x, fmt.Sprintf("frame %d of the log does not match its checksum", last+1))
		}
		parts = []part{fresh}
	}
	old, err := t.remains(ctx, x, &c)
	if err != nil {
		return nil, c, err
	}
	if old.to > 0 {
		parts = append([]part{old}, parts...)
	}
	if len(parts) > 0 {
		c = tallyFrom(parts[0])
	}
	return parts, c, nil
}

// rest is what the position's own generation has more.
func (t *Tail) rest(x sqlite.Index) (part, error) {
	p := part{from: t.pos.Frames + 1, to: x.MaxFrame}
	p.chain = sqlite.Chain{BigEndian: x.BigEndian, Salt: x.Salt, Sum: t.pos.Checksum}
	if t.pos.Frames > 0 {
		return p, nil
	}
	h, ok, err := t.files.walHeader()
	if err != nil {
		return p, stateOf(t.path, err)
	}
	if !ok || h.Salt != x.Salt || h.PageSize != t.page {
		return p, t.unlessReset(x, "the log's header does not match its index")
	}
	p.chain = h.Chain()
	return p, nil
}

// unlessReset is damage, if the index is the same after it was seen; a reset meanwhile is seen by looking again.
func (t *Tail) unlessReset(x sqlite.Index, what string) error {
	raw, err := t.files.readIndex()
	if err != nil {
		return stateOf(t.path, err)
	}
	if now, err := raw.parse(); err != nil || now != x {
		return errAgain
	}
	return &StateError{
		State: Corrupt, Path: t.path, Err: fmt.Errorf("%s: %w", what, sqlite.ErrDamaged),
		Hint: "a checkpoint by the application ends this; check the disk and the database",
	}
}

// remains finds what of the position's generation was committed and not read before the log was reset; c is the tally of the
// generation that the log has now. Nothing else was committed, or the error is a gap.
func (t *Tail) remains(ctx context.Context, x sqlite.Index, c *tally) (part, error) {
	// If all that was read is in the database file, and no checkpoint has written to it since, the log that is there now
	// begins after it.
	if whole, err := t.whole(); whole || err != nil {
		return part{}, err
	}
	base, known := t.base()
	if !known {
		return part{}, t.lose(Unproven, "the log was reset, and its index was recovered or not yet read", 0)
	}
	fresh, sure := t.doubled.count(c)
	needed := int64(int32(x.Change-base)) - int64(fresh)
	switch {
	case needed == 0:
		return part{}, nil
	case needed < 0 || !sure:
		return part{}, t.lose(Unproven, "the log was reset, and the commits in it and in its index do not add up", 0)
	}
	p, found, err := t.leftover(ctx, needed)
	if err == nil && found < needed {
		missed := int(needed - found)
		return p, t.lose(Missed, fmt.Sprintf("%d commits were overwritten before they were read", missed), missed)
	}
	if err != nil {
		return p, err
	}
	// After one reset they are the position's generation's: what a killed process left there and never published is behind
	// them. After several they may be of one that is gone, and what was found never a commit.
	once := x.Salt[0] == t.pos.Salt[0]+1
	if !once && x.MaxFrame == 0 { // no generation between has written a frame
		h, ok, err := t.files.walHeader()
		if err != nil {
			return p, stateOf(t.path, err)
		}
		once = ok && h.Salt == t.pos.Salt
	}
	if !once {
		return p, t.lose(Unproven, "the log was reset, perhaps more than once, before all of it was read", 0)
	}
	return p, nil
}

// leave remembers last, where a generation ended, if another begins that has no frame yet: until it has one, the log still
// has the old one, and a recovery goes back to that.
func (t *Tail) leave(last Position, x sqlite.Index) {
	switch {
	case x.MaxFrame > 0:
		t.former = Position{}
	case x.Salt != last.Salt && last.Frames > 0:
		t.former = last
	}
}

// back returns to the end of the generation before, if salt is its: it is the same place.
func (t *Tail) back(salt sqlite.Salt) bool {
	if t.pos.Frames > 0 || t.former.Frames == 0 || t.former.Salt != salt {
		return false
	}
	t.pos.Salt, t.pos.Frames, t.pos.Checksum = t.former.Salt, t.former.Frames, t.former.Checksum
	t.pos.HasChange = false
	t.verify = mark{frames: t.pos.Frames, sum: t.pos.Checksum}
	t.former = Position{}
	return true
}

// base is the index's count of commits at the position, if it is certain that it was not set back since but by what is
// accounted for.
func (t *Tail) base() (uint32, bool) {
	emptied, known := t.watch.emptied()
	switch {
	case t.dead: // who comes first recovers, which sets the count to 0; a second one may have lived between
		return 0, known && emptied <= 1
	case !t.pos.HasChange:
		return 0, false
	case known:
		return t.pos.Change, emptied == 0
	case t.files.index == nil:
		return 0, false
	}
	now, err := held(t.files.index)
	return t.pos.Change, err == nil && now.stamp.Changed == t.files.shmID.stamp.Changed && now.stamp.Size == t.files.shmID.stamp.Size
}

// timely forgets the index's times if it could be emptied just now without others.
func (t *Tail) timely() {
	if !settled(t.files.shmID.stamp.Changed, t.now().wall) {
		t.files.shmID.stamp = Stamp{}
	}
}

// leftover finds as many commits of the position's generation behind those frames that overwrote its beginning.
func (t *Tail) leftover(ctx context.Context, needed int64) (part, int64, error) {
	p := part{chain: sqlite.Chain{BigEndian: t.order, Salt: t.pos.Salt, Sum: t.pos.Checksum}, from: t.pos.Frames + 1}
	if t.pos.Frames == 0 {
		h, ok, err := t.files.walHeader()
		if err != nil {
			return p, 0, stateOf(t.path, err)
		}
		if !ok || h.Salt != t.pos.Salt {
			return p, 0, nil
		}
		p.chain = h.Chain()
	}
	c := tallyFrom(p)
	found := int64(0)
	ambiguous := false
	_, _, err := t.walk(ctx, p, func(n uint32, f sqlite.Frame, data []byte) error {
		c.add(n, f, data)
		count, sure := t.doubled.count(&c)
		found, ambiguous = int64(count), !sure
		if f.Commit == 0 || found < needed {
			return nil
		}
		return errStop
	})
	if err == nil && ambiguous {
		err = t.lose(Unproven, "the log was reset, and the same frame stands in it twice: padding, or another commit", 0)
	}
	p.to = c.frames
	return p, found, err
}

// errBroken tells that a frame that was to be delivered is not there any more.
var errBroken = errors.New("frame is not in the log")

// deliver hands the pages of parts out, and counts. It is errBroken if one of the frames is not there.
func (t *Tail) deliver(ctx context.Context, parts []part, c *tally, page pageFunc) (frames int, err error) {
	for _, p := range parts {
		c.frames, c.sum = p.from-1, p.chain.Sum
		chain, last, err := t.walk(ctx, p, func(n uint32, f sqlite.Frame, data []byte) error {
			c.add(n, f, data)
			return page(f.Page, data)
		})
		if err != nil {
			return frames, err
		}
		if last != p.to || c.frames != p.to || c.sum != chain.Sum { // the last one ends a transaction
			return frames, fmt.Errorf("frame %d of the log: %w", last+1, errBroken)
		}
		frames += int(p.to - p.from + 1)
	}
	return frames, nil
}

// broken says why a frame is not there: the log was reset and overwritten meanwhile, or it is damaged.
func (t *Tail) broken(ctx context.Context, raw indexBytes, err error) error {
	now, readErr := t.files.readIndex()
	if readErr != nil {
		return stateOf(t.path, readErr)
	}
	x, parseErr := now.parse()
	before, beforeErr := raw.parse()
	if parseErr != nil || beforeErr != nil {
		return t.busy(err)
	}
	if x.Salt != before.Salt {
		return t.lose(Missed, "the log was overwritten while it was read", 0)
	}
	if h, ok, readErr := t.files.walHeader(); readErr == nil && ok && h.Salt == x.Salt {
		chain, last, walkErr := t.walk(ctx, part{chain: h.Chain(), from: 1, to: x.MaxFrame}, nothing)
		if walkErr == nil && last == x.MaxFrame && chain.Sum == x.Frame {
			return t.lose(Rewound, "other frames are in the log where some were read", 0)
		}
	}
	return &StateError{
		State: Corrupt, Path: t.path, Err: fmt.Errorf("%w, as its index says it is: %w", err, sqlite.ErrDamaged),
		Hint: "a checkpoint by the application ends this; check the disk and the database",
	}
}

// accept moves the position to what the index x stands for.
func (t *Tail) accept(raw indexBytes, x sqlite.Index, c *tally, heard heard, frames int, seen time.Time) Batch {
	commits, _ := t.doubled.count(c)
	if delta := x.Change - t.pos.Change; frames > 0 && t.pos.HasChange && !t.dead && x.Salt == t.pos.Salt {
		if delta >= uint32(c.least) && delta <= uint32(c.most) {
			commits = int(delta)
		}
		t.doubled.learn(c, delta)
	}
	t.seen, t.dead, t.order = raw.commits(), false, x.BigEndian
	t.watch.settle(heard)
	if now, err := held(t.files.index); err == nil {
		t.files.shmID.stamp = now.stamp
	}
	t.timely()
	last := t.pos
	if frames > 0 && x.MaxFrame == 0 {
		last.Frames, last.Checksum = c.frames, c.sum
	}
	t.leave(last, x)
	t.pos.Salt, t.pos.Frames, t.pos.Checksum = x.Salt, x.MaxFrame, sqlite.Checksum{}
	t.pos.Change, t.pos.HasChange = x.Change, true
	if x.MaxFrame > 0 {
		t.pos.Checksum = x.Frame
	}
	if frames > 0 {
		t.pages = c.pages
		t.file, t.pos.File = Stamp{}, Stamp{}
	}
	t.verify = mark{frames: t.pos.Frames, sum: t.pos.Checksum}
	b := t.idle()
	b.Commits, b.Frames = commits, frames
	now, err := look(t.shmPath())
	b.More = err != nil || !now.same(t.files.shmID)
	if frames > 0 {
		b.Time = seen
	}
	return b
}
