package restorer

import (
	"context"
	"errors"
	"iter"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Tree is what a restore needs to know of a snapshot's entries; see *repository.Snapshot, which has it.
type Tree interface {
	Root(ctx context.Context) (*snapshot.RootTable, error)
	// Entries yields the entries in tree order from the first that is not before from.
	Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error]
	// Lookup returns one entry; repository.ErrNoPath if there is none.
	Lookup(ctx context.Context, path string) (*snapshot.Entry, error)
	Problems(ctx context.Context) ([]snapshot.Problem, error)
	// Counts tells how many entries there are, and at most how many bytes of content.
	Counts() snapshot.Counts
}

// Content is what a restore needs to know of files' content.
type Content interface {
	Extents(ctx context.Context, e *snapshot.Entry, fn func(snapshot.Extent) error) error
	// Chunks calls fn once for each ref, from several goroutines; damage is given to fn, a failure of the store returned.
	Chunks(ctx context.Context, refs []repository.KindRef, fn func(i int, plain []byte, err error) error) error
	Keys() *seal.Keys
}

// Snapshot is the snapshot that is restored: a *repository.Snapshot.
type Snapshot interface {
	Tree
	Content
}

var _ Snapshot = (*repository.Snapshot)(nil)

// damaged reports whether err tells of damage in the repository, which hits one file, and not of a store out of reach.
func damaged(err error) bool {
	var damage *repository.DamageError
	return errors.As(err, &damage) || errors.Is(err, snapshot.ErrFormat)
}

// Progress is told how a restore comes along. Its methods are called from several goroutines.
type Progress interface {
	// Total says how much there is to do at most: files and bytes of content.
	Total(files, bytes uint64)
	// Add says that files and bytes are done; written bytes of them had to be written, the rest was there.
	Add(files, bytes, written uint64)
	// Current names what is worked on.
	Current(path string)
}

// silent is a Progress for those who want none.
type silent struct{}

func (silent) Total(uint64, uint64)       {}
func (silent) Add(uint64, uint64, uint64) {}
func (silent) Current(string)             {}
