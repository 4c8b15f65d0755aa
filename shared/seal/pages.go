package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// pages computes hashes of pages; see [Keys.PageID].
type pages struct {
	aead  cipher.AEAD
	nonce []byte
	sums  sync.Pool // *[]byte
}

func newPages(key []byte) *pages {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("seal: aes: " + err.Error()) // only for keys of another size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: gcm: " + err.Error()) // only for other blocks than AES's
	}
	p := &pages{aead: aead, nonce: make([]byte, aead.NonceSize())}
	p.sums.New = func() any { b := make([]byte, 0, aead.Overhead()); return &b }
	return p
}

func (p *pages) sum(content []byte) (id snapshot.FileID) {
	b := p.sums.Get().(*[]byte)
	*b = p.aead.Seal((*b)[:0], p.nonce, nil, content)
	copy(id[:], *b)
	p.sums.Put(b)
	return id
}
