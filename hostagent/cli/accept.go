package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// acceptMissing puts on record that a snapshot is gone for good.
func (a *app) acceptMissing(ctx context.Context, arg string) error {
	sel, err := selector(arg)
	if err != nil {
		return err
	}
	if sel.Sequence == 0 {
		return usagef("repair: --accept-missing %s: want SOURCE@N", arg)
	}
	repo, err := a.open(ctx)
	if err != nil {
		return err
	}
	src, err := a.source(ctx, repo, sel)
	if err != nil {
		return err
	}
	if err := maySign(repo, src.Host, "expired"); err != nil {
		return err
	}
	id := snapshot.ID{Source: src, Sequence: sel.Sequence}
	err = repair.AcceptMissing(ctx, repo, id, a.now())
	if errors.Is(err, repair.ErrNotGap) {
		return hinted{err, "only a number below the newest can be a gap"}
	}
	if errors.Is(err, repair.ErrHidden) {
		return hinted{err, "`holdfast repair --undelete` brings it back"}
	}
	if err != nil {
		return err
	}
	return a.print(map[string]string{"accepted": id.String()}, func(w io.Writer) {
		fmt.Fprintf(w, "%s is on record as gone\n", id)
	})
}
