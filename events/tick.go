package events

import (
	"errors"
	"time"
)

// Tick calls the function coordinate: every minute by its schedule, and for a part of the hosts by the function itself
// where they are too many for one invocation.
type Tick struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`             // the minute that the schedule meant
	Shard   int       `json:"shard,omitempty"`  // from 0
	Shards  int       `json:"shards,omitempty"` // 0: all hosts
}

// DecodeTick reads what a schedule or the function's own queue carries.
func DecodeTick(data []byte) (*Tick, error) {
	return decode("tick", data, func(t *Tick) error {
		if t.Shard < 0 || t.Shards < 0 || t.Shard > 0 && t.Shard >= t.Shards {
			return errors.New("no such shard")
		}
		return nil
	})
}
