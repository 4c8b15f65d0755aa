package copier

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
)

// copyLogs copies the logs of the source, after its snapshots, which are complete without them: for each epoch its head,
// then what it holds, ascending. A crash leaves the beginning of a log; the next run goes on.
//
// With a key every record is proven before it is copied, and pieces of which a proven segment has all are left out.
// Without one the bytes are compared with the hash that they end with. What the copy's own retention has removed does not come
// back.
func (s *source) copyLogs() error {
	if len(s.ours.Logs) == 0 && len(s.ours.LogExpired) == 0 {
		return nil
	}
	streams, err := log.FromInventory(s.ctx, s.from, s.ours)
	if err != nil {
		return err
	}
	var removals []string
	for c := range s.ours.LogExpired {
		if _, there := s.theirs.LogExpired[c]; !there {
			removals = append(removals, layout.ExpiredLogKey(s.src, c.Stream, c.Epoch, c.Last))
		}
	}
	slices.Sort(removals)
	if err := s.documents(removals); err != nil {
		return err
	}
	reader := log.NewReader(s.from, s.src, streams)
	for _, st := range streams {
		for _, e := range st.Epochs {
			if err := s.copyEpoch(reader, e); err != nil {
				return fmt.Errorf("log, stream %s, epoch %d: %w", e.Stream, e.Epoch, err)
			}
		}
	}
	return nil
}

func (s *source) copyEpoch(reader *log.Reader, e *log.Epoch) error {
	key := layout.LogKey(s.src, layout.LogObject{Stream: e.Stream, Epoch: e.Epoch})
	if e.Described == nil {
		if e.Head.Modified.IsZero() {
			s.note(key, "is missing", false)
		} else {
			s.note(key, e.Err.Error(), false)
		}
		return s.ctx.Err() // nobody can read what it holds
	}
	theirs, removed := s.theirs.Logs[e.LogName], s.theirs.RemovedUpTo(e.LogName)
	if theirs == nil && removed > 0 && !beyond(e, removed) {
		return nil // the copy has had it until its own retention removed it
	}
	if theirs == nil || theirs.Head.Modified.IsZero() {
		if err := s.documents([]string{key}); err != nil {
			return err
		}
	} else if theirs.Head.Size != e.Head.Size {
		s.note(key, fmt.Sprintf("has %d bytes instead of %d", theirs.Head.Size, e.Head.Size), true)
		return nil
	}
	_, err := reader.Keys(s.ctx, e)
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	deep := err == nil
	have := map[layout.LogObject]int64{}
	if theirs != nil {
		theirs.All(func(o layout.LogObject, p inventory.LogPiece) { have[o] = int64(p.Size) })
	}
	skip, err := s.proven(reader, e, deep, have)
	if err != nil {
		return err
	}
	var missing []layout.LogObject
	e.All(func(o layout.LogObject, p inventory.LogPiece) {
		size, there := have[o]
		switch {
		case !there && o.Last <= removed: // by the copy's own retention
		case there && size == int64(p.Size):
			s.present(1)
		case there:
			s.note(layout.LogKey(s.src, o), fmt.Sprintf("has %d bytes instead of %d", size, p.Size), true)
		case o.Joined || !skip(o):
			missing = append(missing, o)
		}
	})
	return parallel.Each(s.ctx, s.opts.Workers, missing, func(ctx context.Context, o layout.LogObject) error {
		return s.copyPiece(ctx, reader, e, o, deep)
	})
}

// beyond reports whether an epoch has records after a number.
func beyond(e *log.Epoch, n uint64) bool {
	found := false
	e.All(func(o layout.LogObject, _ inventory.LogPiece) { found = found || o.Last > n })
	return found
}

// proven returns which pieces need not be copied because a segment has their records: segments are read, and proven equal
// to their pieces, or already in the copy.
func (s *source) proven(reader *log.Reader, e *log.Epoch, deep bool, have map[layout.LogObject]int64) (func(layout.LogObject) bool, error) {
	var segments []inventory.LogPiece
	removed := s.theirs.RemovedUpTo(e.LogName)
	for _, seg := range e.Segments {
		o := layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: seg.First, Last: seg.Last, Joined: true}
		if size, there := have[o]; there && size == int64(seg.Size) {
			segments = append(segments, seg)
			continue
		}
		if !deep || seg.Last <= removed {
			continue
		}
		equal, err := reader.Proven(s.ctx, e, seg)
		if err != nil {
			return nil, err
		}
		if equal {
			segments = append(segments, seg)
		}
	}
	return func(o layout.LogObject) bool {
		return slices.ContainsFunc(segments, func(seg inventory.LogPiece) bool { return seg.First <= o.First && o.Last <= seg.Last })
	}, nil
}

// copyPiece copies one object after it was checked. What is damaged is noted and left.
func (s *source) copyPiece(ctx context.Context, reader *log.Reader, e *log.Epoch, o layout.LogObject, deep bool) error {
	key := layout.LogKey(s.src, o)
	b, err := objstore.ReadAll(ctx, s.from.Store(), key, objstore.MaxObject)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil // removed meanwhile: what should be there, verification misses
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if _, err := reader.InspectBytes(ctx, e, o, b, deep); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.note(key, err.Error(), false)
		return nil
	}
	err = s.put(ctx, key, b)
	if errors.Is(err, objstore.ErrExist) {
		s.note(key, "exists with other content", true)
		return nil
	}
	if err != nil {
		return err
	}
	s.copied(s.src, int64(len(b)))
	return nil
}
