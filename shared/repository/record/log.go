package record

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// LogHead opens an epoch of a log. JSON members as in docs/format.md, "Logs".
type LogHead struct {
	Format     int            `json:"format"`
	Repository string         `json:"repository"`
	Host       string         `json:"host"`
	Source     string         `json:"source"`
	Kind       string         `json:"kind"` // of the records' bodies: "sqlite"
	Stream     string         `json:"stream"`
	Epoch      uint64         `json:"epoch"`
	Opened     time.Time      `json:"opened"` // by the writer's clock; records of the epoch are not older
	Tool       string         `json:"tool"`
	Keys       []snapshot.Key `json:"keys"` // the epoch's data key, as in manifests
	// Continues is the place after which the epoch's first record comes; nil: it begins the stream.
	Continues *snapshot.LogPlace `json:"continues,omitempty"`
}

// Check reports what can be seen to be wrong in the head of an epoch without other objects; src, stream and epoch are
// what its key says.
func (h *LogHead) Check(src snapshot.Source, stream string, epoch uint64) error {
	switch {
	case h.Format != 1:
		return fmt.Errorf("%w: format %d: this program knows 1", snapshot.ErrFormat, h.Format)
	case h.Host != src.Host || h.Source != src.Name || h.Stream != stream || h.Epoch != epoch:
		return fmt.Errorf("%w: it says that it is of %s/%s, stream %.40s, epoch %d", snapshot.ErrFormat, h.Host, h.Source, h.Stream, h.Epoch)
	case h.Kind == "" || h.Tool == "" || h.Opened.IsZero() || h.Opened.Location() != time.UTC:
		return fmt.Errorf("%w: kind, tool or time is missing", snapshot.ErrFormat)
	case len(h.Keys) == 0 || len(h.Keys[0].Wrapped) == 0:
		return fmt.Errorf("%w: its key is wrapped for nobody", snapshot.ErrFormat)
	}
	if _, err := snapshot.ParseHash(h.Keys[0].Key); err != nil {
		return fmt.Errorf("key id: %w", err)
	}
	c := h.Continues
	if c == nil {
		return nil
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("continues: %w", err)
	}
	if c.Sequence == 0 || c.Stream == stream && c.Epoch >= epoch {
		return fmt.Errorf("%w: it continues %s", snapshot.ErrFormat, c)
	}
	return nil
}

// LogCut announces, or records, that the records of an epoch up to a number are removed by retention.
type LogCut struct {
	Stream   string    `json:"stream"`
	Epoch    uint64    `json:"epoch"`
	Sequence uint64    `json:"sequence"` // the last record that goes
	Time     time.Time `json:"time"`     // by the clock of whoever wrote it
}

// LogDamaged says that an object of a log failed a check.
type LogDamaged struct {
	Stream  string    `json:"stream"`
	Epoch   uint64    `json:"epoch"`
	First   uint64    `json:"first"` // 0 and 0: the head
	Last    uint64    `json:"last"`
	Time    time.Time `json:"time"`
	Problem string    `json:"problem"`
}
