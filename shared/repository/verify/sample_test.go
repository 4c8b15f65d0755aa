package verify_test

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func packID(i uint64) snapshot.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
}

func TestSampleRotationCoversAll(t *testing.T) {
	for _, kn := range [][2]uint64{{1, 1}, {1, 2}, {1, 30}, {2, 30}, {7, 30}, {3, 7}, {29, 30}, {4000, 4000}, {1, 365}} {
		for _, first := range []uint64{0, 1, 20_000, 1<<64 - 400} {
			covered := map[uint64]bool{}
			for run := range kn[1] {
				s := verify.Sample{K: kn[0], N: kn[1], Cursor: first + run}
				n := 0
				for i := range uint64(300) {
					if s.Chooses(packID(i)) {
						covered[i] = true
						n++
					}
				}
				if kn[0] == 1 && kn[1] == 30 && n > 40 {
					t.Errorf("1/30 chose %d of 300", n)
				}
				if len(covered) == 300 {
					break
				}
			}
			// Cursors that wrap around 2⁶⁴ jump within the rotation once; days never do.
			if len(covered) != 300 && first < 1<<63 {
				t.Errorf("%v from %d: %d of 300 packs after all runs", kn, first, len(covered))
			}
		}
	}
}

func TestParseSample(t *testing.T) {
	for s, want := range map[string]verify.Sample{
		"":     {},
		"1/30": {K: 1, N: 30, Cursor: 5},
		"3/3":  {K: 3, N: 3, Cursor: 5},
	} {
		got, err := verify.ParseSample(s, 5)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"1", "0/3", "4/3", "1/0", "0/0", "-1/3", "1/4001", "1/3/4", "a/b", "1/99999999999"} {
		if _, err := verify.ParseSample(s, 0); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
	if s := (verify.Sample{K: 3, N: 3}); s.String() != "" || !s.Chooses(packID(1)) {
		t.Errorf("3/3 is not everything")
	}
}
