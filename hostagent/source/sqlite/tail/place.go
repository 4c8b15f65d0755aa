package tail

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// patience is how long Start and Resume wait for a moment of rest.
const patience = time.Second

// Start places the tail before the first frame of the log's current generation; all that is before is in the database file.
// So a copy of the file that is made from now on, with all that is polled, is consistent. Poll soon: if the log is reset
// before the first one, that is a gap. It also ends the state after a gap, and takes up a database that has replaced the
// one that was followed. Errors are [*StateError].
func (t *Tail) Start() error {
	if err := t.reset(); err != nil {
		return err
	}
	t.pos = Position{Device: t.id.device, Inode: t.id.number, PageSize: t.page}
	return t.settle(t.begin)
}

// Resume places the tail at p. It fails with a [*GapError] if that can't be proven to be the same place in the history of
// the same database; then Start. Other errors are [*StateError]. A long log is read as a whole.
func (t *Tail) Resume(p Position) error {
	if err := t.reset(); err != nil {
		return err
	}
	switch {
	case p.Device != t.id.device || p.Inode != t.id.number:
		return t.lose(Replaced, "another file is in the database's place", 0)
	case p.PageSize != t.page:
		return t.lose(PageSize, "the size of pages was changed", 0)
	}
	t.pos = p
	return t.settle(t.resume)
}

// reset forgets all places, and opens what is at the path now.
func (t *Tail) reset() error {
	t.placed, t.gap = false, nil
	t.former, t.verify, t.pages, t.order, t.doubled = Position{}, mark{}, 0, false, unknown
	t.polled, t.file = t.now(), Stamp{}
	t.watch.forget()
	if err := t.reopen(); err != nil {
		return err
	}
	return t.take()
}

// reopen opens the database, unless what is held is what is at the path.
func (t *Tail) reopen() error {
	if t.db != nil {
		if now, err := look(t.path); err != nil || !now.same(t.id) {
			t.drop()
			_ = t.db.Close()
			t.db = nil
		}
	}
	if t.db == nil {
		realPath, err := filepath.EvalSymlinks(t.path)
		if err == nil {
			realPath, err = filepath.Abs(realPath)
		}
		if err != nil {
			return stateOf(t.path, err)
		}
		f, id, err := open(realPath)
		if err != nil {
			return stateOf(t.path, err)
		}
		t.db, t.id, t.real = f, id, realPath
	}
	h, err := t.mode()
	t.page = h.PageSize
	return err
}

// settle calls f until it does not ask to look again.
func (t *Tail) settle(f func() error) error {
	for deadline := t.now().mono + patience; ; {
		err := f()
		if !errors.Is(err, errAgain) {
			t.placed = err == nil
			return err
		}
		if t.now().mono > deadline {
			return &StateError{State: Busy, Path: t.path, Hint: "its files change all the time; try again"}
		}
		time.Sleep(2 * time.Millisecond)
		if err := t.take(); err != nil {
			return err
		}
	}
}

// sight is what there is to begin with.
type sight struct {
	index sqlite.Index
	live  bool // the index counts
	log   sqlite.WALHeader
	ok    bool // the log has a header
	db    inode
}

func (t *Tail) survey() (sight, error) {
	var s sight
	if t.files != nil {
		if t.files.index != nil {
			raw, err := t.files.readIndex()
			if err != nil {
				return s, stateOf(t.path, err)
			}
			who, err := t.files.connection()
			if err != nil {
				return s, stateOf(t.path, err)
			}
			if who == opening {
				return s, errAgain
			}
			s.live = who == connected
			s.index, err = raw.parse()
			if s.live && errors.Is(err, sqlite.ErrUnsettled) {
				return s, errAgain
			}
			if s.live && err != nil {
				return s, &StateError{State: Unsupported, Path: t.path, Err: err}
			}
			t.seen = ""
			if !s.live {
				t.seen = raw.commits() // so that it is not taken for news: it may be of before the machine started
			}
		}
		var err error
		if s.log, s.ok, err = t.files.walHeader(); err != nil {
			return s, stateOf(t.path, err)
		}
	}
	db, gap, err := t.present()
	if err != nil {
		return s, err
	}
	if gap != nil {
		return s, errAgain
	}
	s.db = db
	return s, nil
}

func (t *Tail) begin() error {
	s, err := t.survey()
	if err != nil {
		return err
	}
	t.pos.Salt, t.pos.Checksum = s.log.Salt, s.log.Checksum
	t.pos.HasChange, t.pos.File, t.file = false, Stamp{}, Stamp{}
	t.order = s.log.BigEndian
	switch {
	case s.live:
		if s.log.Salt != s.index.Salt {
			t.pos.Checksum = sqlite.Checksum{}
		}
		t.pos.Salt = s.index.Salt
		if s.index.MaxFrame == 0 {
			t.pos.Change, t.pos.HasChange = s.index.Change, true
			t.timely()
		}
		return nil
	case s.ok && s.log.PageSize == t.page:
		return nil
	}
	// No log, or nothing in it: the file must not be written to unseen.
	t.pos.Salt, t.pos.Checksum = sqlite.Salt{}, sqlite.Checksum{}
	t.watch.forget()
	db, gap, err := t.present()
	if err != nil {
		return err
	}
	if gap != nil || !settled(db.stamp.Changed, t.now().wall) {
		return errAgain
	}
	t.file, t.pos.File = db.stamp, db.stamp
	return nil
}

func (t *Tail) resume() error {
	s, err := t.survey()
	if err != nil {
		return err
	}
	p := t.pos
	t.order = s.log.BigEndian
	same := p.File != (Stamp{}) && p.File == s.db.stamp
	t.pos.File, t.file = Stamp{}, Stamp{}
	if same {
		t.pos.File, t.file = p.File, p.File
	}
	if t.files != nil && s.ok && s.log.Salt == p.Salt && (!s.live || s.index.Salt == p.Salt || s.index.MaxFrame == 0) {
		return t.resumeLog(s, p.File)
	}
	switch {
	case s.live && s.index.Salt == p.Salt && p.Salt != (sqlite.Salt{}) && p.Frames == 0:
		t.pos.HasChange = false
		return nil
	case same:
		// The database file has all up to the position, and no checkpoint has written to it since: what the log has, begins
		// there.
		t.pos = Position{Device: p.Device, Inode: p.Inode, PageSize: p.PageSize, File: p.File}
		return nil
	case t.files == nil:
		return t.touched()
	}
	return t.lose(Unproven, "the log was reset since", 0)
}

// resumeLog finds the position in a log that still has its generation. file is the database file's stamp at the position, if
// it had all by then.
func (t *Tail) resumeLog(s sight, file Stamp) error {
	p := t.pos
	chain, last, err := t.walk(context.Background(), part{chain: s.log.Chain(), from: 1, to: p.Frames}, nothing)
	if p.Frames == 0 {
		chain, last, err = s.log.Chain(), 0, nil
	}
	switch {
	case err != nil:
		return err
	case last != p.Frames || p.Frames > 0 && chain.Sum != p.Checksum:
		return t.lose(Rewound, "the log does not have the frames any more that were read", 0)
	case s.live && s.index.Salt == p.Salt && s.index.MaxFrame < p.Frames:
		return t.lose(Rewound, "the log ends before the frames that were read", 0)
	}
	t.verify = mark{frames: p.Frames, sum: p.Checksum}
	rest := part{chain: chain, from: p.Frames + 1}
	c, err := t.commits(context.Background(), &rest)
	if err != nil {
		return err
	}
	if !s.live || s.index.Salt == p.Salt {
		t.pos.HasChange = false
		if file != (Stamp{}) && file.content() != s.db.stamp.content() && c.most == 0 {
			// The file had all before the position, and there is nothing that a checkpoint could have written to it since.
			return t.touched()
		}
		return nil
	}
	// The index was reset, the log not yet overwritten. Frames that are in it and were never committed can't be told from
	// others, but counted.
	if n, sure := t.doubled.count(&c); !p.HasChange || !sure || s.index.Change-p.Change != uint32(n) {
		return t.lose(Unproven, "the log was reset since", 0)
	}
	return nil
}

func nothing(uint32, sqlite.Frame, []byte) error { return nil }
