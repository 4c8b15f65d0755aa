package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
)

// completeFor is how long a restore of the newest state waits for what the application committed last. It is stopped
// meanwhile; but what is not waited for is missing.
const completeFor = time.Minute

// complete has who follows the source ship what was committed last, or says what the newest state may lack.
func (r *databaseRestore) complete(ctx context.Context) {
	own, err := r.app.host()
	if err != nil || own != r.src.Host {
		return // its log is written elsewhere
	}
	asking, cancel := context.WithTimeout(ctx, completeFor)
	defer cancel()
	s, done, err := replicate.Ask(asking, r.app.followDir(r.repo.ID(), r.src))
	switch {
	case ctx.Err() != nil || done:
	case err != nil:
		r.app.warn("who follows %s could not be asked for what was committed last, which may be missing in the newest state: %v", r.src.Name, err)
	case s != nil:
		r.app.warn("%s", lacks(r.src.Name, s))
	}
}

// lacks says what may be missing in the newest state of a source whose follower does not ship.
func lacks(name string, s *replicate.Status) string {
	why := string(s.State)
	if s.Why != "" {
		why += ": " + printable(s.Why)
	}
	if s.Until().IsZero() {
		return fmt.Sprintf("the log of %s is not written (%s): what was committed last may be only in the safety copy", name, why)
	}
	return fmt.Sprintf("the log of %s has what was committed by %s, and is not written since (%s): what was committed later is only in the safety copy", name, exact(s.Until()), why)
}
