package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
)

// mostVersions bounds the findings about one source.
const mostVersions = 100

// versions looks for delete markers and second versions. Holdfast puts each object once and deletes it with all of its
// versions, so that neither is ever its own: somebody else has hidden or overwritten something. Only records of damaged
// packs may be hidden, by repair.
func (v *visit) versions(ctx context.Context) error {
	store, ok := v.repo.Store().(objstore.Versioned)
	if !ok {
		return nil
	}
	prefix := layout.SourcePrefix(v.src)
	var key string
	var versions, markers int
	hidden := false
	flush := func() {
		switch {
		case key == "" || strings.HasPrefix(key, layout.DamagedPrefix(v.src)) || len(v.found) >= mostVersions:
		case markers > 0:
			v.find(ctx, control.Finding{
				By: "versions", Key: key, Problem: map[bool]string{true: "hidden by a delete marker", false: "a delete marker lies under it"}[hidden],
				Detail: fmt.Sprintf("%d markers, %d versions; `holdfast repair --undelete` brings the authentic version back", markers, versions),
			})
		case versions > 1:
			v.find(ctx, control.Finding{
				By: "versions", Key: key, Problem: "more than one version",
				Detail: fmt.Sprintf("%d versions; `holdfast repair --undelete` makes the authentic one current", versions),
			})
		}
	}
	err := store.ListVersions(ctx, prefix, func(o objstore.Version) error {
		if o.Key != key {
			flush()
			key, versions, markers, hidden = o.Key, 0, 0, false
		}
		if o.DeleteMarker {
			markers++
			hidden = hidden || o.Current
		} else {
			versions++
		}
		return nil
	})
	if errors.Is(err, objstore.ErrNoVersions) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for versions of %s: %w", v.src, err)
	}
	flush()
	v.looked = append(v.looked, "versions")
	return nil
}
