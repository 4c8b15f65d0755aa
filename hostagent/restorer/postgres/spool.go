package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// spoolName is the directory in a data directory in which a recovery keeps what it needs. Whoever finds it there knows
// that the data directory is not a finished one.
const spoolName = "holdfast.recovery"

// Names in the spool.
const (
	planName   = "plan.json"
	keepName   = "keep"   // what may be asked for again and again: histories, the last segment
	readyName  = "ready." // proven segments that wait; ends with the id of the boot that wrote them
	lockName   = "lock"   // of who fills the spool
	socketName = "socket" // where who fills the spool is asked
	faultName  = "fault"  // why wal-fetch could not do what it was asked for
	indexName  = "index"  // places of segments, a line of JSON each
	stageName  = "stage"  // how far the restore has come
)

// unfinishedSuffix ends the name of a segment that is being written.
const unfinishedSuffix = ".new"

// Plan is what must be known to fetch WAL for a recovery, kept in its spool.
type Plan struct {
	Format   int               `json:"format"`
	System   uint64            `json:"system"`
	Segment  uint64            `json:"segment_size"` // bytes
	Legs     []Leg             `json:"legs"`         // the branch, in order; none: no log
	Stored   []uint32          `json:"timelines"`    // those whose histories are stored, on the branch or not
	From     snapshot.LogPlace `json:"from"`
	Target   Target            `json:"target"`
	Snapshot string            `json:"snapshot"`
	// Reader is what the command line needs to read the log again; this package does not look at it.
	Reader json.RawMessage `json:"reader,omitempty"`
}

// planFormat is the version of plans.
const planFormat = 1

// Leg is a part of the branch that lies in one timeline.
type Leg struct {
	Timeline uint32 `json:"timeline"`
	Begin    pg.LSN `json:"begin"` // 0 for the first one: where the log begins
	End      pg.LSN `json:"end"`   // where the next one begins, or the log ends
}

// has reports whether a segment of a timeline can be in the leg.
func (l Leg) has(s segment, size uint64) bool {
	return s.timeline == l.Timeline && s.number >= uint64(l.Begin)/size && l.End > 0 && s.number <= uint64(l.End-1)/size
}

// ReadPlan reads a plan. It may be given as a path of a plan, or of its spool.
func ReadPlan(path string) (*Plan, error) {
	b, err := os.ReadFile(path) //nolint:gosec // named by the restore_command
	if err != nil {
		return nil, fmt.Errorf("read the plan of the recovery: %w", err)
	}
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("read the plan of the recovery: %s: %w", path, err)
	}
	if p.Format != planFormat || len(p.Legs) > 0 && (p.Segment < 1<<20 || p.Segment > 1<<30 || p.Segment&(p.Segment-1) != 0) {
		return nil, fmt.Errorf("read the plan of the recovery: %s: it is not one of this version", path)
	}
	return &p, nil
}

// spool is the directory.
type spool struct {
	dir     string
	account pgserver.Account // whom what is in it belongs to
	ahead   uint64           // bytes of WAL that a fetch gets beyond what it was asked for, where no restore is at work
}

func (s *spool) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// bootID names the boot: what was written in another one may be torn.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}

func (s *spool) ready(names ...string) string {
	return s.path(append([]string{readyName + bootID()}, names...)...)
}

// create makes the directories.
func (s *spool) create() error {
	for _, dir := range []string{s.dir, s.path(keepName), s.ready()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := s.account.Give(dir); err != nil {
			return err
		}
	}
	return nil
}

// lock takes the spool, or says ErrBusy. The kernel drops it with the process.
func (s *spool) lock() (*os.File, error) {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, err
	}
	return f, s.account.Give(f.Name())
}

// write puts a small file in its place at once, durable.
func (s *spool) write(name string, content []byte) error {
	temp := s.path(name + ".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.account.Give(temp)
	}
	if err == nil {
		err = os.Rename(temp, s.path(name))
	}
	return err
}

func (s *spool) writePlan(p *Plan) error {
	p.Format = planFormat
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.write(planName, append(b, '\n'))
}

// waiting counts the segments that wait to be taken.
func (s *spool) waiting() (int, error) {
	list, err := os.ReadDir(s.ready())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range list {
		if !strings.Contains(e.Name(), ".") {
			n++
		}
	}
	return n, nil
}

// clearReady removes segments that wait.
func (s *spool) clearReady() error {
	list, err := os.ReadDir(s.ready())
	for _, e := range list {
		err = errors.Join(err, os.Remove(s.ready(e.Name())))
	}
	if errors.Is(err, fs.ErrNotExist) { // taken this very moment
		return nil
	}
	return err
}

// take gives a file of the spool to the server: ready ones are moved, others copied. It reports false where there is none.
func (s *spool) take(name, to string) (bool, error) {
	err := os.Rename(s.ready(name), to)
	if err == nil {
		return true, nil
	}
	for _, from := range []string{s.ready(name), s.path(keepName, name)} {
		err := copyFile(from, to)
		switch {
		case err == nil && from == s.ready(name):
			return true, os.Remove(from)
		case err == nil:
			return true, nil
		case !errors.Is(err, fs.ErrNotExist) || !missing(from):
			return false, err
		}
	}
	return false, nil
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from) //nolint:gosec // in the spool
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()                                                      // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600) //nolint:gosec // named by the server
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// segment names a segment of WAL.
type segment struct {
	timeline uint32
	number   uint64
}

func (s segment) name(size uint64) string {
	return pg.SegmentName(s.timeline, s.start(size), uint32(size)) //nolint:gosec // at most 1 GiB
}

// start is its first byte.
func (s segment) start(size uint64) pg.LSN { return pg.LSN(s.number * size) }
