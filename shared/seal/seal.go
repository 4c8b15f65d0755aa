// Package seal is the cryptography of chunks: keys derived from a chain's data key, chunk ids, compression, and the sealing
// of chunks in packs. It does no I/O. Everything here is safe for concurrent use, except [FileHasher].
//
// Use [NewKeys] for a chain, [Keys.Pack] for one pack, and a [Codec] between plain chunks and what is sealed. The bytes are
// those of docs/format.md, "Keys" and "Packs"; they do not change within a version of the format.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Overhead is how many bytes longer a sealed chunk is than its encoding.
const Overhead = 16

// ErrAuth says that a sealed chunk is not what was sealed: damaged, exchanged, at another place, or under another key.
var ErrAuth = errors.New("authentication failed: the chunk is damaged or not the one that was named")

const (
	infoKeyID   = "holdfast v1 key id"
	infoChunkID = "holdfast v1 chunk id"
	infoFileID  = "holdfast v1 file id"
	infoPageID  = "holdfast v1 page id" // of the host alone
	infoGear    = "holdfast v1 gear"
	infoPack    = "holdfast v1 pack"
	domainChunk = "holdfast v1 chunk\x00"
)

// DataKey is the secret of one chain; all others are derived from it. It never prints itself.
type DataKey [32]byte

// NewDataKey returns a random data key.
func NewDataKey() (k DataKey) {
	_, _ = rand.Read(k[:]) // never fails: the program ends where the system has no randomness
	return k
}

// ID returns the key id, by which whoever unwraps the key can tell that it is the right one.
func (k DataKey) ID(repo snapshot.RepositoryID) (id snapshot.Hash) {
	copy(id[:], k.derive(repo[:], infoKeyID, len(id)))
	return id
}

// Format implements [fmt.Formatter]: whatever the verb, the key is not shown.
func (k DataKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret data key)")) }

// MarshalText implements [encoding.TextMarshaler]: the key is not shown.
func (k DataKey) MarshalText() ([]byte, error) { return []byte("(secret data key)"), nil }

// derive is HKDF-SHA-256, extract and expand.
func (k DataKey) derive(salt []byte, info string, length int) []byte {
	b, err := hkdf.Key(sha256.New, k[:], salt, info, length)
	if err != nil {
		panic("seal: derive " + info + ": " + err.Error()) // only for lengths over 255 hashes
	}
	return b
}

// Context is what the data key of a chain is used for. Chunks open only in the context in which they were sealed.
type Context struct {
	Repository snapshot.RepositoryID
	Source     snapshot.Source
	Chain      snapshot.ChainID
}

// Keys are the keys of one chain.
type Keys struct {
	key     DataKey
	prefix  []byte // of the associated data, up to the kind
	gear    [256]uint64
	fileKey []byte
	chunks  *macs
	files   *macs
	pages   *pages
	scratch sync.Pool // *scratch
}

// NewKeys derives the keys of a chain.
func NewKeys(key DataKey, c Context) *Keys {
	k := &Keys{key: key, fileKey: key.derive(nil, infoFileID, 32)}
	k.chunks = newMACs(key.derive(nil, infoChunkID, 32))
	k.files = newMACs(k.fileKey)
	k.pages = newPages(key.derive(nil, infoPageID, 32))
	table := key.derive(nil, infoGear, 8*len(k.gear))
	for i := range k.gear {
		k.gear[i] = binary.BigEndian.Uint64(table[8*i:])
	}
	source := c.Source.String()
	k.prefix = append(k.prefix, domainChunk...)
	k.prefix = append(k.prefix, c.Repository[:]...)
	k.prefix = binary.AppendUvarint(k.prefix, uint64(len(source)))
	k.prefix = append(k.prefix, source...)
	k.prefix = append(k.prefix, c.Chain[:]...)
	k.scratch.New = func() any { return &scratch{aad: make([]byte, 0, len(k.prefix)+1+len(snapshot.Hash{}))} }
	return k
}

// ChunkID returns the id of a chunk.
func (k *Keys) ChunkID(kind snapshot.Kind, plain []byte) (id snapshot.Hash) {
	m := k.chunks.get()
	m.kind[0] = byte(kind)
	m.hash.Write(m.kind[:])
	m.hash.Write(plain)
	copy(id[:], m.sum())
	k.chunks.put(m)
	return id
}

// FileID returns the id of a file with this content.
func (k *Keys) FileID(content []byte) (id snapshot.FileID) {
	m := k.files.get()
	m.hash.Write(content)
	copy(id[:], m.sum())
	k.files.put(m)
	return id
}

// PageID is the keyed hash by which the pages of a database are compared. It stays on the host, and is not part of the
// format: a GMAC whose nonce is always the same, which makes it a universal hash. That is several times faster than an
// HMAC, and enough for what nobody gets to see: without the key, two pages have the same hash with a chance of less than
// 2^-118.
func (k *Keys) PageID(content []byte) snapshot.FileID { return k.pages.sum(content) }

// FileHasher returns what computes the id of a file whose content comes bit by bit.
func (k *Keys) FileHasher() *FileHasher { return &FileHasher{mac: hmac.New(sha256.New, k.fileKey)} }

// Gear returns the chain's table for the chunker. It must not be changed.
func (k *Keys) Gear() *[256]uint64 { return &k.gear }

// FileHasher computes a file id. It is for one goroutine.
type FileHasher struct{ mac hash.Hash }

// Write adds content; it never fails.
func (h *FileHasher) Write(p []byte) (int, error) { return h.mac.Write(p) }

// Sum returns the id of the content written so far.
func (h *FileHasher) Sum() (id snapshot.FileID) {
	copy(id[:], h.mac.Sum(nil))
	return id
}

// Reset forgets the content.
func (h *FileHasher) Reset() { h.mac.Reset() }

// macs is a pool of HMAC states under one key, so that a MAC costs one pass over its input and no allocation.
type macs struct{ pool sync.Pool }

type mac struct {
	hash hash.Hash
	kind [1]byte
	buf  [sha256.Size]byte
}

func newMACs(key []byte) *macs {
	m := &macs{}
	m.pool.New = func() any { return &mac{hash: hmac.New(sha256.New, key)} }
	return m
}

func (m *macs) get() *mac  { return m.pool.Get().(*mac) }
func (m *macs) put(x *mac) { m.pool.Put(x) }

// sum returns the MAC, valid until the next use, and resets the state.
func (x *mac) sum() []byte {
	b := x.hash.Sum(x.buf[:0])
	x.hash.Reset()
	return b
}

// Pack seals and opens the chunks of one pack.
type Pack struct {
	keys *Keys
	aead cipher.AEAD
}

// scratch is what a call of Seal or Open needs besides its arguments.
type scratch struct {
	nonce [12]byte
	aad   []byte
}

// Pack derives the key of the pack with this salt.
func (k *Keys) Pack(salt [32]byte) *Pack {
	block, err := aes.NewCipher(k.key.derive(salt[:], infoPack, 32))
	if err != nil {
		panic("seal: " + err.Error()) // only for other key sizes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: " + err.Error()) // only for other block sizes
	}
	return &Pack{keys: k, aead: aead}
}

// NewSalt returns 32 random bytes for a new pack. A salt must not be used for a second pack: offsets are nonces.
func NewSalt() (salt [32]byte) {
	_, _ = rand.Read(salt[:])
	return salt
}

// Seal appends the sealed chunk to dst. offset is the chunk's place in the pack: it is the nonce, so that a pack must never
// seal two different chunks at one offset. encoded is what [Codec.Compress] returns, not longer than 16 MiB + 1.
func (p *Pack) Seal(dst []byte, offset uint32, kind snapshot.Kind, id snapshot.Hash, encoded []byte) []byte {
	s := p.prepare(offset, kind, &id)
	dst = p.aead.Seal(dst, s.nonce[:], encoded, s.aad)
	p.keys.scratch.Put(s)
	return dst
}

// Open authenticates and decrypts a sealed chunk, and appends its encoding to dst. Its error is [ErrAuth].
func (p *Pack) Open(dst []byte, offset uint32, kind snapshot.Kind, id snapshot.Hash, sealed []byte) ([]byte, error) {
	s := p.prepare(offset, kind, &id)
	out, err := p.aead.Open(dst, s.nonce[:], sealed, s.aad)
	p.keys.scratch.Put(s)
	if err != nil {
		return nil, ErrAuth
	}
	return out, nil
}

func (p *Pack) prepare(offset uint32, kind snapshot.Kind, id *snapshot.Hash) *scratch {
	s := p.keys.scratch.Get().(*scratch)
	binary.BigEndian.PutUint64(s.nonce[4:], uint64(offset))
	s.aad = append(s.aad[:0], p.keys.prefix...)
	s.aad = append(s.aad, byte(kind))
	s.aad = append(s.aad, id[:]...)
	return s
}
