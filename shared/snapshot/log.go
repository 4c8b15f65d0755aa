package snapshot

import (
	"errors"
	"fmt"
)

// StreamID names a stream of a log: 16 bytes, random but for those of WAL. It stands where chunks of packs have their chain.
type StreamID = ChainID

// LogPlace is a place in the log of a continuous source: right after one of its records.
type LogPlace struct {
	Stream   string `json:"stream"`           // 32 hex digits
	Epoch    uint64 `json:"epoch"`            // from 1; 0: before the stream's first record
	Sequence uint64 `json:"sequence"`         // of the record, from 1; 0: before the stream's first record
	Record   string `json:"record,omitempty"` // hex SHA-256 of the record's bytes; empty where Sequence is 0
}

// Check reports a place that can't be.
func (p *LogPlace) Check() error {
	if _, err := ParseChainID(p.Stream); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	if (p.Epoch == 0) != (p.Sequence == 0) || (p.Record == "") != (p.Sequence == 0) || p.Epoch > MaxSequence || p.Sequence > MaxSequence {
		return fmt.Errorf("%w: record %d of epoch %d, with the hash %q", ErrFormat, p.Sequence, p.Epoch, brief(p.Record))
	}
	if p.Sequence == 0 {
		return nil
	}
	_, err := ParseHash(p.Record)
	return err
}

func (p LogPlace) String() string {
	return fmt.Sprintf("record %d in epoch %d of stream %s", p.Sequence, p.Epoch, brief(p.Stream))
}

// checkLog checks the place in the log that the manifest names.
func (m *Manifest) checkLog() error {
	if m.Log == nil {
		return nil
	}
	if m.Unfinished {
		return errors.New("it is unfinished and names a place in the log")
	}
	if err := m.Log.Check(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}
