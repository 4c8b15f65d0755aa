package objstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
)

// Spool is an object that is written before its key is known: its key is made of the hash of its bytes. It belongs to one
// goroutine.
type Spool interface {
	// Write appends; an error is final.
	Write(p []byte) (int, error)
	// Sum is the SHA-256 of what was written, and its length in bytes.
	Sum() (sum [32]byte, size int64)
	// Commit puts what was written under key, with all that [Store.Put] promises. It may be called again after a
	// transient error, and ends the spool when it succeeds.
	Commit(ctx context.Context, key string) error
	// Discard gives up what was written. After Commit has succeeded it does nothing.
	Discard() error
}

// ErrNoSpool says that a store has no place of its own for what is being written.
var ErrNoSpool = errors.New("store does not spool")

// Spooler is implemented by stores that keep what is being written where it will stay.
type Spooler interface {
	// Spool begins an object. Errors: ErrNoSpool, those of Put.
	Spool(ctx context.Context) (Spool, error)
}

// NewSpool begins an object: in the store itself where it can do that, else in an unnamed file in dir.
// Either way what is written does not stay in memory.
func NewSpool(ctx context.Context, s Store, dir string) (Spool, error) {
	if sp, ok := s.(Spooler); ok {
		if spool, err := sp.Spool(ctx); !errors.Is(err, ErrNoSpool) {
			return spool, err
		}
	}
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, fmt.Errorf("begin an object: %w", err)
	}
	// Without a name it goes with the process, however that ends.
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("begin an object: %w", err)
	}
	return &fileSpool{store: s, f: f, hash: sha256.New()}, nil
}

type fileSpool struct {
	store Store
	f     *os.File
	hash  hash.Hash
	size  int64
	done  bool
}

func (s *fileSpool) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("spool an object: %w", err)
	}
	return n, nil
}

func (s *fileSpool) Sum() (sum [32]byte, size int64) {
	return [32]byte(s.hash.Sum(nil)), s.size
}

func (s *fileSpool) Commit(ctx context.Context, key string) error {
	sum, size := s.Sum()
	if err := s.store.Put(ctx, key, Content{ReaderAt: s.f, Size: size, SHA256: sum}); err != nil {
		return err
	}
	return s.Discard()
}

func (s *fileSpool) Discard() error {
	if s.done {
		return nil
	}
	s.done = true
	return s.f.Close()
}
