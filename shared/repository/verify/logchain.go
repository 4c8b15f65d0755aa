package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// chain begins the check of an epoch's records.
func (l *logs) chain(ctx context.Context, e *log.Epoch) (*chainCheck, error) {
	c := &chainCheck{logs: l, epoch: e, deep: l.c.opts.Level == Content && e.Described != nil, last: map[uint64]snapshot.Hash{}, ends: map[uint64]bool{}}
	if c.deep {
		_, err := l.reader.Keys(ctx, e)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, keyring.ErrNoIdentity):
			return nil, err
		case err != nil:
			l.c.findings.add(l.key(head(e.LogName)), NotAuthentic, err.Error())
			c.deep = false
		}
	}
	for _, p := range e.Segments {
		c.ends[p.Last] = true
	}
	if e.Described != nil && e.Described.Continues != nil {
		c.note(e.Described.Continues.Sequence, e.Described.Continues.Record)
	}
	return c, nil
}

// chainCheck follows the records of one epoch over its objects.
type chainCheck struct {
	*logs
	epoch *log.Epoch
	deep  bool
	last  map[uint64]snapshot.Hash // hashes of records that end an object: for the next one, and for segments
	ends  map[uint64]bool          // records that end a segment

	spans   []span
	history *postgres.TimelineHistory // of the stream's timeline, if it was read
}

func (c *chainCheck) note(n uint64, hash string) {
	if h, err := snapshot.ParseHash(hash); err == nil {
		c.last[n] = h
	}
}

// read reads some objects at a time and compares them with those before.
func (c *chainCheck) read(ctx context.Context, part []layout.LogObject) error {
	found := make([]log.Inspection, len(part))
	errs := make([]error, len(part))
	err := inParallel(ctx, max(c.c.opts.Workers, documentReaders), indexes(len(part)), func(ctx context.Context, i int) {
		found[i], errs[i] = c.reader.Inspect(ctx, c.epoch, part[i], c.deep)
	})
	if err != nil {
		return err
	}
	for i, o := range part {
		err := errs[i]
		if err == nil && c.deep {
			err = c.follows(o, found[i])
		}
		if _, twice := c.hashes[found[i].Sum]; err == nil && twice {
			err = log.ErrName // which needs no key: what is sealed twice is never the same
		}
		if err != nil {
			c.fault(ctx, o, err, found[i].Sum)
			continue
		}
		if c.deep {
			c.extend(o, found[i])
		}
		c.c.result.LogObjects++
		c.c.result.LogBytes += found[i].Size
		if len(c.hashes) < maxLogHashes {
			c.hashes[found[i].Sum] = c.key(o)
		}
	}
	return nil
}

// follows compares an object with what is known of the records before it, and of its own last one.
func (c *chainCheck) follows(o layout.LogObject, i log.Inspection) error {
	if before, ok := c.last[o.First-1]; ok && before != i.Previous {
		return fmt.Errorf("record %d %w", o.First, log.ErrChain)
	}
	if first := c.epoch.Described.Continues == nil; first && o.First == 1 && i.Previous != (snapshot.Hash{}) {
		return fmt.Errorf("record 1 %w: it is the first", log.ErrChain)
	}
	if piece, ok := c.last[o.Last]; ok && o.Joined && piece != i.Last {
		return log.ErrOther
	}
	if _, ok := c.last[o.Last]; !ok || !o.Joined {
		c.last[o.Last] = i.Last
	}
	if !o.Joined && !c.ends[o.First-1] {
		delete(c.last, o.First-1)
	}
	for _, claim := range c.claims[c.epoch.LogName][o.Last] {
		if claim.record != i.Last.String() {
			c.c.findings.add(claim.key, Contradicts, fmt.Sprintf("it names another record %d of epoch %d of stream %s than the one that is there", o.Last, o.Epoch, o.Stream))
		}
	}
	return nil
}

// fault notes what is wrong with an object.
func (c *chainCheck) fault(ctx context.Context, o layout.LogObject, err error, sum snapshot.Hash) {
	problem, detail := classifyLog(err), err.Error()
	if other, ok := c.hashes[sum]; ok && problem != Missing && problem != Unreadable {
		problem, detail = Replayed, "its bytes are those of "+other
	}
	if problem == Missing && c.removedMeanwhile(ctx, o) {
		return // prune was faster
	}
	moments := c.momentsOf(c.epoch, o.First)
	if o.Joined {
		c.c.findings.add(c.key(o), problem, detail)
	} else {
		c.c.findings.add(c.key(o), problem, detail+"; "+moments.String())
		c.lost(c.key(o), problem, moments)
	}
	if problem != Unreadable && problem != Missing {
		c.bad[o] = problem
	}
}

// removedMeanwhile reports whether an object that was listed has rightly gone since: its records were removed by retention,
// or a segment has them.
func (c *chainCheck) removedMeanwhile(ctx context.Context, o layout.LogObject) bool {
	if !o.Joined && slices.ContainsFunc(c.epoch.Segments, func(s inventory.LogPiece) bool { return s.First <= o.First && o.Last <= s.Last }) {
		return true
	}
	if !c.fresh {
		c.fresh = true
		// What can't be listed is not known: then it is missing, and the next run tells.
		_ = c.c.repo.Store().List(ctx, layout.ExpiredLogPrefix(c.src), func(i objstore.Info) error {
			stream, epoch, last, err := layout.ParseCut(layout.ExpiredLogPrefix(c.src), i.Key)
			var doc record.LogCut
			if name := (inventory.LogName{Stream: stream, Epoch: epoch}); err == nil && last > c.removed[name] && c.document(ctx, i.Key, &doc) && doc.Sequence == last {
				c.removed[name] = last
			}
			return nil
		})
	}
	return c.removed[c.epoch.LogName] >= o.Last
}

// classifyLog says in the words of this package what is wrong with an object of a log.
func classifyLog(err error) Problem {
	switch {
	case errors.Is(err, log.ErrTorn):
		return BytesDiffer
	case errors.Is(err, log.ErrName):
		return Replayed
	case errors.Is(err, log.ErrChain), errors.Is(err, log.ErrOther):
		return Disconnected
	}
	if p := classify(err); p != Unreadable || isStore(err) {
		return p
	}
	return NotAuthentic
}

// isStore tells trouble of the store from what is wrong with bytes that came.
func isStore(err error) bool {
	return objstore.IsTransient(err) || errors.Is(err, objstore.ErrDenied) || errors.Is(err, objstore.ErrArchived) || errors.Is(err, objstore.ErrNotExist)
}
