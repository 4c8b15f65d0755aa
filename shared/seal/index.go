package seal

import (
	"fmt"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// SealIndex appends the sealed index of a pack to dst. offset is its place, right after the last chunk. An index is mostly
// hashes, and stored as it is.
func (p *Pack) SealIndex(dst []byte, offset uint32, entries []snapshot.IndexEntry) []byte {
	encoded := append([]byte{methodStored}, snapshot.EncodeIndex(entries)...)
	return p.Seal(dst, offset, snapshot.Index, snapshot.Hash{}, encoded)
}

// OpenIndex opens and parses the sealed index of a pack, and checks that its chunks fill the pack up to offset, where the
// index is.
func (p *Pack) OpenIndex(offset uint32, sealed []byte) ([]snapshot.IndexEntry, error) {
	encoded, err := p.Open(nil, offset, snapshot.Index, snapshot.Hash{}, sealed)
	if err != nil {
		return nil, fmt.Errorf("open pack index: %w", err)
	}
	if len(encoded) == 0 || encoded[0] != methodStored {
		return nil, fmt.Errorf("open pack index: %w", ErrEncoding)
	}
	entries, err := snapshot.DecodeIndex(encoded[1:])
	if err != nil {
		return nil, fmt.Errorf("open pack index: %w", err)
	}
	end := uint64(snapshot.PackHeaderSize)
	for i := range entries {
		end += uint64(entries[i].Sealed)
	}
	if end != uint64(offset) {
		return nil, fmt.Errorf("open pack index: %w: chunks end at %d, the index begins at %d", snapshot.ErrFormat, end, offset)
	}
	return entries, nil
}
