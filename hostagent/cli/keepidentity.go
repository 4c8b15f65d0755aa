package cli

import (
	"context"
	"iter"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// withoutIdentity is the snapshot without entries that would be restored over an identity of this host. Backups leave it
// out, but one that used another identity may have it: putting an old one back could overwrite the only key.
func (a *app) withoutIdentity(snap *repository.Snapshot, to *targets, own []ownPlace) restorer.Snapshot {
	kept := map[string]bool{}  // real paths
	names := map[string]bool{} // last names of entries worth a look
	for _, p := range own {
		if p.what == "the identity" && present(p.path) {
			real := realPath(p.path)
			kept[real] = true
			names[filepath.Base(real)], names[filepath.Base(p.path)] = true, true
		}
	}
	if len(kept) == 0 {
		return snap
	}
	told := false
	return skipping{snap, func(path string) bool {
		if !names[filepath.Base(path)] || !kept[realPath(to.of(path))] {
			return false
		}
		if !told {
			a.warn("%s is an identity of this host: it stays as it is", to.of(path))
			told = true
		}
		return true
	}}
}

// skipping is a snapshot without the entries for which skip holds. It is read by one goroutine at a time.
type skipping struct {
	*repository.Snapshot
	skip func(path string) bool
}

// Entries yields the entries that are not skipped.
func (s skipping) Entries(ctx context.Context, from string) iter.Seq2[*snapshot.Entry, error] {
	return func(yield func(*snapshot.Entry, error) bool) {
		for e, err := range s.Snapshot.Entries(ctx, from) {
			if err == nil && s.skip(e.Path) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
