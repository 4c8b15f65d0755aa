package sqlite

import (
	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// mark is what a follower must know after it was killed: how far it came.
type mark struct {
	Path    string `json:"path"`
	Stream  string `json:"stream"`
	Epoch   uint64 `json:"epoch"`   // the highest that this host knows of, or is about to open
	Last    point  `json:"last"`    // durable
	Pending *point `json:"pending"` // on its way

	// Taken is up to where the database is in a snapshot that stands in the log at Last or before it, while no later record
	// is durable: what goes on from there must have come by it. Nil: there is none.
	Taken *tail.Position `json:"taken,omitempty"`
}

// point is a place in the log and the position of the database's log that it stands for.
type point struct {
	Place    snapshot.LogPlace `json:"place"`
	Position tail.Position     `json:"position"`
}
