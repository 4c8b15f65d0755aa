package log

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// What can be wrong with a piece or a segment, besides what [seal] and [snapshot] find.
var (
	// ErrTorn needs no key to be seen.
	ErrTorn = errors.New("the bytes are not those that were stored: their hash is another")
	// ErrChain says that a record does not have the hash of the one before it.
	ErrChain = errors.New("does not follow the record before it")
	// ErrName says that a piece was stored under another name, or another in its place.
	ErrName = errors.New("replayed or exchanged: it holds other records than its name says")
	// ErrOther says that a segment is not what its pieces are.
	ErrOther = errors.New("it holds other records than its pieces, which count")
)

// sealPiece returns the object that holds the records in plain, each with its length: a pack of chunks of kind
// [snapshot.Log], and the SHA-256 of the pack's bytes.
func sealPiece(keys *seal.Keys, codec *seal.Codec, plain []byte) []byte {
	salt := seal.NewSalt()
	sealer := keys.Pack(salt)
	out := snapshot.AppendPackHeader(make([]byte, 0, len(plain)/2+512), salt)
	var index []snapshot.IndexEntry
	var encoded []byte
	for len(plain) > 0 {
		chunk := plain[:min(len(plain), chunkSize)]
		plain = plain[len(chunk):]
		id := keys.ChunkID(snapshot.Log, chunk)
		encoded = codec.Compress(encoded[:0], chunk)
		offset := len(out)
		out = sealer.Seal(out, uint32(offset), snapshot.Log, id, encoded)
		index = append(index, snapshot.IndexEntry{Kind: snapshot.Log, ID: id, Sealed: uint32(len(out) - offset), Plain: uint32(len(chunk))})
	}
	at := len(out)
	out = sealer.SealIndex(out, uint32(at), index)
	out = snapshot.AppendPackFooter(out, len(out)-at)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// CheckPiece checks what can be told of a piece or a segment without a key: that its bytes are those that were stored, as
// long as nobody wanted to deceive. It returns the pack in it. Errors: ErrTorn, snapshot.ErrFormat.
func CheckPiece(b []byte) (pack []byte, err error) {
	if len(b) < snapshot.MinPack+sha256.Size {
		return nil, fmt.Errorf("%w: %d bytes", snapshot.ErrFormat, len(b))
	}
	pack = b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(pack); !bytes.Equal(sum[:], b[len(pack):]) {
		return nil, ErrTorn
	}
	if _, err := snapshot.ParsePackHeader(pack); err != nil {
		return nil, err
	}
	_, _, err = snapshot.ParsePackFooter(pack, uint64(len(pack)))
	return pack, err
}

// openPiece checks, opens and decompresses a piece, and returns the records' bytes. Errors: those of [CheckPiece],
// seal.ErrAuth, seal.ErrEncoding.
func openPiece(keys *seal.Keys, codec *seal.Codec, b []byte) ([]byte, error) {
	pack, err := CheckPiece(b)
	if err != nil {
		return nil, err
	}
	salt, err := snapshot.ParsePackHeader(pack)
	if err != nil {
		return nil, err
	}
	at, length, err := snapshot.ParsePackFooter(pack, uint64(len(pack)))
	if err != nil {
		return nil, err
	}
	opener := keys.Pack(salt)
	index, err := opener.OpenIndex(at, pack[at:at+length])
	if err != nil {
		return nil, err
	}
	total := 0
	for i := range index {
		if index[i].Kind != snapshot.Log {
			return nil, fmt.Errorf("%w: chunk of kind %q in a log", snapshot.ErrFormat, byte(index[i].Kind))
		}
		if total += int(index[i].Plain); total > snapshot.MaxPack {
			return nil, fmt.Errorf("%w: more than %d bytes of records", snapshot.ErrFormat, snapshot.MaxPack)
		}
	}
	plain := make([]byte, 0, total)
	offset := uint32(snapshot.PackHeaderSize)
	for i := range index {
		e := &index[i]
		encoded, err := opener.Open(nil, offset, e.Kind, e.ID, pack[offset:offset+e.Sealed])
		if err != nil {
			return nil, err
		}
		start := len(plain)
		if plain, err = codec.Decompress(plain, encoded, int(e.Plain)); err != nil {
			return nil, err
		}
		if keys.ChunkID(snapshot.Log, plain[start:]) != e.ID {
			return nil, fmt.Errorf("%w: a chunk's id does not match its content", seal.ErrAuth)
		}
		offset += e.Sealed
	}
	return plain, nil
}

// loaded is the records of a piece or a segment.
type loaded struct {
	entries []entry
	hashes  []snapshot.Hash // of entries
}

func (l *loaded) last() snapshot.Hash { return l.hashes[len(l.hashes)-1] }

// parseRecords takes the records of an object apart and checks that they are those that its name says and follow each
// other.
func parseRecords(plain []byte, o layout.LogObject) (*loaded, error) {
	l := &loaded{}
	for len(plain) > 0 {
		b, n, err := nextFrame(plain)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("%w: the last record is truncated", snapshot.ErrFormat)
		}
		plain = plain[n:]
		e, err := decodeEntry(b)
		if err != nil {
			return nil, err
		}
		switch k := len(l.entries); {
		case e.sequence != o.First+uint64(k) || e.sequence > o.Last:
			return nil, fmt.Errorf("%w: record %d", ErrName, e.sequence)
		case k > 0 && e.previous != l.hashes[k-1]:
			return nil, fmt.Errorf("record %d %w", e.sequence, ErrChain)
		}
		l.entries, l.hashes = append(l.entries, e), append(l.hashes, sha256.Sum256(b))
	}
	if n := uint64(len(l.entries)); n != o.Last-o.First+1 {
		return nil, fmt.Errorf("%w: %d records", ErrName, n)
	}
	return l, nil
}

// load reads an object of a log, from elsewhere if it is damaged here and the repository's readers may look there. What is
// wrong with it is a *repository.DamageError; other errors are the store's.
func load(ctx context.Context, repo *repository.Repository, src snapshot.Source, keys *seal.Keys, o layout.LogObject) (*loaded, error) {
	l, err := loadFrom(ctx, repo, repo.Store(), src, keys, o)
	var damage *repository.DamageError
	if errors.As(err, &damage) {
		repo.Recover(ctx, damage.Key, damage.Err, func(_ int, store objstore.Store) error {
			found, ferr := loadFrom(ctx, repo, store, src, keys, o)
			if ferr == nil {
				l, err = found, nil
			}
			return ferr
		})
	}
	return l, err
}

func loadFrom(
	ctx context.Context, repo *repository.Repository, store objstore.Store, src snapshot.Source, keys *seal.Keys, o layout.LogObject,
) (*loaded, error) {
	key := layout.LogKey(src, o)
	b, err := objstore.ReadAll(ctx, store, key, objstore.MaxObject)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, &repository.DamageError{Key: key, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return parsePiece(repo, keys, key, o, b)
}

func parsePiece(repo *repository.Repository, keys *seal.Keys, key string, o layout.LogObject, b []byte) (*loaded, error) {
	plain, err := openPiece(keys, repo.Codec(), b)
	if err == nil {
		var l *loaded
		if l, err = parseRecords(plain, o); err == nil {
			return l, nil
		}
	}
	return nil, &repository.DamageError{Key: key, Err: err}
}
