package files

import (
	"context"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxProblems bounds what the problems of a result take, in bytes: they go into one chunk, encoded in base64.
const maxProblems = 4 << 20

// emit takes all items in the order of the walk, waits until they are complete and gives them to the session.
func (c *capture) emit(ctx context.Context) error {
	for it := range c.emits {
		if err := c.complete(ctx, it); err != nil {
			return err
		}
		e := it.entry // stays in the item, as a twin may ask for its extents
		if e != nil && (!it.same || it.before.LacksXattrs) {
			// A tree with an entry that readers refuse would be lost as a whole: rather lose the entry, and say so.
			if err := e.Check(); err != nil {
				it.fail(e.Path, "check", err)
				e = nil
			}
		}
		c.note(it.problems)
		if e != nil {
			c.count(it)
			if err := c.session.Emit(ctx, e); err != nil {
				return fmt.Errorf("add %q to the tree: %w", e.Path, err)
			}
		}
		c.window.Release(it.weight)
	}
	return ctx.Err()
}

// complete waits for the content of the item.
func (c *capture) complete(ctx context.Context, it *item) error {
	if it.ready != nil {
		select {
		case <-it.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if it.bundle == nil {
		return nil
	}
	select {
	case <-it.bundle.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if it.twin != nil {
		it.entry.Extents = it.twin.entry.Extents
	}
	return nil
}

// note keeps problems for the result, the first of too many.
func (c *capture) note(problems []snapshot.Problem) {
	for i := range problems {
		p := &problems[i]
		if IsError(p) {
			c.result.Counts.Errors++
		}
		size := len(p.Path) + len(p.Operation) + len(p.Error) + 64
		if c.kept += size; c.kept <= maxProblems {
			c.result.Problems = append(c.result.Problems, *p)
		} else {
			c.unnamed++
		}
	}
}

func (c *capture) count(it *item) {
	n, e := &c.result.Counts, it.entry
	switch e.Type {
	case snapshot.Directory:
		n.Directories++
		return
	case snapshot.File:
	default:
		n.Others++
		return
	}
	n.Files++
	n.Bytes += e.Size
	n.ReadBytes += it.readSize
	if e.NotConsistent {
		n.NotConsistent++
	}
	switch {
	case it.same:
	case it.before == nil || it.before.Type != snapshot.File:
		n.NewFiles++
	case changed(it.before, e):
		n.ChangedFiles++
	}
	c.progress.Add(1, e.Size-min(e.Size, it.sent), it.readSize-it.readSent)
	if n.Files%64 == 1 {
		c.progress.Current(e.Path)
	}
}

// changed reports whether a file that was read again differs from what the parent holds.
func changed(before, now *snapshot.Entry) bool {
	return before.Size != now.Size || before.MTime != now.MTime || before.CTime != now.CTime || before.Inode != now.Inode ||
		before.HasFileID != now.HasFileID || before.FileID != now.FileID ||
		!slices.Equal(before.Extents, now.Extents) ||
		!slices.EqualFunc(before.Maps, now.Maps, func(a, b snapshot.MapRef) bool { return a.Ref == b.Ref })
}
