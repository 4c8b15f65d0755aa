package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
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
	Gap Problem = "its WAL does not go on where that before it ended"
)

// Moments is a stretch of time of which no moment can be restored any more.
type Moments struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"` // zero: to the end
}

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

// momentsOf is what is lost when record n of an epoch can't be applied: from the record before it to the next snapshot
// that holds it.
func (l *logs) momentsOf(e *log.Epoch, n uint64) Moments {
	var m Moments
	switch {
	case e.Described != nil:
		m.From = e.Described.Opened
	case len(e.Pieces) > 0:
		m.From = e.Pieces[0].Arrived()
	}
	for _, p := range e.Pieces {
		if p.Last < n {
			m.From = p.Arrived()
		}
	}
	for _, s := range l.stored {
		if s.Log == nil || s.Finished.Before(m.From) {
			continue
		}
		before := s.Log.Stream == e.Stream && (s.Log.Epoch < e.Epoch || s.Log.Epoch == e.Epoch && s.Log.Sequence < n)
		if !before && (m.To.IsZero() || s.Finished.Before(m.To)) {
			m.To = s.Finished
		}
	}
	return m
}

func (m Moments) String() string {
	const form = "2006-01-02T15:04:05Z"
	if m.To.IsZero() {
		return "no moment after " + m.From.UTC().Format(form) + " can be restored until the next snapshot"
	}
	return "no moment between " + m.From.UTC().Format(form) + " and " + m.To.UTC().Format(form) + " can be restored"
}

// lost adds the moments to a finding.
func (l *logs) lost(key string, problem Problem, m Moments) {
	f := l.c.findings
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := f.byPlace[place{key, problem}]; at != nil && at.Lost == nil {
		at.Lost = &m
	}
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
