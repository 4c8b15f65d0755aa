package postgres

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// SpacesError says that the WAL makes a tablespace in a place that is in use on this host: the server that recovers would take
// that for its own, and write old pages over those of the server that lives there.
type SpacesError struct {
	Path string
	At   pg.LSN
}

func (e *SpacesError) Error() string {
	return fmt.Sprintf("the WAL at %s makes a tablespace in %s, which is in use on this host: recovery would write into what is there", e.At, e.Path)
}

// Hint says what can be restored instead.
func (e *SpacesError) Hint() string {
	return "a snapshot that was made after that has the tablespace, and restores it to a place of its own: make a base backup now, if this is the newest; " +
		fmt.Sprintf("--lsn %s --exclusive ends right before it; or restore on another host", e.At)
}

// newSpaces watches WAL for tablespaces that recovery would make where there are others. The base's own are sent to places where
// nothing is; those in WAL go to where they were, whatever is there.
type newSpaces struct {
	start, stop pg.LSN // of the base: what is before start is not replayed
	target      Target
	own         map[uint32]string // where those of the base are, by oid
	beyond      bool              // recovery has ended before what comes
	refused     *SpacesError      // nil: nothing was found
}

// see takes an event of the WAL, in order.
func (n *newSpaces) see(e pg.Event) {
	if e.At < n.start || n.beyond || n.refused != nil {
		return
	}
	t := n.target
	switch e.Kind {
	case pg.TablespaceMade:
		if t.Kind == LSN && e.At >= t.LSN || t.Kind == Base && e.At >= n.stop {
			n.beyond = true
		} else if e.Name != "" && n.own[e.OID] != filepath.Clean(e.Name) && inUse(e.Name) {
			n.refused = &SpacesError{Path: e.Name, At: e.At}
		}
	case pg.RestorePoint:
		n.beyond = t.Kind == Name && e.Name == t.Name
	case pg.Committed, pg.Aborted:
		n.beyond = t.Kind == Time && e.Time.After(t.Time) || t.Kind == XID && e.XID == uint32(t.XID) //nolint:gosec // as the server takes it
	}
}

// inUse reports whether a cluster has a tablespace in a place: a directory for its version. What can't be told is in use.
func inUse(place string) bool {
	entries, err := os.ReadDir(place)
	if errors.Is(err, os.ErrNotExist) {
		return false // the server says so
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "PG_") {
			return true
		}
	}
	return err != nil
}

// watchSpaces looks through the WAL of the base itself, and has the feed look through what follows.
func (b *build) watchSpaces() error {
	n := &newSpaces{start: b.src.Start, stop: b.src.Stop, target: b.target, own: map[uint32]string{}}
	for _, s := range b.result.Tablespaces {
		n.own[s.OID] = filepath.Clean(s.Place)
	}
	size := b.control.SegmentSize
	w := pg.NewWalker(pg.Origin{System: b.src.System, Timeline: b.src.Timeline, SegmentSize: size}, b.src.Start.SegmentStart(size))
	w.Observe(n.see)
	for at := b.src.Start.SegmentStart(size); at < b.src.Stop; at += pg.LSN(size) {
		more, err := walkFile(w, filepath.Join(b.dir, "pg_wal", pg.SegmentName(b.src.Timeline, at, size)))
		if err != nil {
			return err
		}
		if !more {
			break // recovery ends there too
		}
	}
	if n.refused != nil {
		return n.refused
	}
	b.feed.spaces = n
	return nil
}

// walkFile walks over a segment, and reports whether it is WAL to its end.
func walkFile(w *pg.Walker, path string) (more bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // of the log
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 1<<20)
	for {
		k, err := f.Read(buf)
		if _, werr := w.Write(buf[:k]); werr != nil {
			return false, nil //nolint:nilerr // it ends here
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}
