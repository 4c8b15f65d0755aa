package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What can be wrong with logs alone.
const (
	// Disconnected is the problem of a record that does not have the hash of the one before it.
	Disconnected Problem = "does not follow the record before it"
	// Gap is the problem of a record that follows, but whose write-ahead log does not.
	Gap Problem = record.ProblemGap
)

// logBatch is how many objects of a log are read before they are compared with each other.
const logBatch = 256

// logs is the verification of the logs of a source. A missing record, of which no record says that retention removed it,
// is an error, and the moments are told that are lost by it. Snapshots are not hit: they hold what they hold.
type logs struct {
	*source
	streams []log.Stream
	reader  *log.Reader
	removed map[inventory.LogName]uint64 // up to which record, by valid records
	known   map[inventory.LogName]uint64 // the highest record that was there for sure
	bad     map[layout.LogObject]Problem // that failed
	hashes  map[snapshot.Hash]string     // key of the object with these bytes
	claims  map[inventory.LogName]map[uint64][]claim
	fresh   bool // removed was read again after something was missing

	walEnds   walEnds
	walBegins []walBegin
}

// claim is what a signed document says of a record.
type claim struct{ key, record string }

// maxLogHashes bounds the memory for finding objects with the same bytes without a key.
const maxLogHashes = 200_000

// checkLogs is the level's check of all logs of the source. A run that is about single snapshots leaves them out.
func (s *source) checkLogs(ctx context.Context) error {
	if len(s.c.opts.Snapshots) > 0 {
		return nil
	}
	l, err := s.openLogs(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{l.checkHeads, l.checkCuts, l.checkHoles, l.checkObjects, l.recordDamage} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) openLogs(ctx context.Context) (*logs, error) {
	l := &logs{
		source: s, removed: map[inventory.LogName]uint64{}, known: map[inventory.LogName]uint64{}, bad: map[layout.LogObject]Problem{},
		hashes: map[snapshot.Hash]string{}, claims: map[inventory.LogName]map[uint64][]claim{}, walEnds: walEnds{},
	}
	var err error
	l.streams, err = log.FromInventory(ctx, s.c.repo, s.inv)
	l.reader = log.NewReader(s.c.repo, s.src, l.streams)
	return l, err
}

// each calls fn with every epoch that is there.
func (l *logs) each(fn func(*log.Epoch) error) error {
	for _, st := range l.streams {
		for _, e := range st.Epochs {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func head(name inventory.LogName) layout.LogObject {
	return layout.LogObject{Stream: name.Stream, Epoch: name.Epoch}
}

func (l *logs) key(o layout.LogObject) string { return layout.LogKey(l.src, o) }

// checkHeads names heads that do not count, and finds out which records were there.
func (l *logs) checkHeads(ctx context.Context) error {
	know := func(p *snapshot.LogPlace, key string) {
		if p == nil || p.Epoch == 0 {
			return
		}
		name := inventory.LogName{Stream: p.Stream, Epoch: p.Epoch}
		l.known[name] = max(l.known[name], p.Sequence)
		if l.claims[name] == nil {
			l.claims[name] = map[uint64][]claim{}
		}
		l.claims[name][p.Sequence] = append(l.claims[name][p.Sequence], claim{key, p.Record})
	}
	for n, m := range l.stored {
		know(m.Log, l.inv.ManifestKey(n))
	}
	return l.each(func(e *log.Epoch) error {
		key := l.key(head(e.LogName))
		if e.Described != nil {
			l.documents.Add(1)
			know(e.Described.Continues, key)
			return nil
		}
		if e.Head.Modified.IsZero() {
			return nil // checkHoles tells what is lost
		}
		doc, err := l.c.repo.Document(ctx, key, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = e.Err
		}
		problem := l.badDocument(key, doc, err)
		l.lost(key, problem, l.momentsOf(e, 1))
		if doc != nil {
			l.bad[head(e.LogName)] = problem
		}
		return nil
	})
}

// checkCuts checks the announced and recorded removals of records.
func (l *logs) checkCuts(ctx context.Context) error {
	for _, one := range []struct {
		cuts map[inventory.Cut]inventory.Object
		key  func(snapshot.Source, string, uint64, uint64) string
		done bool
	}{{l.inv.LogCondemned, layout.CondemnedLogKey, false}, {l.inv.LogExpired, layout.ExpiredLogKey, true}} {
		for c := range one.cuts {
			var doc record.LogCut
			key := one.key(l.src, c.Stream, c.Epoch, c.Last)
			if !l.document(ctx, key, &doc) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			if doc.Stream != c.Stream || doc.Epoch != c.Epoch || doc.Sequence != c.Last {
				l.c.findings.add(key, Malformed, fmt.Sprintf("it is about record %d of epoch %d of stream %.40s", doc.Sequence, doc.Epoch, doc.Stream))
				continue
			}
			if one.done {
				l.removed[c.LogName] = max(l.removed[c.LogName], c.Last)
			}
		}
	}
	return nil
}

// checkHoles finds records that should be there.
func (l *logs) checkHoles(context.Context) error {
	seen := map[inventory.LogName]bool{}
	err := l.each(func(e *log.Epoch) error {
		seen[e.LogName] = true
		start := uint64(1)
		if e.Described != nil && e.Described.Continues != nil {
			start = e.Described.Continues.Sequence + 1
		}
		if runs := e.Runs(); e.Described == nil && len(runs) > 0 {
			start = runs[0].First
		}
		if e.Head.Modified.IsZero() {
			key := l.key(head(e.LogName))
			l.c.findings.add(key, Missing, "nothing of the epoch can be read without it")
			l.lost(key, Missing, l.momentsOf(e, 1))
		}
		due := max(start, l.removed[e.LogName]+1)
		for _, r := range e.Runs() {
			if r.First > due {
				l.hole(e, due, r.First-1)
			}
			due = max(due, r.Last+1)
		}
		if last := l.known[e.LogName]; last >= due {
			l.hole(e, due, last)
		}
		return nil
	})
	for name, last := range l.known {
		if !seen[name] && last > l.removed[name] {
			l.c.findings.add(l.key(head(name)), Missing, fmt.Sprintf("nothing of the epoch is there; record %d was, and no record says that retention removed it", last))
		}
	}
	return err
}

// hole names missing records. The key is that of the first piece.
func (l *logs) hole(e *log.Epoch, first, last uint64) {
	o := layout.LogObject{Stream: e.Stream, Epoch: e.Epoch, First: first, Last: first}
	what := fmt.Sprintf("record %d", first)
	if last > first {
		what = fmt.Sprintf("records %d to %d", first, last)
	}
	moments := l.momentsOf(e, first)
	l.c.findings.add(l.key(o), Missing, what+" are gone, and no record says that retention removed them: "+moments.String())
	l.lost(l.key(o), Missing, moments)
}

// checkObjects reads pieces and segments, as the level asks.
func (l *logs) checkObjects(ctx context.Context) error {
	for o := range l.inv.LogDamaged {
		if l.c.opts.Level == Structure {
			l.c.findings.warn(l.key(o), KnownDamaged, "repair reads it again, and takes the record back if it is in order")
		}
	}
	if l.c.opts.Level == Structure {
		return nil
	}
	_, err := l.readObjects(ctx, func(o layout.LogObject, _ inventory.LogPiece) bool {
		return l.c.opts.Sample.Chooses(sha256.Sum256([]byte(l.key(o))))
	}, func([]layout.LogObject) bool { return false })
	return err
}

// readObjects reads the chosen objects in the order of their keys, until after tells it to stop; it reports whether it came
// to the end.
func (l *logs) readObjects(ctx context.Context, choose func(layout.LogObject, inventory.LogPiece) bool, after func([]layout.LogObject) (stop bool)) (bool, error) {
	for _, st := range l.streams {
		for _, e := range st.Epochs {
			c, err := l.chain(ctx, e)
			if err != nil {
				return false, err
			}
			var all []layout.LogObject
			e.All(func(o layout.LogObject, p inventory.LogPiece) {
				if choose(o, p) {
					all = append(all, o)
				}
			})
			for part := range slices.Chunk(all, logBatch) {
				if err := c.read(ctx, part); err != nil {
					return false, err
				}
				if after(part) {
					return false, nil
				}
			}
			c.finish()
		}
	}
	l.checkWAL()
	return true, nil
}

// recordDamage tells writers, who then make a snapshot that needs none of it, and repair, what failed.
func (l *logs) recordDamage(ctx context.Context) error {
	for o, problem := range l.bad {
		key := layout.DamagedLogKey(l.src, o)
		if _, ok := l.inv.LogDamaged[o]; ok || !l.c.record || !l.c.repo.MaySign(key) {
			continue
		}
		err := l.c.repo.PutDocument(ctx, key, record.LogDamaged{
			Stream: o.Stream, Epoch: o.Epoch, First: o.First, Last: o.Last, Time: l.c.opts.Now().UTC(), Problem: string(problem),
		})
		switch {
		case errors.Is(err, objstore.ErrDenied), errors.Is(err, objstore.ErrFull):
			l.c.record, l.c.result.Recorded, l.c.result.Unrecorded = false, false, err
		case err != nil && !errors.Is(err, objstore.ErrExist):
			return fmt.Errorf("record the damage of %s: %w", l.key(o), err)
		}
	}
	return nil
}
