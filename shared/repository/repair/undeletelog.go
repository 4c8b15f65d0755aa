package repair

import (
	"context"
	"strings"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/inventory"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// epochProof proves pieces and segments of an epoch.
type epochProof struct {
	reader *log.Reader
	epoch  *log.Epoch // nil: no head authenticates
	deep   bool       // its key can be opened
}

// logObject is the name of a piece or a segment; false: the key is of something else.
func logObject(key string) (src snapshot.Source, o layout.LogObject, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(key, layout.Prefix), "/", 4)
	if len(parts) < 4 || parts[2] != "log" {
		return src, o, false
	}
	src = snapshot.Source{Host: parts[0], Name: parts[1]}
	o, err := layout.ParseLog(src, key)
	return src, o, err == nil && !o.Head()
}

// piece is the proof of an object of a log: with the key of its epoch that its records are those that its name says, each
// after the one before it; without it that its bytes are those that were stored, which nobody needs a key to pretend.
func (u *undeleter) piece(src snapshot.Source, o layout.LogObject) proof {
	return func(ctx context.Context, v objstore.Version) (bool, error) {
		if v.Size > objstore.MaxObject {
			return false, nil
		}
		p, err := u.epoch(ctx, src, o)
		if err != nil {
			return false, err
		}
		b, err := u.read(ctx, v)
		if err != nil {
			return false, err
		}
		if !p.deep {
			_, err := log.CheckPiece(b)
			return err == nil, nil
		}
		_, err = p.reader.InspectBytes(ctx, p.epoch, o, b, true)
		return err == nil, ctx.Err()
	}
}

// epoch reads the newest head of an epoch that authenticates, hidden or not, once.
func (u *undeleter) epoch(ctx context.Context, src snapshot.Source, o layout.LogObject) (*epochProof, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	key := layout.LogKey(src, layout.LogObject{Stream: o.Stream, Epoch: o.Epoch})
	if p := u.epochs[key]; p != nil {
		return p, nil
	}
	all, err := u.versions(ctx, key)
	if err != nil {
		return nil, err
	}
	p := &epochProof{reader: log.NewReader(u.repo, src, nil)}
	for _, v := range all {
		if v.DeleteMarker || v.Size > maxDocument {
			continue
		}
		b, err := u.read(ctx, v)
		if err != nil {
			return nil, err
		}
		var h record.LogHead
		if u.repo.DecodeDocument(key, b, &h) == nil && h.Check(src, o.Stream, o.Epoch) == nil {
			p.epoch = &log.Epoch{LogEpoch: &inventory.LogEpoch{LogName: inventory.LogName{Stream: o.Stream, Epoch: o.Epoch}}, Described: &h}
			break
		}
	}
	if p.epoch != nil {
		_, err = p.reader.Keys(ctx, p.epoch)
		p.deep = err == nil
	}
	if ctx.Err() == nil {
		u.epochs[key] = p
	}
	return p, ctx.Err()
}
