package recovery

import (
	"slices"
	"time"
)

// Measured is how long a restore took once.
type Measured struct {
	Time  time.Time     `json:"time"`
	Took  time.Duration `json:"took_ns"`
	Bytes int64         `json:"bytes"`
}

// AssumedRate is at how many bytes a second a restore is expected to run where none was ever measured: a careful guess
// for one host and a bucket in its region.
const AssumedRate = 50 << 20

// Plan says what restoring one snapshot would mean.
type Plan struct {
	Selection Selection     `json:"selection"`
	Window    Window        `json:"window"`
	Lost      time.Duration `json:"lost_ns"`      // from the state that is restored to the one that is wanted
	LostMin   int           `json:"lost_minutes"` // the same, rounded up
	Bytes     int64         `json:"bytes"`        // content to write
	Download  int64         `json:"download_bytes"`
	Thaw      time.Duration `json:"thaw_ns,omitempty"`      // until archived objects can be read
	ThawMin   int           `json:"thaw_minutes,omitempty"` // the same, rounded up
	Thawing   *Thawing      `json:"thawing,omitempty"`      // what is cold and what it costs; nil: nothing is
	Space     *Space        `json:"space,omitempty"`        // at the target; nil: not known
	Expected  time.Duration `json:"expected_ns"`            // thaw included
	Minutes   int           `json:"expected_minutes"`       // the same, rounded up
	Measured  *Measured     `json:"measured,omitempty"`
	Guessed   bool          `json:"guessed"` // no restore was ever measured: Expected rests on AssumedRate
	Warnings  []string      `json:"warnings,omitempty"`
}

// Facts is what a plan is made from, besides the snapshots.
type Facts struct {
	RPO      time.Duration
	Bytes    func(sequence uint64) (content, stored int64)
	Thawing  *Thawing  // nil: nothing is cold
	Space    *Space    // at the target; nil: not known
	Measured *Measured // newest measured restore that went well; nil: none
	// Epochs are those of the source's log, whose times are records' arrivals where nobody opened them; none: it has no log.
	Epochs   []LogEpoch
	Warnings []string // what else a person should know
}

// MakePlan chooses a state as [SelectMoment] does and says what its restore would cost; a snapshot that is asked for by
// number, with a time too, is that snapshot and the log after it up to then. What is lost counts up to the time that is
// wanted, or up to now. An error is a [NotFoundError].
func MakePlan(candidates []Point, want Selector, f Facts, now time.Time) (*Plan, error) {
	chosen, err := f.choose(candidates, want)
	if err != nil {
		return nil, err
	}
	p := &Plan{Selection: chosen, Window: RecoverableMoments(candidates, f.Epochs, f.RPO, now), Thawing: f.Thawing, Space: f.Space, Measured: f.Measured, Warnings: f.Warnings}
	if f.Thawing != nil {
		p.Thaw = f.Thawing.Time
	}
	until := now
	if !want.At.IsZero() && (want.Sequence == 0 || len(f.Epochs) > 0) {
		until = want.At
	}
	p.Lost = max(0, until.Sub(chosen.Reached))
	p.Bytes, p.Download = f.Bytes(chosen.Point.Sequence)
	const most = float64(100 * 365 * 24 * time.Hour)
	if m := f.Measured; m != nil && m.Bytes > 0 && m.Took > 0 {
		p.Expected = time.Duration(min(most, float64(m.Took)*float64(p.Bytes)/float64(m.Bytes)))
	} else {
		p.Guessed, p.Measured = true, nil
		p.Expected = time.Duration(min(most, float64(max(p.Bytes, p.Download))/AssumedRate*float64(time.Second)))
	}
	p.Expected += p.Thaw
	if lacks := f.Space.Lacks(p.Bytes); lacks != "" {
		p.Warnings = append(p.Warnings, lacks)
	}
	p.LostMin, p.ThawMin, p.Minutes = minutes(p.Lost), minutes(p.Thaw), minutes(p.Expected)
	return p, nil
}

func (f *Facts) choose(candidates []Point, want Selector) (Selection, error) {
	if want.Sequence == 0 || want.At.IsZero() || len(f.Epochs) == 0 {
		return SelectMoment(candidates, f.Epochs, want)
	}
	at := slices.IndexFunc(candidates, func(p Point) bool { return p.Sequence == want.Sequence })
	if at < 0 {
		return Select(candidates, Selector{Sequence: want.Sequence}) // says which are nearest
	}
	return SelectMoment(candidates[at:at+1], f.Epochs, Selector{At: want.At})
}

func minutes(d time.Duration) int { return int((d + time.Minute - 1) / time.Minute) }
