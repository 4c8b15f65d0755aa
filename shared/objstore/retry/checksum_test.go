package retry_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
)

// spoilt refuses the first puts as a store does to which other bytes came.
func spoilt(times int) (*mem.Store, *retry.Store) {
	s := mem.New()
	s.SetHook(func(c mem.Call) mem.Fault {
		if c.Op == mem.Put && s.Count(mem.Put) <= times {
			return mem.Fault{Err: objstore.ErrChecksum}
		}
		return mem.Fault{}
	})
	return s, retry.New(s, retry.Options{First: time.Nanosecond, Longest: time.Nanosecond})
}

func TestPutAgainWhatTheWireSpoilt(t *testing.T) {
	s, r := spoilt(2)
	if err := r.Put(t.Context(), "k", objstore.Bytes([]byte("content"))); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Object("k"); string(got) != "content" || s.Count(mem.Put) != 3 {
		t.Errorf("%q after %d puts", got, s.Count(mem.Put))
	}
}

func TestSpoilingHasAnEnd(t *testing.T) {
	s, r := spoilt(100)
	err := r.Put(t.Context(), "k", objstore.Bytes([]byte("content")))
	if !errors.Is(err, objstore.ErrChecksum) || objstore.IsTransient(err) || s.Count(mem.Put) != 4 || !strings.Contains(err.Error(), "on its way 4 times") {
		t.Errorf("%v after %d puts", err, s.Count(mem.Put))
	}
}

// rotting is content of which a bit turns over after its first reading.
type rotting struct {
	io.ReaderAt
	reads atomic.Int32
}

func (r *rotting) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, offset)
	if offset == 0 && n > 0 && r.reads.Add(1) > 1 {
		p[0] ^= 1
	}
	return n, err
}

func TestRottenContentIsNotSentAgain(t *testing.T) {
	s, r := spoilt(100)
	plain := []byte("content")
	c := objstore.Content{ReaderAt: &rotting{ReaderAt: bytes.NewReader(plain)}, Size: int64(len(plain)), SHA256: sha256.Sum256(plain)}
	_, _ = c.ReadAt(make([]byte, 1), 0)
	err := r.Put(t.Context(), "k", c)
	if !errors.Is(err, objstore.ErrChecksum) || s.Count(mem.Put) != 1 || !strings.Contains(err.Error(), "memory or disk of this host") {
		t.Errorf("%v after %d puts", err, s.Count(mem.Put))
	}
}

// TestSpoiltSpool has a spool put again what it holds.
func TestSpoiltSpool(t *testing.T) {
	s, r := spoilt(1)
	sp, err := objstore.NewSpool(t.Context(), r, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sp.Write([]byte("a pack")); err != nil {
		t.Fatal(err)
	}
	if err := sp.Commit(t.Context(), "packs/a"); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.Object("packs/a"); string(got) != "a pack" {
		t.Errorf("%q", got)
	}
}
