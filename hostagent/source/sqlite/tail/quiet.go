package tail

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// quiet looks around when the index is as it was: nothing was committed.
func (t *Tail) quiet(ctx context.Context, page pageFunc, raw indexBytes) (Batch, error) {
	shm, err := look(t.shmPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Batch{}, stateOf(t.path, err)
	}
	if err != nil || !shm.same(t.files.shmID) {
		return t.over(raw)
	}
	who, err := t.files.connection()
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	if who == nobody {
		return t.scan(ctx, page, raw)
	}
	if t.pos.Salt == (sqlite.Salt{}) {
		if _, known := t.base(); !known { // a life may have left the index as it was, without salts
			return t.changed(ctx, page, raw)
		}
	}
	return t.calm(raw)
}

// calm looks at the database file when the index, which counts, is as it was.
func (t *Tail) calm(raw indexBytes) (Batch, error) {
	db, gap, err := t.present()
	if err != nil {
		return Batch{}, err
	}
	whole := t.backfilled(raw)
	wrote := whole && t.file != (Stamp{}) && db.stamp.content() != t.file.content()
	note := whole && !wrote && (db.stamp != t.file || t.pos.File != t.file) && settled(db.stamp.Changed, t.now().wall)
	if gap == nil && !note && !wrote {
		return t.idle(), nil
	}
	if note {
		t.watch.forget()
		if db, gap, err = t.present(); err != nil {
			return Batch{}, err
		}
	}
	// What was seen of the database file belongs to this index only if that is still the same: commits come before the
	// checkpoint that writes them to the file.
	again, err := t.files.readIndex()
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	if again.commits() != raw.commits() {
		return Batch{}, errAgain
	}
	if gap != nil {
		t.gap = gap
		return Batch{}, gap
	}
	if !t.backfilled(again) {
		return t.idle(), nil
	}
	if wrote {
		return Batch{}, t.touched()
	}
	if note && settled(db.stamp.Changed, t.now().wall) {
		t.file, t.pos.File = db.stamp, db.stamp
	}
	return t.idle(), nil
}

// backfilled reports whether the database file has all of the log by its index, and all of that was read.
func (t *Tail) backfilled(raw indexBytes) bool {
	x, err := raw.parse()
	return err == nil && x.Backfilled == x.MaxFrame && x.MaxFrame == t.pos.Frames && x.Salt == t.pos.Salt
}

// closed looks at a database that has no log: nobody has it open.
func (t *Tail) closed() (Batch, error) {
	_, err := look(t.walPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Batch{}, stateOf(t.path, err)
	}
	if err == nil {
		if err := t.take(); err != nil {
			return Batch{}, err
		}
	}
	// With a log: it was in its place before the database file was looked at. Whoever came and went before it did not commit,
	// or the file would be another; and of those who use it now nobody has made a checkpoint yet.
	if err := t.untouched(); err != nil {
		return Batch{}, err
	}
	if err == nil {
		return Batch{}, errAgain
	}
	if settled(t.file.Changed, t.now().wall) {
		t.pos.File = t.file
	}
	return t.idle(), nil
}

// untouched fails with a gap unless the database file is as it was when nobody had it open any more.
func (t *Tail) untouched() error {
	now, gap, err := t.present()
	switch {
	case err != nil:
		return err
	case gap != nil:
		t.gap = gap
		return gap
	case !t.unwritten(now):
		return t.touched()
	}
	return nil
}

// over ends with the log and the index that are held, of which all was read: the application removed them or made new ones.
func (t *Tail) over(raw indexBytes) (Batch, error) {
	now, err := look(t.walPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Batch{}, stateOf(t.path, err)
	}
	if err == nil && now.same(t.files.walID) {
		return Batch{}, t.reindex()
	}
	if t.files.index != nil {
		last, err := t.files.readIndex()
		if err != nil {
			return Batch{}, stateOf(t.path, err)
		}
		if last.commits() != raw.commits() {
			return Batch{}, errAgain
		}
		raw = last
	}
	log, err := held(t.files.wal)
	if err != nil {
		return Batch{}, stateOf(t.path, err)
	}
	db, gap, err := t.present()
	if err != nil {
		return Batch{}, err
	}
	// The database file was not written to after the log was removed, or that is proven by nothing. Without inotify, by the
	// inodes' times: one changes when its last name is removed.
	same, wroteBack := t.unwritten(db), t.wroteBack(raw, log, db)
	if written, known := t.watch.written(); !same && known && t.watch.log >= 0 {
		same = !written
	} else if !same {
		same = db.stamp.Modified < log.stamp.Changed && t.steady()
	}
	t.drop()
	t.watch.follow(t.db, false)
	switch {
	case gap != nil:
		t.gap = gap
		return Batch{}, gap
	case log.links > 0:
		return Batch{}, t.lose(Unproven, "the log was moved away", 0)
	case !wroteBack:
		return Batch{}, t.lose(Rewound, "the log was removed before all of it was in the database file", 0)
	case !same:
		return Batch{}, t.touched()
	}
	t.pos, t.file = Position{Device: t.id.device, Inode: t.id.number, PageSize: t.page}, db.stamp
	t.former, t.verify = Position{}, mark{}
	return Batch{}, errAgain
}

// reindex holds another index beside the same log: there is one again, or none any more.
func (t *Tail) reindex() error {
	if err := t.files.openIndex(t.shmPath()); err != nil && !errors.Is(err, errMoving) {
		return stateOf(t.path, err)
	}
	t.watch.arm(t.files.wal, t.files.index)
	t.seen, t.dead, t.pos.HasChange, t.scanned = "", false, false, Stamp{}
	return errAgain
}

// wroteBack reports whether all of a log that was removed is in the database file. The last connection sees to that when it
// closes; somebody who removes files does not.
func (t *Tail) wroteBack(raw indexBytes, log, db inode) bool {
	if t.pos.Frames == 0 {
		return true
	}
	if x, err := raw.parse(); err == nil && x.Salt == t.pos.Salt {
		return x.Backfilled >= t.pos.Frames
	}
	return db.stamp.Modified >= log.stamp.Modified
}

// steady reports whether the clock was not set back since the last Poll, so that times of inodes can be compared.
func (t *Tail) steady() bool {
	now := t.now()
	wall, passed := now.wall.Sub(t.polled.wall), now.mono-t.polled.mono
	return wall >= passed-passed/1000-time.Millisecond
}
