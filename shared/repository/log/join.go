package log

import (
	"context"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// MinJoin is how many pieces a segment is made of at least, unless it is full: fewer wait for the next Join.
const MinJoin = 16

// errSpool says that what waits for joining is not what was put.
var errSpool = errors.New("what was kept for joining is not what was stored")

// keep adds a record that is durable to the spool. It is called with w.mu held. Joining is a convenience: where the spool
// can't be written, pieces just stay pieces.
func (w *Writer) keep(p *Prepared) error {
	if w.opts.NoJoin || w.err != nil || p.size > joinSize/2 { // closed meanwhile: the spool would never be given up
		return nil //nolint:nilerr // why the writer is over is said elsewhere
	}
	var err error
	if w.spool == nil {
		w.spool, err = newSpool(w.opts.Temp)
	}
	if err == nil {
		err = w.spool.add(p)
	}
	if err != nil {
		w.opts.NoJoin = true
	}
	return err
}

// Join stores what was put since the last Join once more, as segments of many records, so that a restore reads few
// objects: concatenation, no record is left out or changed. Groups of fewer than least pieces (0: [MinJoin]) wait. It
// returns how many segments it stored. It may run beside Append.
//
// Before it is put, a segment is proven equal to the pieces: its records are taken apart again, each must have the hash of
// the one before it, and the last that of the piece that was put under its number. The pieces stay; who has read both
// removes them (prune, with an identity), or they go with their retention. A crash leaves pieces, or pieces and
// segments, which say the same.
func (w *Writer) Join(ctx context.Context, least int) (int, error) {
	if least <= 0 {
		least = MinJoin
	}
	w.joining.Lock()
	defer w.joining.Unlock()
	segments := 0
	for {
		plain, group, err := w.nextGroup(least)
		if err != nil || group == nil {
			return segments, err
		}
		first, last := group[0], group[len(group)-1]
		o := layout.LogObject{Stream: w.head.Stream, Epoch: w.head.Epoch, First: first.sequence, Last: last.sequence, Joined: true}
		l, err := parseRecords(plain, o)
		if err != nil || l.last().String() != last.record {
			w.forgetGroup(group)
			return segments, fmt.Errorf("join records %d to %d: %w", first.sequence, last.sequence, errors.Join(errSpool, err))
		}
		key, content := layout.LogKey(w.src, o), objstore.Bytes(sealPiece(w.keys, w.repo.Codec(), plain))
		err = w.persist(ctx, func() error { return w.repo.Store().Put(ctx, key, content) })
		if err != nil && !errors.Is(err, objstore.ErrExist) { // of a Join that did not hear the answer, sealed otherwise
			return segments, fmt.Errorf("store %s: %w", key, err)
		}
		w.forgetGroup(group)
		segments++
	}
}

// nextGroup returns the records of the next segment; nil: there is none.
func (w *Writer) nextGroup(least int) ([]byte, []spooled, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.spool != nil && len(w.spool.all) > 0 {
		group, full := cutGroup(w.spool.all)
		if !full && len(group) < least {
			return nil, nil, nil
		}
		if len(group) == 1 {
			w.spool.drop(1) // it is as large as a segment, or alone between two large ones
			continue
		}
		plain, err := w.spool.read(group)
		return plain, append([]spooled(nil), group...), err
	}
	return nil, nil, nil
}

// cutGroup takes the records that make the next segment off all; full says that the next one would not go in.
func cutGroup(all []spooled) (group []spooled, full bool) {
	size := 0
	for i, r := range all {
		if i > 0 && (size+r.size > joinSize || r.sequence != all[i-1].sequence+1) {
			return all[:i], true
		}
		size += r.size
	}
	return all, false
}

// forgetGroup takes what was joined out of the spool, unless that has begun anew meanwhile.
func (w *Writer) forgetGroup(group []spooled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spool != nil && len(w.spool.all) >= len(group) && w.spool.all[0].sequence == group[0].sequence {
		w.spool.drop(len(group))
	}
}
