package copier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	// maxNamed bounds the size of a pack or a list, in bytes.
	maxNamed = 256 << 20
	// fetchBuffer is what is in memory of an object while it is copied, in bytes.
	fetchBuffer = 256 << 10
)

// damage says what is wrong with an object.
type damage string

func (d damage) Error() string { return string(d) }

// isDamage tells what is wrong with an object from what is wrong with the way to it.
func isDamage(err error) bool {
	var d damage
	return errors.As(err, &d) || errors.Is(err, objstore.ErrNotExist) || errors.Is(err, snapshot.ErrFormat)
}

// sink is where the bytes of an object go; it computes their hash as they pass.
type sink interface {
	io.Writer
	Sum() (sum [32]byte, size int64)
}

// memory is a sink for what is read here.
type memory struct{ bytes.Buffer }

// Sum implements [sink].
func (m *memory) Sum() (sum [32]byte, size int64) {
	return sha256.Sum256(m.Bytes()), int64(m.Len())
}

// fetch reads an object of the original that is named by its bytes into w, and checks them: only when it returns nil is
// what w has the object.
func (s *source) fetch(ctx context.Context, key string, size int64, name string, w sink) error {
	if size < 0 || size > maxNamed {
		return damage(fmt.Sprintf("should have %d bytes", size))
	}
	r, err := s.from.Store().Get(ctx, key, 0, size+1)
	if errors.Is(err, objstore.ErrNotExist) {
		return damage("is missing")
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	defer func() { _ = r.Close() }()
	if err := pass(r, w, key, size+1); err != nil {
		return err
	}
	switch sum, got := w.Sum(); {
	case got > size:
		return damage(fmt.Sprintf("has more than its %d bytes", size))
	case got < size:
		return damage(fmt.Sprintf("has %d bytes instead of %d", got, size))
	case snapshot.Hash(sum).String() != name:
		return damage("its bytes do not match its name")
	}
	return nil
}

// pass copies at most limit bytes. A connection that breaks off is an error, not an end.
func pass(r io.Reader, w io.Writer, key string, limit int64) error {
	buf := make([]byte, min(limit, fetchBuffer))
	for limit > 0 {
		n, err := r.Read(buf[:min(limit, int64(len(buf)))])
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("keep %s until it was checked: %w", key, err)
		}
		limit -= int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
	}
	return nil
}

// transfer copies one object that is named by its bytes. It reports false, with a finding, if that is not possible.
//
//  1. The bytes go where they wait without their key: into the target, if it can keep them so, else to Options.Temp. A
//     crash leaves an unfinished object, which the target's driver removes some time later, or nothing;
//  2. their length and hash are checked;
//  3. they get their key, with all that Put promises.
func (s *source) transfer(ctx context.Context, key string, size int64, name string, id snapshot.ID) (copied bool, err error) {
	spool, err := objstore.NewSpool(ctx, s.to, s.opts.Temp)
	if err != nil {
		return false, fmt.Errorf("begin %s: %w", key, err)
	}
	// After a success it has nothing to do; after anything else what it can't remove is not what went wrong.
	defer func() { _ = spool.Discard() }()
	err = s.fetch(ctx, key, size, name, spool)
	if err != nil && isDamage(err) {
		s.note(key, err.Error(), false, id)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = spool.Commit(ctx, key)
	if errors.Is(err, objstore.ErrExist) {
		s.note(key, "exists with other content", true, id)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store %s in the copy: %w", key, err)
	}
	s.copied(s.src, size)
	return true, nil
}
