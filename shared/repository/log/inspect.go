package log

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
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
	for k := range l.entries {
		var rec Record
		if e.Described.Kind != KindSQLite {
			break
		}
		if err := decodePages(l.entries[k].body, &rec); err != nil {
			return i, err
		}
	}
	n := len(l.entries)
	i.Previous, i.Last, i.Records = l.entries[0].previous, l.hashes[n-1], n
	i.Time = time.Unix(0, l.entries[n-1].time).UTC()
	return i, nil
}
