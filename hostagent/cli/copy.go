package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/btcdecoded/holdfast/shared/repository"
)

// copyResult is what a copy to one place did.
type copyResult struct {
	To        string `json:"to"`
	Objects   int    `json:"objects"`
	Bytes     int64  `json:"bytes"`
	Snapshots int    `json:"snapshots"`
}

func (c copyResult) write(w io.Writer) {
	fmt.Fprintf(w, "copied to %s: %s, %s in %s\n", c.To, count(uint64(c.Snapshots), "snapshot", "snapshots"), size(uint64(c.Bytes)), count(uint64(c.Objects), "object", "objects"))
}

// runCopies brings the copies of the policy up to date for the sources that were backed up.
func (a *app) runCopies(_ context.Context, _ *repository.Repository, copies []string, _ []job) ([]copyResult, []error) {
	if len(copies) == 0 {
		return nil, nil
	}
	return nil, []error{fmt.Errorf("copies: not yet")}
}
