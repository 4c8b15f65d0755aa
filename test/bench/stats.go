package main

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
)

// resamples is how many bootstrap samples an interval is made of.
const resamples = 10_000

// dice returns random numbers that are the same for the same seed and purpose.
func dice(seed uint64, purpose string) *rand.Rand {
	return rand.New(rand.NewPCG(seed, hash(purpose))) //nolint:gosec // dice, not secrets
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return mix(h.Sum64())
}

// mix spreads the bits: FNV's low ones depend on little of short strings.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// median of values, which must not be empty.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// ratio is that of two medians with its 95 % bootstrap interval.
type ratio struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// ratioOf compares ours with theirs by the percentile bootstrap: both are resampled with replacement, independently.
// With one value on each side the interval is a point and says nothing.
func ratioOf(ours, theirs []float64, seed uint64) ratio {
	random := dice(seed, "bootstrap")
	sample := func(from, to []float64) float64 {
		for i := range to {
			to[i] = from[random.IntN(len(from))]
		}
		return median(to)
	}
	a, b := make([]float64, len(ours)), make([]float64, len(theirs))
	all := make([]float64, resamples)
	for i := range all {
		all[i] = quotient(sample(ours, a), sample(theirs, b))
	}
	slices.Sort(all)
	return ratio{
		Value: quotient(median(ours), median(theirs)),
		Low:   all[resamples*25/1000], High: all[resamples*975/1000-1],
	}
}

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
