package replicate

import (
	"math"
	"time"
)

// Seen is a group of commits that were seen at the same time.
type Seen struct {
	At      time.Time
	Commits int
}

// mostGroups is how many groups a record remembers: while the store is away, they are told apart less and less.
const mostGroups = 4096

// Fewer joins groups where they are too many. The time of a joined one is that of its oldest.
func Fewer(groups []Seen) []Seen {
	if len(groups) < mostGroups {
		return groups
	}
	for i := range len(groups) / 2 {
		groups[i] = Seen{groups[2*i].At, groups[2*i].Commits + groups[2*i+1].Commits}
	}
	return append(groups[:len(groups)/2], groups[len(groups)&^1:]...)
}

// Lag is how long commits took to become durable, in milliseconds, over the last minutes. Of a PostgreSQL cluster it counts
// pieces of WAL as they came from the server, of which each ends with one commit or more.
type Lag struct {
	Commits uint64  `json:"commits"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

const (
	// window is for how long lags count, at least; at most twice as long.
	window = 5 * time.Minute
	// buckets of lags grow by a twentieth: from a tenth of a millisecond to more than a day.
	growth  = 1.05
	buckets = 430
)

// lags measures. The zero value is ready.
type lags struct {
	now, before histogram
	since       time.Time
}

type histogram struct {
	count [buckets]uint64
	total uint64
	max   time.Duration
}

func bucket(d time.Duration) int {
	tenths := float64(d) / float64(100*time.Microsecond)
	if tenths <= 1 {
		return 0
	}
	return min(buckets-1, int(math.Log(tenths)/math.Log(growth))+1)
}

// upper is the largest lag of a bucket, in milliseconds.
func upper(bucket int) float64 { return 0.1 * math.Pow(growth, float64(bucket)) }

// durable notes that groups of commits became durable.
func (l *lags) durable(groups []Seen, at time.Time) {
	if at.Sub(l.since) > window {
		if at.Sub(l.since) > 2*window {
			l.now = histogram{}
		}
		l.before, l.now, l.since = l.now, histogram{}, at
	}
	for _, g := range groups {
		d := max(0, at.Sub(g.At))
		l.now.count[bucket(d)] += uint64(g.Commits) //nolint:gosec // a count
		l.now.total += uint64(g.Commits)            //nolint:gosec // as above
		l.now.max = max(l.now.max, d)
	}
}

// lag is what was measured up to now.
func (l *lags) lag() Lag {
	total := l.now.total + l.before.total
	out := Lag{Commits: total, Max: float64(max(l.now.max, l.before.max)) / float64(time.Millisecond)}
	out.P50, out.P99 = l.at(total, 0.5), l.at(total, 0.99)
	return out
}

func (l *lags) at(total uint64, part float64) float64 {
	want := uint64(math.Ceil(part * float64(total)))
	if want == 0 {
		return 0
	}
	var sum uint64
	for i := range buckets {
		if sum += l.now.count[i] + l.before.count[i]; sum >= want {
			return min(upper(i), float64(max(l.now.max, l.before.max))/float64(time.Millisecond))
		}
	}
	return upper(buckets - 1)
}
