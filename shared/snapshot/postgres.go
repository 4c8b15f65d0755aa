package snapshot

import (
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/postgres"
)

// Postgres says of which PostgreSQL cluster a physical snapshot is, and which WAL makes it consistent. The snapshot holds
// that WAL itself.
type Postgres struct {
	System      uint64       `json:"system,string"` // system identifier
	Version     string       `json:"version"`       // of the server, as it says: "15.18 (Debian 15.18-0+deb12u1)"
	Timeline    uint32       `json:"timeline"`
	SegmentSize uint32       `json:"segment_size"` // of WAL, bytes
	Start       postgres.LSN `json:"start_lsn"`    // WAL is needed from here on
	Stop        postgres.LSN `json:"stop_lsn"`     // recovery must come so far at least
}

// checkPostgres checks what is said of a cluster.
func (m *Manifest) checkPostgres() error {
	p := m.Postgres
	if p == nil {
		return nil
	}
	if m.Kind != "postgres" {
		return fmt.Errorf("it is of kind %s and of a cluster of PostgreSQL", m.Kind)
	}
	if p.System == 0 || p.Timeline == 0 {
		return errors.New("postgres: system or timeline is missing")
	}
	if err := checkText("postgres: version", p.Version); err != nil {
		return err
	}
	if err := postgres.CheckSegmentSize(p.SegmentSize); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if p.Start == 0 || p.Stop < p.Start {
		return fmt.Errorf("postgres: from %s to %s", p.Start, p.Stop)
	}
	return nil
}
