package cli

import (
	"context"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
)

// hold keeps a follower of this host from going on with what is put in the place before it is certain that it stays there: were
// the log to turn to the timeline of a cluster that is taken back, nothing could go on with the old one. What the old
// server still has is followed until it is stopped.
func (r *clusterRestore) hold(o *postgres.Options) (release func(), err error) {
	var held *replicate.Locked
	hold := func() (err error) {
		if held == nil {
			held, err = replicate.Hold(r.app.followDir(r.repo.ID(), r.src))
		}
		return err
	}
	if stop := o.Stop; stop == nil {
		err = hold() // it is stopped already
	} else {
		o.Stop = func(ctx context.Context) error {
			if err := hold(); err != nil {
				return err
			}
			return stop(ctx)
		}
	}
	return func() {
		if held != nil {
			_ = held.Close() // only a lock
		}
	}, err
}
