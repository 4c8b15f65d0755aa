package files

import (
	"context"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const parentBatch = 128

// parentCursor walks the parent's entries beside the tree. They are decoded by another goroutine.
type parentCursor struct {
	batches chan []*snapshot.Entry
	batch   []*snapshot.Entry
	ended   bool
	err     error // why the parent ended early; valid when batches is closed
}

func newParentCursor() *parentCursor {
	return &parentCursor{batches: make(chan []*snapshot.Entry, 4)}
}

// fill sends the parent's entries until ctx ends. A parent that can't be read only costs that everything is read again.
func (p *parentCursor) fill(ctx context.Context, session Parent) error {
	defer close(p.batches)
	batch := make([]*snapshot.Entry, 0, parentBatch)
	for e, err := range session.Parent(ctx) {
		if err != nil {
			p.err = err
			break
		}
		batch = append(batch, e)
		if len(batch) < parentBatch {
			continue
		}
		select {
		case p.batches <- batch:
			batch = make([]*snapshot.Entry, 0, parentBatch)
		case <-ctx.Done():
			return nil
		}
	}
	select {
	case p.batches <- batch:
	case <-ctx.Done():
	}
	return nil
}

// find returns the parent's entry for a path, nil if it has none. Paths must ascend.
func (p *parentCursor) find(path string) *snapshot.Entry {
	for {
		for len(p.batch) > 0 {
			switch snapshot.ComparePaths(p.batch[0].Path, path) {
			case 0:
				return p.batch[0]
			case 1:
				return nil
			}
			p.batch = p.batch[1:]
		}
		var ok bool
		if p.batch, ok = <-p.batches; !ok {
			p.ended = true
			return nil
		}
	}
}

// fault returns why the parent could not be read to its end: once, when that has mattered.
func (p *parentCursor) fault() error {
	if !p.ended {
		return nil
	}
	err := p.err
	p.err = nil
	return err
}

// settle is how far from the parent's capture a change must be to be told from it: file systems keep times in ticks, and
// a file may have been written to again in the tick in which it was read.
const settle = 2 * time.Second

// unchanged reports whether what the parent holds of a path is what is there now. Device numbers may differ: they change
// when a host restarts.
func unchanged(before, now *snapshot.Entry, captured time.Time) bool {
	return before.Type == now.Type && before.Inode == now.Inode && before.Size == now.Size &&
		before.MTime == now.MTime && before.CTime == now.CTime && !before.Changed && !before.Unreadable &&
		time.Unix(now.CTime.Sec, int64(now.CTime.Nsec)).Before(captured.Add(-settle))
}
