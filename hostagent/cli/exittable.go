package cli

import (
	"github.com/btcdecoded/holdfast/hostagent/state"
)

// exitRow maps errors that are row.is to a code and a hint.
type exitRow struct {
	is   error
	code int
	hint string
}

func exitTable() []exitRow {
	return []exitRow{
		{state.ErrLocked, exitLocked, "wait for the other run to end, or stop it; a run that was killed holds no lock"},
	}
}
