package wire

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// Slot is a replication slot.
type Slot struct {
	Type     string       // "physical" or "logical"
	Restart  postgres.LSN // from which on WAL is kept; 0: nothing is kept yet
	Timeline uint32       // of Restart
}

// SlotOptions say what a new slot is to be.
type SlotOptions struct {
	Reserve   bool // keep WAL from now on; else from the first stream on
	Temporary bool // it ends with the connection
}

// ErrVersion says that the server's version can't do that.
var ErrVersion = errors.New("the server's version does not have this command")

// Slot reads a slot (READ_REPLICATION_SLOT). Errors: ErrVersion below version 15, where an ordinary connection sees it in
// pg_replication_slots.
func (c *Conn) Slot(ctx context.Context, name string) (s Slot, ok bool, err error) {
	op := "read slot " + name
	if c.version.Major < 15 {
		return Slot{}, false, &Error{Op: op, Err: ErrVersion}
	}
	row, err := c.one(ctx, op, "READ_REPLICATION_SLOT "+quote(name), 3)
	if err != nil {
		return Slot{}, false, err
	}
	if row[0] == nil {
		return Slot{}, false, nil
	}
	s.Type = string(row[0])
	if row[1] != nil {
		if s.Restart, err = postgres.ParseLSN(string(row[1])); err != nil {
			return Slot{}, false, &Error{Op: op, Err: err}
		}
	}
	if row[2] != nil {
		timeline, err := strconv.ParseUint(string(row[2]), 10, 32)
		if err != nil {
			return Slot{}, false, &Error{Op: op, Err: fmt.Errorf("timeline: %w", err)}
		}
		s.Timeline = uint32(timeline)
	}
	return s, true, nil
}

// CreateSlot makes a physical slot. Errors: [IsExists].
func (c *Conn) CreateSlot(ctx context.Context, name string, o SlotOptions) error {
	command := "CREATE_REPLICATION_SLOT " + quote(name)
	if o.Temporary {
		command += " TEMPORARY"
	}
	command += " PHYSICAL"
	switch {
	case o.Reserve && c.version.Major >= 15:
		command += " (RESERVE_WAL true)"
	case o.Reserve:
		command += " RESERVE_WAL"
	}
	_, err := c.exec(ctx, "create slot "+name, command)
	return err
}

// DropSlot removes a slot; with wait, after whoever uses it has ended. Errors: [IsMissing], [IsInUse].
func (c *Conn) DropSlot(ctx context.Context, name string, wait bool) error {
	command := "DROP_REPLICATION_SLOT " + quote(name)
	if wait {
		command += " WAIT"
	}
	_, err := c.exec(ctx, "drop slot "+name, command)
	return err
}
