package sqlite

import (
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/spool"
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
)

// batch is the pages that become one record.
type batch struct {
	pages    *spool.Spool
	groups   []replicate.Seen
	since    time.Time // before its oldest commit; nothing that was committed until then is in it
	commits  int
	size     uint32 // of the database, in pages
	pageSize uint32
	position tail.Position
	newest   time.Time
	looked   time.Time // when the look began that found the newest
}

// add takes in what a look found, which began then; all that was committed until since had been found before.
func (b *batch) add(found tail.Batch, since, began time.Time) {
	b.pages.Keep()
	if b.commits == 0 {
		b.since = since
	}
	b.groups = replicate.Fewer(append(b.groups, replicate.Seen{At: found.Time, Commits: found.Commits}))
	b.commits += found.Commits
	b.size, b.pageSize, b.position, b.newest, b.looked = found.Pages, found.PageSize, found.Position, found.Time, began
}

// join takes in a batch that goes on where it ends. An error leaves both as they are.
func (b *batch) join(next *batch) error {
	if err := b.pages.Add(next.pages); err != nil {
		return err
	}
	b.groups = replicate.Fewer(append(b.groups, next.groups...))
	b.commits += next.commits
	b.size, b.pageSize, b.position, b.newest, b.looked = next.size, next.pageSize, next.position, next.newest, next.looked
	return nil
}

func (b *batch) reset() {
	b.pages.Reset()
	b.groups, b.commits = b.groups[:0], 0
}

// oldest is when the oldest commit in it was seen; zero: it is empty.
func (b *batch) oldest() time.Time {
	if b == nil || len(b.groups) == 0 {
		return time.Time{}
	}
	return b.groups[0].At
}
