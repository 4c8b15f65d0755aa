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
	u, err := unseal(keys, codec, b)
	if err != nil {
		return nil, err
	}
	return u.plain, u.check(keys, 0)
}

// unsealed is the content of a piece or a segment. What was stored is authentic; that it was decompressed to what was once
// compressed is not proven yet.
type unsealed struct {
	plain  []byte
	chunks []snapshot.IndexEntry
}

// unseal is openPiece without comparing the ids of chunks.
func unseal(keys *seal.Keys, codec *seal.Codec, b []byte) (*unsealed, error) {
	pack, err := CheckPiece(b)
	if err != nil {
		return nil, err
	}
	opener, index, err := openIndex(keys, pack)
	if err != nil {
		return nil, err
	}
	total := 0
	for i := range index {
		if total += int(index[i].Plain); total > snapshot.MaxPack {
			return nil, fmt.Errorf("%w: more than %d bytes of records", snapshot.ErrFormat, snapshot.MaxPack)
		}
	}
	plain := make([]byte, 0, total)
	var encoded []byte
	offset := uint32(snapshot.PackHeaderSize)
	for i := range index {
		e := &index[i]
		if encoded, err = opener.Open(encoded[:0], offset, e.Kind, e.ID, pack[offset:offset+e.Sealed]); err != nil {
			return nil, err
		}
		if plain, err = codec.Decompress(plain, encoded, int(e.Plain)); err != nil {
			return nil, err
		}
		offset += e.Sealed
	}
	return &unsealed{plain, index}, nil
}

// openIndex opens the list of a piece's chunks.
func openIndex(keys *seal.Keys, pack []byte) (*seal.Pack, []snapshot.IndexEntry, error) {
	salt, err := snapshot.ParsePackHeader(pack)
	if err != nil {
		return nil, nil, err
	}
	at, length, err := snapshot.ParsePackFooter(pack, uint64(len(pack)))
	if err != nil {
		return nil, nil, err
	}
	opener := keys.Pack(salt)
	index, err := opener.OpenIndex(at, pack[at:at+length])
	if err != nil {
		return nil, nil, err
	}
	for i := range index {
		if index[i].Kind != snapshot.Log {
			return nil, nil, fmt.Errorf("%w: chunk of kind %q in a log", snapshot.ErrFormat, byte(index[i].Kind))
		}
	}
	return opener, index, nil
}

// check compares the ids of all chunks that end behind a place. Its error is seal.ErrAuth.
func (u *unsealed) check(keys *seal.Keys, from int) error {
	end := 0
	for i := range u.chunks {
		e := &u.chunks[i]
		start := end
		if end += int(e.Plain); end <= from {
			continue
		}
		if keys.ChunkID(snapshot.Log, u.plain[start:end]) != e.ID {
			return fmt.Errorf("%w: a chunk's id does not match its content", seal.ErrAuth)
		}
	}
	return nil
}

// holds reports whether a piece says of itself that it holds just these bytes: by the ids of its chunks, which need a key to be
// made, and which need not be opened for that. What is damaged holds nothing.
func holds(keys *seal.Keys, b, plain []byte) bool {
	if len(b) < snapshot.MinPack+sha256.Size {
		return false
	}
	_, index, err := openIndex(keys, b[:len(b)-sha256.Size])
	if err != nil {
		return false
	}
	for i := range index {
		n := int(index[i].Plain)
		if n > len(plain) || keys.ChunkID(snapshot.Log, plain[:n]) != index[i].ID {
			return false
		}
		plain = plain[n:]
	}
	return len(plain) == 0
}

// loaded is the records of a piece or a segment.
type loaded struct {
	entries []entry
	hashes  []snapshot.Hash // of entries
	tail    int             // where the last record begins, with its length, in the plain bytes
	open    *unsealed       // the last record is not proven; nil: it is
}

func (l *loaded) last() snapshot.Hash { return l.hashes[len(l.hashes)-1] }

// prove proves the last record by the ids of the chunks that it is in. All others are proven by the hashes that those after them
// have, so that no byte needs to be hashed twice.
func (l *loaded) prove(keys *seal.Keys) error {
	if l.open == nil {
		return nil
	}
	err := l.open.check(keys, l.tail)
	if err == nil {
		l.open = nil
	}
	return err
}

// parseRecords takes the records of an object apart and checks that they are those that its name says and follow each
// other.
func parseRecords(plain []byte, o layout.LogObject) (*loaded, error) {
	l := &loaded{}
	at := 0
	for len(plain) > 0 {
		b, n, err := nextFrame(plain)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("%w: the last record is truncated", snapshot.ErrFormat)
		}
		plain = plain[n:]
		l.tail, at = at, at+n
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
	return loadWith(ctx, repo, src, o, func(key string, b []byte) (*loaded, error) {
		l, err := parsePiece(repo, keys, key, o, b)
		if err == nil {
			err = l.open.check(keys, 0)
		}
		if err != nil {
			return nil, &repository.DamageError{Key: key, Err: err}
		}
		l.open = nil
		return l, nil
	})
}

// loadOpen is load, with the last record not proven yet.
func loadOpen(ctx context.Context, repo *repository.Repository, src snapshot.Source, keys *seal.Keys, o layout.LogObject) (*loaded, error) {
	return loadWith(ctx, repo, src, o, func(key string, b []byte) (*loaded, error) { return parsePiece(repo, keys, key, o, b) })
}

func loadWith(
	ctx context.Context, repo *repository.Repository, src snapshot.Source, o layout.LogObject, parse func(key string, b []byte) (*loaded, error),
) (*loaded, error) {
	key := layout.LogKey(src, o)
	l, err := loadFrom(ctx, repo.Store(), key, parse)
	var damage *repository.DamageError
	if errors.As(err, &damage) {
		repo.Recover(ctx, damage.Key, damage.Err, func(_ int, store objstore.Store) error {
			found, ferr := loadFrom(ctx, store, key, parse)
			if ferr == nil {
				l, err = found, nil
			}
			return ferr
		})
	}
	return l, err
}

func loadFrom(ctx context.Context, store objstore.Store, key string, parse func(key string, b []byte) (*loaded, error)) (*loaded, error) {
	b, err := objstore.ReadAll(ctx, store, key, objstore.MaxObject)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, &repository.DamageError{Key: key, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return parse(key, b)
}

// parsePiece takes an object apart. Its last record is not proven; see [loaded.prove].
func parsePiece(repo *repository.Repository, keys *seal.Keys, key string, o layout.LogObject, b []byte) (*loaded, error) {
	u, err := unseal(keys, repo.Codec(), b)
	if err != nil {
		return nil, &repository.DamageError{Key: key, Err: err}
	}
	l, err := parseRecords(u.plain, o)
	if err == nil {
		l.open = u
		return l, nil
	}
	if wrong := u.check(keys, 0); wrong != nil {
		err = wrong // what was decompressed is not what was stored: that is why
	}
	return nil, &repository.DamageError{Key: key, Err: err}
}
