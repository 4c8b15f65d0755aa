package events

import (
	"errors"
	"time"
)

// Reread asks the function verify, by its own queue, to read a range of the packs of a large source again.
type Reread struct {
	Version int       `json:"version"`
	Source  string    `json:"source"` // host/source
	Lap     time.Time `json:"lap"`    // when the reading of the source began
	Range   int       `json:"range"`  // from 0
	Ranges  int       `json:"ranges"`
	Bytes   int64     `json:"bytes,omitempty"` // most that may be read; 0: what the time allows
}

// DecodeReread reads what the function's own queue carries.
func DecodeReread(data []byte) (*Reread, error) {
	return decode("reread", data, func(r *Reread) error {
		switch {
		case r.Ranges < 1 || r.Range < 0 || r.Range >= r.Ranges:
			return errors.New("no such range")
		case r.Lap.IsZero() || r.Bytes < 0:
			return errors.New("no lap, or less than no bytes")
		}
		return needs("source", r.Source)
	})
}
