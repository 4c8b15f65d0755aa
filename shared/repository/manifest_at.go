package repository

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ManifestAt reads the manifest that a listing showed, without asking for it again. Errors: as those of
// [Repository.Manifest], and objstore.ErrNotExist where it is gone by now.
func (r *Repository) ManifestAt(ctx context.Context, src snapshot.Source, at Listed) (*Stored, error) {
	return r.readManifest(ctx, src, at)
}
