package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// maxSmall is how large a file may be that is read as a whole, in bytes.
const maxSmall = 1 << 20

func isMissing(err error) bool { return errors.Is(err, repository.ErrNoPath) }

// readFile reads a small file of a snapshot; nil: it has none.
func readFile(ctx context.Context, snap restorer.Snapshot, name string) ([]byte, error) {
	e, err := snap.Lookup(ctx, name)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if e.Type != snapshot.File || e.Unreadable || e.Size > maxSmall {
		return nil, fmt.Errorf("%w: %s", ErrBase, name)
	}
	out := make([]byte, e.Size)
	var refs []repository.KindRef
	var pieces []snapshot.Extent
	var offsets []uint64
	at := uint64(0)
	err = snap.Extents(ctx, e, func(x snapshot.Extent) error {
		if at+x.Length > e.Size {
			return fmt.Errorf("%w: %s: its extents are longer than it", snapshot.ErrFormat, name)
		}
		if !x.Hole {
			refs = append(refs, repository.KindRef{Kind: snapshot.Content, Ref: x.Ref})
			pieces, offsets = append(pieces, x), append(offsets, at)
		}
		at += x.Length
		return nil
	})
	if err != nil || len(refs) == 0 {
		return out, err
	}
	var mu sync.Mutex
	return out, snap.Chunks(ctx, refs, func(i int, plain []byte, err error) error {
		if err != nil {
			return err
		}
		x := pieces[i]
		if uint64(x.Offset)+x.Length > uint64(len(plain)) {
			return fmt.Errorf("%w: %s: an extent leads past the end of its chunk", snapshot.ErrFormat, name)
		}
		mu.Lock()
		defer mu.Unlock()
		copy(out[offsets[i]:], plain[x.Offset:uint64(x.Offset)+x.Length])
		return nil
	})
}
