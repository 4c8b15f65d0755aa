package log

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Inspection is what was found in a piece or a segment.
type Inspection struct {
	Size     int64         // bytes of the object
	Sum      snapshot.Hash // SHA-256 of the object's bytes
	Previous snapshot.Hash // that its first record says of the one before it; with a key only, as what follows
	Last     snapshot.Hash // hash of its last record
	Records  int
	Time     time.Time // of its last record

	// Of kind [KindPostgres]:
	WAL     postgres.LSN              // where the first WAL in it starts; 0: there is none
	Ends    []postgres.LSN            // of each record, where the WAL up to it ends; 0: not known
	History *postgres.TimelineHistory // of the stream's own timeline, if it is in there
	Gap     error                     // the records are as they were written, but WAL does not go on: a *PositionError
}

// bodies checks what is in the records.
func (i *Inspection) bodies(e *Epoch, entries []entry) error {
	h := e.Described
	var position Position
	if h.Kind == KindPostgres {
		position.Enter(e.Stream, h.Postgres, false)
	}
	for k := range entries {
		var rec Record
		if err := decodeBody(h, &entries[k], &rec); err != nil {
			return err
		}
		if h.Kind != KindPostgres {
			continue
		}
		if err := position.Take(&rec, h.Postgres.SegmentSize); err != nil && i.Gap == nil {
			i.Gap = fmt.Errorf("record %d: %w", entries[k].sequence, err)
		}
		if rec.WAL != nil && i.WAL == 0 {
			i.WAL = rec.WAL.Start
		}
		i.Ends = append(i.Ends, position.Next())
	}
	i.History = position.history
	return nil
}

// Inspect reads a piece or a segment and checks it, for those who verify and repair: without keys that its bytes are those
// that were stored, else that every record in it is in order and follows the one before it. Errors: those of the store,
// and whatever is wrong: ErrTorn, ErrName, ErrChain, snapshot.ErrFormat, seal.ErrAuth, seal.ErrEncoding; not wrapped
// in others. The inspection has Size and Sum beside an error too, if anything came.
func (r *Reader) Inspect(ctx context.Context, e *Epoch, o layout.LogObject, deep bool) (Inspection, error) {
	b, err := objstore.ReadAll(ctx, r.repo.Store(), layout.LogKey(r.src, o), objstore.MaxObject)
	if err != nil {
		return Inspection{}, err
	}
	return r.InspectBytes(ctx, e, o, b, deep)
}

// InspectBytes is [Reader.Inspect] of bytes that were read already.
func (r *Reader) InspectBytes(ctx context.Context, e *Epoch, o layout.LogObject, b []byte, deep bool) (Inspection, error) {
	i := Inspection{Size: int64(len(b)), Sum: sha256.Sum256(b)}
	if !deep {
		_, err := CheckPiece(b)
		return i, err
	}
	keys, err := r.Keys(ctx, e)
	if err != nil {
		return i, err
	}
	plain, err := openPiece(keys, r.repo.Codec(), b)
	if err != nil {
		return i, err
	}
	l, err := parseRecords(plain, o)
	if err != nil {
		return i, err
	}
	if err := i.bodies(e, l.entries); err != nil {
		return i, err
	}
	n := len(l.entries)
	i.Previous, i.Last, i.Records = l.entries[0].previous, l.hashes[n-1], n
	i.Time = time.Unix(0, l.entries[n-1].time).UTC()
	return i, nil
}
