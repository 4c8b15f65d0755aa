package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/postgres"
)

// Proof is WAL by which a server is known that has the history of a log: what the log has right before its end.
type Proof struct {
	System   uint64
	Timeline uint32
	From, To postgres.LSN // some KiB, of one segment
	Sum      string       // hex SHA-256 of these bytes
}

// compareLog looks whether the server has other WAL than the log, or ends before it. What it does not have any more tells nothing,
// nor does another timeline.
func (c *capture) compareLog(ctx context.Context, system wire.System) error {
	p := c.Log
	if p == nil || p.System != system.ID || p.Timeline != system.Timeline {
		return nil
	}
	if system.Position < p.To {
		c.result.Apart = true
		return nil
	}
	b, err := c.conn.WAL(ctx, p.Timeline, p.From, p.To)
	if wire.IsRemoved(err) {
		return nil
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	c.result.Apart = hex.EncodeToString(sum[:]) != p.Sum
	return nil
}
