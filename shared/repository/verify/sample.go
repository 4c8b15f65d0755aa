package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Sample chooses a share of the packs, K of N, in rotation: N runs with the cursors c, c+1, … c+N−1 read every pack at
// least once, whatever was added in between. A day number is a good cursor. The zero value chooses every pack.
type Sample struct {
	K, N   uint64
	Cursor uint64
}

// maxSample bounds N: a rotation of more than ten years of days is a mistake.
const maxSample = 4000

// ParseSample parses "1/30"; the empty string chooses every pack.
func ParseSample(s string, cursor uint64) (Sample, error) {
	if s == "" {
		return Sample{}, nil
	}
	bad := fmt.Errorf("sample %q: want K/N, such as 1/30, with K from 1 to N and N at most %d", s, maxSample)
	ks, ns, ok := strings.Cut(s, "/")
	if !ok {
		return Sample{}, bad
	}
	k, err1 := strconv.ParseUint(ks, 10, 32)
	n, err2 := strconv.ParseUint(ns, 10, 32)
	sample := Sample{K: k, N: n, Cursor: cursor}
	if err1 != nil || err2 != nil || n == 0 || sample.check() != nil {
		return Sample{}, bad
	}
	return sample, nil
}

func (s Sample) check() error {
	if s == (Sample{}) {
		return nil
	}
	if s.K < 1 || s.K > s.N || s.N > maxSample {
		return errors.New("sample: K must be from 1 to N, and N not over " + strconv.Itoa(maxSample))
	}
	return nil
}

// All reports whether every pack is chosen.
func (s Sample) All() bool { return s.K == s.N }

// String is "K/N", empty if every pack is chosen.
func (s Sample) String() string {
	if s.All() {
		return ""
	}
	return strconv.FormatUint(s.K, 10) + "/" + strconv.FormatUint(s.N, 10)
}

// Chooses reports whether the pack is read in this run. Pack ids are hashes, so that the shares are even.
func (s Sample) Chooses(pack snapshot.Hash) bool {
	if s.All() {
		return true
	}
	slot := binary.BigEndian.Uint64(pack[:8]) % s.N
	start := s.Cursor % s.N * s.K % s.N
	return (slot+s.N-start)%s.N < s.K
}
