package retention_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// The oracle states the rules of the package's documentation once more, as predicates over all pairs of snapshots,
// without any order of evaluation.

type oracle struct {
	all   []retention.Snapshot
	rules policy.Retention
	zone  *time.Location
	now   time.Time
}

func (o oracle) kept(s retention.Snapshot) bool {
	if s.Pinned || s.Held {
		return true
	}
	for class := range 8 {
		in := o.class(class)
		if slices.ContainsFunc(in, func(x retention.Snapshot) bool { return x.Sequence == s.Sequence }) && o.keptIn(s, in) {
			return true
		}
	}
	newest := o.class(0)
	return slices.ContainsFunc(newest, func(x retention.Snapshot) bool {
		return x.ChainStart == s.Sequence && !slices.ContainsFunc(newest, func(y retention.Snapshot) bool { return y.Sequence > x.Sequence })
	})
}

// class gives the snapshots; bit 0: only complete, bit 1: only verified, bit 2: only finished.
func (o oracle) class(bits int) []retention.Snapshot {
	var in []retention.Snapshot
	for _, s := range o.all {
		if (bits&1 == 0 || !s.Partial) && (bits&2 == 0 || s.Verified) && (bits&4 == 0 || !s.Unfinished) {
			in = append(in, s)
		}
	}
	return in
}

func (o oracle) keptIn(s retention.Snapshot, in []retention.Snapshot) bool {
	newer := 0
	newest := s
	for _, x := range in {
		if x.Sequence > s.Sequence {
			newer++
		}
		if x.Sequence > newest.Sequence {
			newest = x
		}
	}
	reference := newest.Time
	if o.now.Before(reference) {
		reference = o.now
	}
	r := o.rules
	switch {
	case newer == 0, r.Empty(), newer < r.KeepLast:
		return true
	case r.KeepWithin > 0 && reference.Sub(s.Time) <= r.KeepWithin.Std():
		return true
	}
	for _, tag := range r.KeepTags {
		if slices.Contains(s.Tags, tag) {
			return true
		}
	}
	for _, t := range []struct {
		count int
		same  func(a, b time.Time) bool
		fulls bool
	}{
		{r.Hourly, sameHour, false},
		{r.Daily, sameDay, false},
		{r.Weekly, func(a, b time.Time) bool { return sameDay(monday(a), monday(b)) }, true},
		{r.Monthly, func(a, b time.Time) bool { return a.Year() == b.Year() && a.Month() == b.Month() }, true},
		{r.Yearly, func(a, b time.Time) bool { return a.Year() == b.Year() }, true},
	} {
		if o.fills(s, in, t.same, t.fulls) && o.rank(s, in, t.same, t.fulls) < t.count {
			return true
		}
	}
	return false
}

func sameDay(a, b time.Time) bool { return a.Year() == b.Year() && a.YearDay() == b.YearDay() }

func sameHour(a, b time.Time) bool {
	_, x := a.Zone()
	_, y := b.Zone()
	return sameDay(a, b) && a.Hour() == b.Hour() && x == y
}

func monday(t time.Time) time.Time {
	day := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC)
	for day.Weekday() != time.Monday {
		day = day.AddDate(0, 0, -1)
	}
	return day
}

func (o oracle) fills(s retention.Snapshot, in []retention.Snapshot, same func(a, b time.Time) bool, fulls bool) bool {
	for _, x := range in {
		if !same(x.Time.In(o.zone), s.Time.In(o.zone)) {
			continue
		}
		xFull, sFull := fulls && x.Type == snapshot.Full, fulls && s.Type == snapshot.Full
		if (xFull && !sFull) || (xFull == sFull && x.Sequence > s.Sequence) {
			return false
		}
	}
	return true
}

// rank counts the slots that are filled by a newer snapshot than s, which fills its own.
func (o oracle) rank(s retention.Snapshot, in []retention.Snapshot, same func(a, b time.Time) bool, fulls bool) int {
	newer := 0
	for _, x := range in {
		if x.Sequence > s.Sequence && o.fills(x, in, same, fulls) {
			newer++
		}
	}
	return newer
}

func history(r *rand.Rand) []retention.Snapshot {
	starts := []time.Time{
		time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC), // clocks go back in Europe
		time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC),  // clocks go forward in Europe
		time.Date(2026, 4, 4, 10, 0, 0, 0, time.UTC),   // clocks go back by half an hour on Lord Howe
		time.Date(2026, 12, 29, 1, 0, 0, 0, time.UTC),  // ISO week 53
		time.Date(2024, 12, 28, 1, 0, 0, 0, time.UTC),  // ISO week 1 in December
		time.Date(2011, 12, 28, 1, 0, 0, 0, time.UTC),  // a day that Samoa left out
		time.Date(2028, 2, 27, 23, 0, 0, 0, time.UTC),
	}
	steps := []time.Duration{0, time.Second, 10 * time.Minute, 30 * time.Minute, time.Hour, 7 * time.Hour, 24 * time.Hour, 9 * 24 * time.Hour, 45 * 24 * time.Hour}
	step := steps[r.IntN(len(steps))]
	t := starts[r.IntN(len(starts))]
	chance := func(n int) bool { return r.IntN(n) == 0 }
	unverified, partial := 1+r.IntN(6), 2+r.IntN(12)
	var out []retention.Snapshot
	var seq, chain uint64
	for range r.IntN(36) {
		seq += 1 + uint64(r.IntN(5)/4)
		s := retention.Snapshot{
			Sequence: seq, Time: t, Type: snapshot.Incremental,
			Verified: !chance(unverified), Partial: chance(partial), Condemned: chance(15),
			Pinned: chance(30), Held: chance(40),
		}
		s.Unfinished = s.Partial && chance(2)
		switch {
		case chain == 0 || chance(8):
			s.Type, chain = snapshot.Full, seq
		case chance(5):
			s.Type = snapshot.Differential
		}
		s.ChainStart = chain
		if chance(10) {
			s.Tags = []string{"release", "x"}
		}
		out = append(out, s)
		if chance(3) {
			step = steps[r.IntN(len(steps))]
		}
		t = t.Add(step)
		if chance(25) {
			t = t.Add(time.Duration(r.IntN(2000)-1000) * time.Hour) // the store's clock jumps
		}
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func rules(r *rand.Rand) policy.Retention {
	n := func() int {
		if r.IntN(2) == 0 {
			return 0
		}
		return r.IntN(6)
	}
	zones := []string{"", "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"}
	out := policy.Retention{
		KeepLast: n(), Hourly: n(), Daily: n(), Weekly: n(), Monthly: n(), Yearly: n(), TimeZone: zones[r.IntN(len(zones))],
	}
	if r.IntN(3) == 0 {
		out.KeepWithin = policy.Duration(time.Duration(r.IntN(100)) * time.Hour)
	}
	if r.IntN(3) == 0 {
		out.KeepTags = []string{"release"}
	}
	return out
}

var first = flag.Uint64("seed", 1, "first of the seeds; 0: another one each time")

func TestOracle(t *testing.T) {
	seed := *first
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for round := range uint64(800) {
		if check(t, seed+round); t.Failed() {
			return
		}
	}
}

func check(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	snapshots, rules := history(r), rules(r)
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(20000)-15000) * time.Hour)
	zone, err := time.LoadLocation(rules.TimeZone)
	if err != nil {
		t.Fatal(err)
	}
	got, err := retention.Plan(snapshots, rules, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(snapshots) {
		t.Fatalf("seed %d: %d decisions about %d snapshots", seed, len(got), len(snapshots))
	}
	o := oracle{snapshots, rules, zone, now}
	bySequence := map[uint64]retention.Snapshot{}
	for _, s := range snapshots {
		bySequence[s.Sequence] = s
	}
	var stay []retention.Snapshot
	var last uint64
	for _, d := range got {
		s, known := bySequence[d.Sequence]
		if !known || d.Sequence <= last || len(d.Reasons) == 0 {
			t.Fatalf("seed %d: decision %+v", seed, d)
		}
		last = d.Sequence
		if want := o.kept(s); d.Keep != want {
			t.Errorf("seed %d: %+v: kept %v, want %v, because %q; rules %+v, now %s", seed, s, d.Keep, want, d.Reasons, rules, now)
		}
		if d.Keep || d.Condemned {
			stay = append(stay, s)
		}
	}
	again, err := retention.Plan(stay, rules, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range again {
		if !d.Keep && !d.Condemned && monotone(snapshots) {
			t.Errorf("seed %d: @%d goes in a second plan after the first was carried out", seed, d.Sequence)
		}
	}
	neverDisplaced(t, seed, snapshots, rules, now, got)
}

// monotone reports whether arrival times ascend with the numbers.
func monotone(snapshots []retention.Snapshot) bool {
	sorted := slices.SortedFunc(slices.Values(snapshots), func(a, b retention.Snapshot) int { return int(a.Sequence) - int(b.Sequence) })
	return slices.IsSortedFunc(sorted, func(a, b retention.Snapshot) int { return a.Time.Compare(b.Time) })
}

// neverDisplaced checks that everything verified that would be kept if nothing unverified existed is kept.
func neverDisplaced(t *testing.T, seed uint64, snapshots []retention.Snapshot, rules policy.Retention, now time.Time, got []retention.Decision) {
	t.Helper()
	verified := slices.DeleteFunc(slices.Clone(snapshots), func(s retention.Snapshot) bool { return !s.Verified })
	alone, err := retention.Plan(verified, rules, now)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[uint64]bool{}
	for _, d := range got {
		kept[d.Sequence] = d.Keep
	}
	for _, d := range alone {
		// Which chain runs is decided by the newest snapshot of any sort.
		if d.Keep && !kept[d.Sequence] && !cmp.Equal(d.Reasons, []string{"full of the running chain"}) {
			t.Errorf("seed %d: verified @%d (%q) was displaced", seed, d.Sequence, d.Reasons)
		}
	}
}

func TestReasonsAreUnique(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		got, err := retention.Plan(history(r), rules(r), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got {
			sorted := slices.Sorted(slices.Values(d.Reasons))
			if len(slices.Compact(sorted)) != len(d.Reasons) {
				t.Fatalf("seed %d: @%d: %q", seed, d.Sequence, d.Reasons)
			}
		}
	}
}
