package progress

import "time"

// window is how far back the rate looks: long enough to be calm, short enough to notice a change.
const window = 15 * time.Second

// rate is bytes a second over the last moments.
type rate struct {
	samples []sample
}

type sample struct {
	at    time.Time
	bytes uint64
}

func (r *rate) observe(at time.Time, bytes uint64) {
	r.samples = append(r.samples, sample{at, bytes})
	for len(r.samples) > 2 && at.Sub(r.samples[0].at) > window {
		r.samples = r.samples[1:]
	}
}

// perSecond is 0 until there is enough to go by.
func (r *rate) perSecond() float64 {
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	span := last.at.Sub(first.at).Seconds()
	if span <= 0 || last.bytes < first.bytes {
		return 0
	}
	return float64(last.bytes-first.bytes) / span
}
