// Package cost projects what a policy will cost: requests and bytes a day, and the bytes stored after a year. It does no
// I/O; [Project] runs the policy's schedules and retention over a year of an imagined calendar.
//
// The result is an estimate under [Assumptions], which are printed with it. It knows no prices.
package cost

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Days is the length of the projection.
const Days = 365

// The assumptions in numbers.
const (
	DefaultCompression = 0.5 // stored bytes per plain byte
	runPuts            = 2   // pack list and manifest, besides packs and keys
	runLists           = 2   // numbers of the source, structure check of what arrived
	runGets            = 4   // access document, parent's manifest and list, root of its tree
	runBytes           = 16 << 10
	logDays            = 7 // a log is kept this long where keep_within is not set
)

// Assumptions returns, in words, what the numbers rest on.
func Assumptions() []string {
	return []string{
		fmt.Sprintf("stored bytes are %d %% of the plain bytes where no measured ratio is given", int(DefaultCompression*100)),
		"the share that changes in a day, where none is given: files 1 %, docker 2 %, sqlite and postgres 5 %",
		"sizes stay as they are for a year; every scheduled run happens, and a full stores everything again",
		fmt.Sprintf("packs of %d MiB; a run also puts a pack list and a manifest (a full: one key per recipient), lists twice and reads %d objects", snapshot.PackTarget>>20, runGets),
		"a copy receives what the primary receives; each object is read once for it",
		"a log is busy all day (idle logs cost nothing)",
		"verification that re-reads data, and what retention dropped in the last seven days, are not counted",
	}
}

// Measure is what is known about a source today.
type Measure struct {
	Bytes       int64   // plain bytes
	DailyChange float64 // share of the bytes that changes in a day; 0: assumed by kind
	Compression float64 // stored bytes per plain byte; 0: DefaultCompression
}

// Source is the projection for one source.
type Source struct {
	Source   string   `json:"source"`
	Known    bool     `json:"known"` // its size is known; otherwise only requests are projected
	Runs     float64  `json:"runs_per_day"`
	Puts     float64  `json:"puts_per_day"`  // primary and copies
	Lists    float64  `json:"lists_per_day"` // primary
	Gets     float64  `json:"gets_per_day"`  // primary, for the next run and for copies
	Uploaded int64    `json:"uploaded_bytes_per_day"`
	Kept     int      `json:"kept_snapshots"` // after a year
	Stored   int64    `json:"stored_bytes"`   // after a year, in the primary; a copy stores as much
	Notes    []string `json:"notes,omitempty"`
}

// Projection is the projection for a policy.
type Projection struct {
	Sources     []Source `json:"sources"` // by host and name
	Total       Source   `json:"total"`
	Notes       []string `json:"notes,omitempty"`
	Assumptions []string `json:"assumptions"`
}

// Project projects the policy from a time on (which day of the month it begins matters little). Sources that measures
// does not name count requests only.
func Project(p *policy.Policy, measures map[snapshot.Source]Measure, from time.Time) (*Projection, error) {
	out := &Projection{Sources: []Source{}, Assumptions: Assumptions()}
	out.Total.Source, out.Total.Known = "total", true
	hosts := map[string]int64{}
	var failed error
	p.Each(func(host, name string, s *policy.Source) {
		src := snapshot.Source{Host: host, Name: name}
		m, known := measures[src]
		one, err := project(s, m, len(p.Repository.Copies), max(1, len(p.Repository.Recipients)), from)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("project %s: %w", src, err))
			return
		}
		one.Source, one.Known = src.String(), known
		if !known {
			one.Uploaded, one.Stored = 0, 0
			one.Notes = append(one.Notes, "its size is not known yet: bytes are not projected")
		}
		out.Sources = append(out.Sources, one)
		hosts[host] += one.Stored
		t := &out.Total
		t.Known = t.Known && known
		t.Runs, t.Puts, t.Lists, t.Gets = t.Runs+one.Runs, t.Puts+one.Puts, t.Lists+one.Lists, t.Gets+one.Gets
		t.Uploaded, t.Kept, t.Stored = t.Uploaded+one.Uploaded, t.Kept+one.Kept, t.Stored+one.Stored
	})
	for _, host := range slices.Sorted(maps.Keys(p.Hosts)) {
		if limit := p.Hosts[host].MaxSize; limit > 0 && hosts[host] > int64(limit) {
			out.Notes = append(out.Notes, fmt.Sprintf("%s: projected to store more than its max_size %s", host, limit))
		}
	}
	return out, failed
}

func change(s *policy.Source, m Measure) float64 {
	if m.DailyChange > 0 {
		return m.DailyChange
	}
	switch s.Kind() {
	case policy.KindSQLite, policy.KindPostgres:
		return 0.05
	case policy.KindDocker:
		return 0.02
	}
	return 0.01
}

// year is one source's simulated year.
type year struct {
	s          *policy.Source
	full       float64 // stored bytes of a full
	daily      float64 // stored bytes that change in a day
	recipients int

	snapshots []retention.Snapshot // what retention has left so far
	starts    map[uint64]time.Time // of chains, by their first snapshot
	runs      float64
	puts      float64
	uploaded  float64
	longest   time.Duration // between two runs
}

func project(s *policy.Source, m Measure, copies, recipients int, from time.Time) (Source, error) {
	ratio := cmp.Or(m.Compression, DefaultCompression)
	y := &year{
		s: s, full: float64(m.Bytes) * ratio, daily: float64(m.Bytes) * ratio * change(s, m), recipients: recipients,
		starts: map[uint64]time.Time{},
	}
	if err := y.simulate(from); err != nil {
		return Source{}, err
	}
	stored := y.stored()
	puts, uploaded := y.puts/Days, y.uploaded/Days
	if every := s.Schedule.Continuous.Std(); every > 0 {
		puts += float64(24*time.Hour) / float64(every)
		uploaded += y.daily
		kept := logDays * 24 * time.Hour
		if s.Retention.KeepWithin > 0 {
			kept = s.Retention.KeepWithin.Std()
		}
		stored += y.daily * kept.Hours() / 24
	}
	out := Source{
		Runs: round(y.runs / Days), Puts: round(puts * float64(1+copies)), Lists: round(y.runs / Days * runLists),
		Gets: round(y.runs/Days*runGets + puts*float64(copies)), Uploaded: bytes(uploaded), Kept: len(y.snapshots), Stored: bytes(stored),
	}
	out.Notes = y.notes(out)
	return out, nil
}

// round keeps two decimals, so that results compare and print well.
func round(v float64) float64 { return math.Round(v*100) / 100 }

func bytes(v float64) int64 { return int64(min(v, 1<<62)) }

// next returns the first run after t and its type; of several at one time the fullest counts.
func (y *year) next(t time.Time) (time.Time, snapshot.SnapshotType) {
	var at time.Time
	var kind snapshot.SnapshotType
	for _, c := range []struct {
		cron policy.Cron
		kind snapshot.SnapshotType
	}{
		{y.s.Schedule.Full, snapshot.Full},
		{y.s.Schedule.Differential, snapshot.Differential},
		{y.s.Schedule.Incremental, snapshot.Incremental},
	} {
		if n := c.cron.Next(t); !n.IsZero() && (at.IsZero() || n.Before(at)) {
			at, kind = n, c.kind
		}
	}
	return at, kind
}

func (y *year) simulate(from time.Time) error {
	const batch = 20_000
	end := from.AddDate(0, 0, Days)
	limit := batch
	var chain, seq uint64
	var last time.Time
	for at, kind := y.next(from); !at.IsZero() && at.Before(end); at, kind = y.next(at) {
		seq++
		if chain == 0 {
			kind = snapshot.Full // the first run of a source is a full, whatever was scheduled
		}
		if kind == snapshot.Full {
			chain = seq
			y.starts[chain] = at
		}
		y.run(at, kind, last, y.starts[chain])
		y.snapshots = append(y.snapshots, retention.Snapshot{Sequence: seq, Time: at, Type: kind, ChainStart: chain, Verified: true})
		last = at
		// Retention runs now and then, so that a year of minutes stays small.
		if len(y.snapshots) >= limit {
			if err := y.retain(at); err != nil {
				return err
			}
			limit = 2*len(y.snapshots) + batch
		}
	}
	return y.retain(end)
}

// run counts one run.
func (y *year) run(at time.Time, kind snapshot.SnapshotType, last, chain time.Time) {
	added := y.full
	since := last
	if kind == snapshot.Differential {
		since = chain
	}
	if kind != snapshot.Full {
		added = min(y.full, y.daily*at.Sub(since).Hours()/24)
	} else {
		y.puts += float64(y.recipients)
	}
	if !last.IsZero() {
		y.longest = max(y.longest, at.Sub(last))
	}
	y.runs++
	y.puts += runPuts + max(1, math.Ceil(added/snapshot.PackTarget))
	y.uploaded += added + runBytes
}

func (y *year) retain(now time.Time) error {
	decisions, err := retention.Plan(y.snapshots, y.s.Retention, now)
	if err != nil {
		return err
	}
	left := y.snapshots[:0]
	for i, d := range decisions {
		if d.Keep {
			left = append(left, y.snapshots[i])
		}
	}
	y.snapshots = left
	return nil
}

// stored adds up what the kept snapshots hold: of each chain its full, and what changed from one kept snapshot to the
// next.
func (y *year) stored() float64 {
	var sum float64
	var chain uint64
	var last time.Time
	for _, s := range y.snapshots {
		if s.ChainStart != chain {
			chain, last = s.ChainStart, y.starts[s.ChainStart]
			sum += y.full
		}
		sum += min(y.full, y.daily*s.Time.Sub(last).Hours()/24) + runBytes
		last = s.Time
	}
	return sum
}

func (y *year) notes(out Source) []string {
	var notes []string
	o := y.s.Objectives
	watched := y.s.Files != nil && y.s.Files.Watch
	switch {
	case y.runs == 0 && !watched:
		notes = append(notes, "no schedule: it is backed up only when somebody does it")
	case y.s.Schedule.Continuous > 0:
		if y.s.Schedule.Continuous > o.RPO {
			notes = append(notes, fmt.Sprintf("rpo %s can't be met: the log is flushed every %s", o.RPO, y.s.Schedule.Continuous))
		}
	case !watched && y.longest > o.RPO.Std():
		notes = append(notes, fmt.Sprintf("rpo %s can't be met: up to %s lie between two runs", o.RPO, policy.Duration(y.longest).Rough()))
	}
	if o.MaxSize > 0 && out.Stored > int64(o.MaxSize) {
		notes = append(notes, fmt.Sprintf("projected to store more than its max_size %s", o.MaxSize))
	}
	return notes
}
