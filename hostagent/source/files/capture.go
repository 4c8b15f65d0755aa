package files

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// windowWeight bounds the entries between the walk and the session, in units of about 1 KiB of memory.
const windowWeight = 4096

// capture is one run. Items flow from the walk through its channels:
//
//	walk and comparison with the parent → jobs → readers
//	                                    ↘ read → assembler → emits → emitter
//
// in the order of the walk; an item is sent on at once and completed later: a reader closes its ready, the storing of a
// bundle the bundle's done. Nobody waits for somebody further down, except the walk for room in the window, and the emitter
// for items, whose completion needs neither.
type capture struct {
	options  Options
	session  Session
	progress Progress
	sys      *system
	walker   *walker
	owners   *inode.Names
	gear     *[256]uint64

	window  *semaphore.Weighted // entries on their way
	waiting *semaphore.Weighted // bytes of small files read before they are in a bundle
	smalls  *smallBuffers
	bundles *pool[[]byte]
	larges  *pool[*largeBuf]
	slots   *semaphore.Weighted // larger files that are read at the same time

	jobs  chan *item // to the readers
	read  chan *item // to the assembler
	emits chan *item // to the emitter
	work  chan func() error

	parent   *parentCursor // the walk's
	captured time.Time     // of the parent
	result   *Result       // the emitter's
	kept     int           // bytes of all problems; the emitter's
	unnamed  uint64        // problems that are not in result any more; the emitter's
}

// item is one thing that was found, on its way to the session.
type item struct {
	entry    *snapshot.Entry // nil: there are only problems
	problems []snapshot.Problem
	dir      *dir
	name     string
	weight   int64
	before   *snapshot.Entry // the parent's entry for the path
	same     bool            // content was taken over from the parent

	// Of files whose content is read.
	ready    chan struct{} // closed by the reader, who owns entry, problems and what follows until then
	large    bool          // not for a bundle; the assembler does not wait for it
	reserved int64         // of capture.waiting
	buf      []byte        // lent by smallBuffers
	data     []byte        // content for a bundle, in buf
	sent     uint64        // bytes of the file that progress knows already
	readSent uint64        // bytes read that progress knows already
	readSize uint64        // bytes that were read
	bundle   *bundle       // set by the assembler
	twin     *item         // whose extents are this file's too, when bundle is done
}

func newCapture(o Options, sel *selection, session Session, progress Progress, sys *system) *capture {
	return &capture{
		options: o, session: session, progress: progress, sys: sys,
		walker: newWalker(sel, sys, o.Temp), owners: inode.NewNames(), gear: session.Gear(), captured: session.Captured(),
		window:  semaphore.NewWeighted(windowWeight),
		waiting: semaphore.NewWeighted(smallWaiting),
		smalls:  newSmallBuffers(),
		bundles: newPool(bundles, func() []byte { return make([]byte, 0, bundleMax) }),
		larges:  newPool(largeBuffers, func() *largeBuf { return &largeBuf{data: make([]byte, largeBuffer)} }),
		slots:   semaphore.NewWeighted(largeFiles),
		jobs:    make(chan *item, 64),
		read:    make(chan *item, windowWeight),
		emits:   make(chan *item, windowWeight),
		work:    make(chan func() error),
		result:  &Result{Roots: sel.roots},
	}
}

// run starts all goroutines and waits for them.
func (c *capture) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	defer c.walker.dirs.close()
	parentCtx, stopParent := context.WithCancel(ctx)
	c.parent = newParentCursor()
	group.Go(func() error { return c.parent.fill(parentCtx, c.session) })

	group.Go(func() error {
		defer close(c.jobs)
		defer close(c.read)
		defer stopParent()
		return c.walker.run(ctx, func(f *found) error { return c.visit(ctx, f) })
	})

	var users sync.WaitGroup // of c.work
	users.Add(c.options.Readers + 1)
	for range c.options.Readers {
		group.Go(func() error {
			defer users.Done()
			r := &reader{capture: c}
			for it := range c.jobs {
				if err := r.file(ctx, it); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer users.Done()
		defer close(c.emits)
		return c.assemble(ctx)
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			for job := range c.work {
				if err := job(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		users.Wait()
		close(c.work)
		return nil
	})
	group.Go(func() error { return c.emit(ctx) })
	err := group.Wait()
	if c.unnamed > 0 {
		c.result.Problems = append(c.result.Problems, problem("/", "report", fmt.Sprintf("%d more problems are not named here", c.unnamed)))
	}
	return err
}

// later has a job done by one of the goroutines that compress and store, when one is free.
func (c *capture) later(ctx context.Context, job func() error) error {
	select {
	case c.work <- job:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
