package cli

import (
	"context"
	"errors"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// overwriting is a store that passes over the condition of a Put.
type overwriting struct{ *mem.Store }

func (s overwriting) Put(ctx context.Context, key string, c objstore.Content) error {
	return errors.Join(s.Delete(ctx, key), s.Store.Put(ctx, key, c))
}

func TestInitProbes(t *testing.T) {
	if err := probe(t.Context(), mem.New()); err != nil {
		t.Error(err)
	}
	s := overwriting{mem.New()}
	err := probe(t.Context(), s)
	if n, hint := code(t.Context(), err); !errors.Is(err, objstore.ErrOverwrites) || n != exitError || hint == "" {
		t.Errorf("%v: code %d, hint %q", err, n, hint)
	}
	// What is there already is for init itself to refuse.
	if err := s.Put(t.Context(), layout.RepositoryKey, objstore.Bytes([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if err := probe(t.Context(), s); err != nil {
		t.Error(err)
	}
}
