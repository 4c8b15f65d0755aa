package repair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/parallel"
	"github.com/btcdecoded/holdfast/shared/repository/record"
)

// logs repairs the logs of a source: heads by their signatures, pieces and segments by the hash that they end with and,
// with a key, by their records.
type logs struct {
	*source
	reader *log.Reader // of what is here and in the copy together
	epochs map[inventory.LogName]*log.Epoch
}

// repairLogs looks at the objects of logs that are on record as damaged, that only the copy has and retention has not
// removed, or, with Options.Check, at all. Heads first: without them nothing else can be proven.
func (s *source) repairLogs(ctx context.Context) error {
	l := &logs{source: s, epochs: map[inventory.LogName]*log.Epoch{}}
	heads, pieces := l.lost()
	if err := l.repairHeads(ctx, heads); err != nil {
		return err
	}
	if err := l.open(ctx); err != nil {
		return err
	}
	for _, e := range s.inv.Logs {
		if s.opts.Check {
			e.All(func(o layout.LogObject, _ inventory.LogPiece) { pieces[o] = "" })
		}
	}
	for o := range s.inv.LogDamaged {
		if _, known := pieces[o]; !known && !o.Head() && s.has(o) {
			pieces[o] = ""
		}
	}
	order := slices.SortedFunc(maps.Keys(pieces), func(a, b layout.LogObject) int {
		return strings.Compare(layout.LogKey(s.src, a), layout.LogKey(s.src, b))
	})
	err := parallel.Each(ctx, s.opts.Workers, order, func(ctx context.Context, o layout.LogObject) error {
		return l.repairPiece(ctx, o, pieces[o])
	})
	if err != nil {
		return err
	}
	return l.clearLogRecords(ctx)
}

// lost are the heads to look at, of which those that only the copy has are marked as missing, and the pieces that only
// the copy has.
func (l *logs) lost() (heads, pieces map[layout.LogObject]string) {
	heads, pieces = map[layout.LogObject]string{}, map[layout.LogObject]string{}
	for name, e := range l.inv.Logs {
		if !e.Head.Modified.IsZero() {
			heads[headOf(name)] = ""
		}
	}
	for name, e := range l.copied.Logs {
		ours := l.inv.Logs[name]
		removed := l.inv.RemovedUpTo(name)
		if (ours == nil || ours.Head.Modified.IsZero()) && (ours != nil || removed == 0) {
			heads[headOf(name)] = missing
		}
		have := map[layout.LogObject]bool{}
		if ours != nil {
			ours.All(func(o layout.LogObject, _ inventory.LogPiece) { have[o] = true })
		}
		e.All(func(o layout.LogObject, p inventory.LogPiece) {
			if !have[o] && o.Last > removed && !covered(ours, o) {
				pieces[o] = missing
			}
		})
	}
	return heads, pieces
}

func headOf(name inventory.LogName) layout.LogObject {
	return layout.LogObject{Stream: name.Stream, Epoch: name.Epoch}
}

// covered reports whether a segment that is here has the records of a piece: prune may have removed it.
func covered(e *inventory.LogEpoch, o layout.LogObject) bool {
	return e != nil && !o.Joined && slices.ContainsFunc(e.Segments, func(s inventory.LogPiece) bool { return s.First <= o.First && o.Last <= s.Last })
}

// has reports whether an object of a log was listed here.
func (s *source) has(o layout.LogObject) bool {
	e := s.inv.Logs[inventory.LogName{Stream: o.Stream, Epoch: o.Epoch}]
	if e == nil {
		return false
	}
	found := false
	e.All(func(at layout.LogObject, _ inventory.LogPiece) { found = found || at == o })
	return found
}

// repairHeads checks heads and puts back those that are missing or no good.
func (l *logs) repairHeads(ctx context.Context, heads map[layout.LogObject]string) error {
	order := slices.SortedFunc(maps.Keys(heads), func(a, b layout.LogObject) int {
		return strings.Compare(layout.LogKey(l.src, a), layout.LogKey(l.src, b))
	})
	return parallel.Each(ctx, l.opts.Workers, order, func(ctx context.Context, o layout.LogObject) error {
		key, problem := layout.LogKey(l.src, o), heads[o]
		if problem == "" {
			var err error
			if _, problem, err = document(ctx, l.repo, key); err != nil || problem == "" || problem == missing {
				return err
			}
		}
		return l.putDocument(ctx, key, problem)
	})
}

// open reads the heads again, from wherever they are good. In a dry run those of the copy serve.
func (l *logs) open(ctx context.Context) error {
	for _, side := range []struct {
		repo *repository.Repository
		inv  *inventory.Inventory
	}{{l.from, l.copied}, {l.repo, l.inv}} {
		if side.repo == nil || len(side.inv.Logs) == 0 {
			continue
		}
		streams, err := log.FromInventory(ctx, side.repo, side.inv)
		if err != nil {
			return err
		}
		for _, st := range streams {
			for _, e := range st.Epochs {
				if have := l.epochs[e.LogName]; have == nil || e.Described != nil {
					l.epochs[e.LogName] = e
				}
			}
		}
	}
	l.reader = log.NewReader(l.repo, l.src, nil)
	return nil
}

// inspect says what is wrong with bytes of an object; empty: nothing.
func (l *logs) inspect(ctx context.Context, o layout.LogObject, b []byte) (string, error) {
	e := l.epochs[inventory.LogName{Stream: o.Stream, Epoch: o.Epoch}]
	if e == nil {
		return "nothing of its epoch is known", nil
	}
	_, err := l.reader.Keys(ctx, e)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if _, err := l.reader.InspectBytes(ctx, e, o, b, err == nil); err != nil {
		return err.Error(), ctx.Err()
	}
	return "", nil
}

// repairPiece looks at one piece or segment and does what [source.repairPack] does with a pack.
func (l *logs) repairPiece(ctx context.Context, o layout.LogObject, problem string) error {
	key := layout.LogKey(l.src, o)
	item := Item{Key: key, Problem: problem}
	if problem == "" {
		b, err := objstore.ReadAll(ctx, l.store, key, objstore.MaxObject)
		if err != nil {
			if item.Problem, err = trouble(ctx, err); err != nil {
				return fmt.Errorf("read %s: %w", key, err)
			}
		} else if item.Problem, err = l.inspect(ctx, o, b); err != nil {
			return err
		}
		item.Size = int64(len(b))
	}
	_, marked := l.inv.LogDamaged[o]
	if item.Problem == "" {
		if !marked {
			return nil
		}
		var doc record.LogDamaged
		if _, err := l.repo.Document(ctx, layout.DamagedLogKey(l.src, o), &doc); err == nil && doc.Problem == record.ProblemGap {
			item.Problem, item.Outcome, item.Reason = doc.Problem, Left, "its bytes are as they were written: what is missing was never stored, and a base backup makes up for it"
			l.note(item)
			return nil
		}
		item.Problem, item.Outcome = "on record as damaged, and in order", Cleared
		return l.clear(ctx, item, layout.DamagedLogKey(l.src, o))
	}
	if item.Problem == missing && problem == "" && covered(l.inv.Logs[inventory.LogName{Stream: o.Stream, Epoch: o.Epoch}], o) {
		return nil // removed meanwhile
	}
	if l.passBy(&item, marked) {
		if marked {
			l.note(item)
		}
		return nil
	}
	good, reason, err := l.fetchPiece(ctx, o)
	if err != nil {
		return err
	}
	if reason == "" {
		if reason, err = l.replace(ctx, key, good, item.Problem != missing); err != nil {
			return fmt.Errorf("put %s back: %w", key, err)
		}
		item.Size = int64(len(good))
	}
	item.Outcome, item.Reason = PutBack, reason
	if reason != "" {
		item.Outcome = Left
	}
	if item.Outcome == PutBack && marked {
		return l.clear(ctx, item, layout.DamagedLogKey(l.src, o))
	}
	l.note(item)
	return nil
}

// fetchPiece reads an object of the copy and proves it.
func (l *logs) fetchPiece(ctx context.Context, o layout.LogObject) (good []byte, reason string, err error) {
	if l.from == nil {
		return nil, "no copy was named", nil
	}
	b, err := objstore.ReadAll(ctx, l.from.Store(), layout.LogKey(l.src, o), objstore.MaxObject)
	if err != nil {
		problem, err := trouble(ctx, err)
		if err != nil {
			return nil, "", fmt.Errorf("the copy: %w", err)
		}
		return nil, "in the copy: " + problem, nil
	}
	problem, err := l.inspect(ctx, o, b)
	if problem != "" {
		problem = "in the copy: " + problem
	}
	return b, problem, err
}

// clearLogRecords removes the records about heads that are in order, and about objects that retention has removed.
func (l *logs) clearLogRecords(ctx context.Context) error {
	for o := range l.inv.LogDamaged {
		name := inventory.LogName{Stream: o.Stream, Epoch: o.Epoch}
		item := Item{Key: layout.DamagedLogKey(l.src, o), Outcome: Cleared}
		switch {
		case o.Head():
			_, problem, err := document(ctx, l.repo, layout.LogKey(l.src, o))
			if err != nil {
				return err
			}
			if problem != "" {
				continue
			}
			item.Problem = "on record as damaged, and in order"
		case !l.has(o) && (o.Last <= l.inv.RemovedUpTo(name) || covered(l.inv.Logs[name], o)):
			item.Problem = "it is about records that were removed"
		default:
			continue
		}
		var doc record.LogDamaged
		if _, err := l.repo.Document(ctx, item.Key, &doc); errors.Is(err, objstore.ErrNotExist) {
			continue // it was cleared with the piece
		}
		if err := l.clear(ctx, item, layout.DamagedLogKey(l.src, o)); err != nil {
			return err
		}
	}
	return nil
}
