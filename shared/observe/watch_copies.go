package observe

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// counted counts the pages of listings.
type counted struct {
	objstore.Store
	requests *atomic.Int64
}

func (c counted) List(ctx context.Context, prefix string, fn func(objstore.Info) error) error {
	n := 0
	c.requests.Add(1)
	return c.Store.List(ctx, prefix, func(o objstore.Info) error {
		if n++; n > Page {
			n = 1
			c.requests.Add(1)
		}
		return fn(o)
	})
}

func (w *Watch) store() objstore.Store { return counted{w.Repo.Store(), &w.requests} }

// lock asks, once a day, whether the store locks what arrives.
func (l *look) lock(ctx context.Context) error {
	n := len(l.m.Kept)
	locker, ok := l.w.Repo.Store().(objstore.Locker)
	if !ok || n == 0 || l.now.Sub(l.m.Asked) < AuditEvery {
		return nil
	}
	l.w.requests.Add(1)
	lock, err := locker.LockOf(ctx, l.inv.ManifestKey(l.m.Kept[n-1].Sequence))
	switch {
	case errors.Is(err, objstore.ErrNoLocks), errors.Is(err, objstore.ErrNotExist), errors.Is(err, objstore.ErrDenied):
		lock = objstore.Lock{}
	case err != nil:
		return fmt.Errorf("ask for the lock of the newest manifest: %w", err)
	}
	l.m.Locked, l.m.Asked = lock.Until.UTC(), l.now.UTC()
	if lock.Until.IsZero() {
		l.m.Locked = time.Time{}
	}
	return nil
}

// copies compares the listing with that of each copy. A copy that had everything has it still, until something new
// arrives or the audit looks again.
func (l *look) copies(ctx context.Context, changed bool) error {
	was := l.m.Copies
	l.m.Copies = nil
	if l.whole {
		l.m.Followed = len(l.inv.Logs) > 0
	}
	logs := l.logsDue(was)
	for _, p := range l.w.Places {
		old, known := was[p.Address]
		c := compliance.Copy{Place: p.Address, Dependent: p.Dependent}
		switch {
		case p.Unseen:
			c.Unseen = true
		case p.Store == nil:
			c.Error = fmt.Sprint(p.Err)
		case known && !changed && old.Missing == 0 && old.Error == "":
			c = old
		default:
			if err := l.compare(ctx, counted{p.Store, &l.w.requests}, &c); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				c.Error = err.Error()
			}
		}
		c.Log = old.Log
		if err := l.compareLog(ctx, p, logs, &c); err != nil {
			return err
		}
		if l.m.Copies == nil {
			l.m.Copies = map[string]compliance.Copy{}
		}
		l.m.Copies[p.Address] = c
	}
	return nil
}

// logsDue reports whether the log is to be compared with those of the copies, and notes that it is. One that lags is looked at
// by each look until it does no more.
func (l *look) logsDue(was map[string]compliance.Copy) bool {
	due := l.now.Sub(l.m.Compared) >= logsEvery
	for _, c := range was {
		due = due || !c.Log.IsZero()
	}
	if due = due && l.m.Followed && len(l.w.Places) > 0; due {
		l.m.Compared = l.now.UTC()
	}
	return due
}

// compareLog compares the log with that of a copy, if it is due. What was known of one that can't be looked at goes on to count.
func (l *look) compareLog(ctx context.Context, p Place, due bool, c *compliance.Copy) error {
	switch {
	case !l.m.Followed || p.Unseen:
		c.Log = time.Time{}
		return nil
	case !due || p.Store == nil || c.Error != "":
		return nil
	}
	since, err := copier.LogLag(ctx, l.w.store(), counted{p.Store, &l.w.requests}, l.src)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.Error = err.Error()
		l.m.Compared = time.Time{} // the next look tries again
		return nil                 //nolint:nilerr // it is what is known of the copy now
	}
	c.Log = since
	return nil
}

func (l *look) compare(ctx context.Context, store objstore.Store, c *compliance.Copy) error {
	there, err := l.numbered(ctx, store, layout.ManifestPrefix(l.src))
	if err != nil {
		return err
	}
	var lacks []uint64
	for _, n := range inventory.Sequences(l.inv.Manifests) {
		if _, ok := there[n]; !ok {
			lacks = append(lacks, n)
		}
	}
	if len(lacks) > 0 {
		expired, err := l.numbered(ctx, store, layout.ExpiredPrefix(l.src))
		if err != nil {
			return err
		}
		for _, n := range lacks {
			if _, ok := expired[n]; ok {
				continue
			}
			arrived := l.inv.Manifests[n].Modified
			if c.Missing == 0 || arrived.Before(c.Waiting) {
				c.Waiting = arrived.UTC()
			}
			c.Missing++
		}
	}
	newest := uint64(0)
	for n := range there {
		newest = max(newest, n)
	}
	if err := l.independent(ctx, store, newest, c); err != nil {
		return err
	}
	if newest > l.m.LastSeen {
		return fmt.Errorf("it has @%d that the repository has not: the repository was rolled back", newest)
	}
	return nil
}

// independent makes a copy count that nobody can delete for now, whatever the addresses say: its newest manifest is
// locked, in the mode that no right undoes.
func (l *look) independent(ctx context.Context, store objstore.Store, newest uint64, c *compliance.Copy) error {
	inner := store
	if k, ok := store.(counted); ok {
		inner = k.Store
	}
	locker, ok := inner.(objstore.Locker)
	if !c.Dependent || !ok || newest == 0 {
		return nil
	}
	l.w.requests.Add(1)
	lock, err := locker.LockOf(ctx, layout.ManifestKey(snapshot.ID{Source: l.src, Sequence: newest}))
	switch {
	case errors.Is(err, objstore.ErrNoLocks), errors.Is(err, objstore.ErrNotExist), errors.Is(err, objstore.ErrDenied):
		return nil
	case err != nil:
		return fmt.Errorf("ask for the lock of @%d: %w", newest, err)
	}
	c.Dependent = lock.Mode != objstore.Compliance || !lock.Until.After(l.now)
	return nil
}
