package tail

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spacing is the least time between two early ends of a Wait: a checkpoint writes thousands of pages.
	spacing = time.Millisecond
	// alert is for how long a Wait is short after somebody opened a database that nobody had open: its log must be seen
	// before it is gone again. brief is how short.
	alert = time.Second
	brief = 2 * time.Millisecond
)

// watch hears by inotify that the wal-index is emptied, and when a checkpoint begins. A nil watch hears nothing: the
// system's limit of inotify instances (fs.inotify.max_user_instances) is reached. Not safe for concurrent use.
type watch struct {
	fd       int
	file     *os.File
	database int32 // watch descriptors; -1 if there is none
	log      int32
	index    int32

	listens bool // events of the log tell of what is written to it
	inits   int  // since settle: how often the index may have been emptied
	opened  bool // the index was opened, and not written to by size since
	stirred bool // the database file was written to, the log removed, or written to while it is listened to; without a log: the file opened, or read
	lost    int  // how often events were lost since settle
	wrote   bool // the database file was written to since forget, or since the log was removed
	early   time.Time
	alarmed time.Time
	buf     [4096]byte
}

func newWatch() *watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	return &watch{fd: fd, file: os.NewFile(uintptr(fd), "inotify"), database: -1, log: -1, index: -1}
}

func (w *watch) close() {
	if w != nil {
		_ = w.file.Close()
	}
}

// add watches the inode behind an open file, whatever its name is now. -1: that is not possible.
func (w *watch) add(f *os.File, mask uint32) int32 {
	wd, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mask)
	if err != nil {
		return -1
	}
	return int32(wd)
}

// follow watches the database file: for checkpoints, or, when nobody has it open, for whoever comes.
func (w *watch) follow(f *os.File, live bool) {
	if w == nil {
		return
	}
	mask := uint32(unix.IN_MODIFY)
	if !live {
		mask |= unix.IN_OPEN | unix.IN_ACCESS
	}
	w.database = w.replace(w.database, f, mask)
}

// arm watches another log and wal-index, from now on.
func (w *watch) arm(log, index *os.File) {
	if w == nil {
		return
	}
	w.drain()
	w.log = w.replace(w.log, log, w.logMask())
	w.index = w.replace(w.index, index, unix.IN_OPEN|unix.IN_MODIFY)
	w.settle(w.mark())
	w.opened = true // by somebody who may be about to empty it
}

// logMask is what is heard of the log: that it loses its name, and writes while it is listened to.
func (w *watch) logMask() uint32 {
	if w.listens {
		return unix.IN_ATTRIB | unix.IN_MODIFY
	}
	return unix.IN_ATTRIB
}

// listen begins or ends to hear what is written to the log, and reports whether it is heard; log is nil if there is none,
// then the database file tells of who comes.
func (w *watch) listen(log *os.File, on bool) bool {
	if w == nil || w.database < 0 {
		return false
	}
	if w.listens != on {
		w.listens = on
		if log != nil {
			w.log = w.replace(w.log, log, w.logMask())
		}
	}
	return on && (log == nil || w.log >= 0)
}

// heardOf reports whether something was told that ends a wait.
func (w *watch) heardOf() bool {
	w.drain()
	return w != nil && w.stirred
}

func (w *watch) replace(wd int32, f *os.File, mask uint32) int32 {
	now := int32(-1)
	if f != nil {
		now = w.add(f, mask)
	}
	if wd >= 0 && wd != now {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
	}
	return now
}

// forget begins to look anew whether the database file is written to.
func (w *watch) forget() {
	if w != nil {
		w.drain()
		w.wrote = false
	}
}

// written reports whether the database file was written to since forget, or since the log was removed, whichever was later;
// ok is false if that is not known.
func (w *watch) written() (yes, ok bool) {
	if w == nil || w.database < 0 {
		return false, false
	}
	w.drain()
	return w.wrote, true
}

// heard is what was told since settle.
type heard struct{ inits, lost int }

func (w *watch) mark() heard {
	if w == nil {
		return heard{}
	}
	return heard{inits: w.inits, lost: w.lost}
}

// settle begins to count anew, after h: what was told later counts.
func (w *watch) settle(h heard) {
	if w == nil {
		return
	}
	w.inits -= h.inits
	w.lost -= h.lost
}

// emptied tells how often the index may have been emptied since settle; ok is false if that is not known.
func (w *watch) emptied() (n int, ok bool) {
	if w == nil || w.index < 0 {
		return 0, false
	}
	w.drain()
	return w.inits, w.lost == 0
}

// drain reads the events that are there.
func (w *watch) drain() {
	if w == nil {
		return
	}
	for {
		n, err := unix.Read(w.fd, w.buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		w.note(w.buf[:n])
	}
}

// note takes events in. They are inotify(7)'s: descriptor, mask, cookie, length of a name, name.
func (w *watch) note(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		b = b[min(len(b), size):]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.lost++
			w.stirred, w.wrote = true, true
		case mask&unix.IN_IGNORED != 0: // the file is gone for good, or we stopped
			if wd == w.index {
				w.index = -1
			}
			if wd == w.log {
				w.log = -1
			}
		case wd == w.database:
			w.stirred = true
			w.wrote = w.wrote || mask&unix.IN_MODIFY != 0
		case wd == w.log && mask&unix.IN_MODIFY != 0:
			w.stirred = true
		case wd == w.log: // events come in their order
			w.wrote = false
			w.stirred = true // who comes next writes to another log, which must be seen before it is gone again
		case wd == w.index && mask&unix.IN_OPEN != 0:
			w.opened = true
		case wd == w.index && w.opened: // who opens it empties it at once if nobody has it; else it only grows later
			w.inits++
			w.opened = false
		}
	}
}

// wait returns after d, or when something stirs, whichever is first; not before spacing has passed. It reports whether
// something did.
func (w *watch) wait(ctx context.Context, d time.Duration, live bool) (bool, error) {
	now := time.Now()
	if w == nil || w.database < 0 {
		return false, sleep(ctx, d)
	}
	if !live && now.Sub(w.alarmed) < alert {
		d = min(d, brief)
	}
	deadline := now.Add(d)
	if rest := min(spacing-now.Sub(w.early), d); rest > 0 {
		if err := sleep(ctx, rest); err != nil {
			return false, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = w.file.SetReadDeadline(deadline)
	for ctx.Err() == nil {
		if w.stirred {
			w.stirred = false
			w.early = time.Now()
			if !live {
				w.alarmed = w.early
			}
			return true, nil
		}
		n, err := w.file.Read(w.buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, ctx.Err()
		}
		if err != nil {
			return false, sleep(ctx, time.Until(deadline))
		}
		w.note(w.buf[:n])
	}
	return false, ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
