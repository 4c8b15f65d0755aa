package record

import (
	"fmt"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// LogHead opens an epoch of a log. JSON members as in docs/format.md, "Logs".
type LogHead struct {
	Format     int            `json:"format"`
	Repository string         `json:"repository"`
	Host       string         `json:"host"`
	Source     string         `json:"source"`
	Kind       string         `json:"kind"` // of the records' bodies: "sqlite", "postgres"
	Stream     string         `json:"stream"`
	Epoch      uint64         `json:"epoch"`
	Opened     time.Time      `json:"opened"` // by the writer's clock; records of the epoch are not older
	Tool       string         `json:"tool"`
	Keys       []snapshot.Key `json:"keys"` // the epoch's data key, as in manifests
	// Continues is the place after which the epoch's first record comes; nil: it begins the stream.
	Continues *snapshot.LogPlace `json:"continues,omitempty"`
	Postgres  *PostgresLog       `json:"postgres,omitempty"` // of kind "postgres", and of no other
}

// PostgresLog says which WAL a stream of kind "postgres" holds: that of one timeline of one cluster.
type PostgresLog struct {
	System      uint64 `json:"system,string"` // system identifier
	Timeline    uint32 `json:"timeline"`
	SegmentSize uint32 `json:"segment_size"` // bytes
}

// KindPostgres is the kind of logs whose records hold WAL of PostgreSQL.
const KindPostgres = "postgres"

// StreamPrefix is how the ids of streams of this timeline begin: 24 of the 32 hex digits. The others are random, so that
// a stream can begin anew where continuity can't be proven.
func (p *PostgresLog) StreamPrefix() string { return fmt.Sprintf("%016x%08x", p.System, p.Timeline) }

func (h *LogHead) checkPostgres() error {
	p := h.Postgres
	if (p != nil) != (h.Kind == KindPostgres) {
		return fmt.Errorf("%w: kind %.40q with, or without, a cluster of PostgreSQL", snapshot.ErrFormat, h.Kind)
	}
	if p == nil {
		return nil
	}
	if p.System == 0 || p.Timeline == 0 || !strings.HasPrefix(h.Stream, p.StreamPrefix()) {
		return fmt.Errorf("%w: stream %.40s is none of system %d, timeline %d", snapshot.ErrFormat, h.Stream, p.System, p.Timeline)
	}
	if err := postgres.CheckSegmentSize(p.SegmentSize); err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrFormat, err)
	}
	return nil
}

// Check reports what can be seen to be wrong in the head of an epoch without other objects; src, stream and epoch are
// what its key says.
func (h *LogHead) Check(src snapshot.Source, stream string, epoch uint64) error {
	switch {
	case h.Format != 1:
		return fmt.Errorf("%w: format %d, this program knows 1", snapshot.ErrUnsupported, h.Format)
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
	if err := h.checkPostgres(); err != nil {
		return err
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

// ProblemGap is the problem of an object of a log whose bytes are as they were written, but whose write-ahead log does not go
// on from that before it: no copy has a better one.
const ProblemGap = "its WAL does not go on where that before it ended"

// LogDamaged says that an object of a log failed a check.
type LogDamaged struct {
	Stream  string    `json:"stream"`
	Epoch   uint64    `json:"epoch"`
	First   uint64    `json:"first"` // 0 and 0: the head
	Last    uint64    `json:"last"`
	Time    time.Time `json:"time"`
	Problem string    `json:"problem"`
}
