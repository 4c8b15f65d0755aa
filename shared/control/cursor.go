package control

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Prefixes of what the functions verify and lifecycle have found.
const (
	VerifyFindingsPrefix    = "verify/findings/"
	LifecycleFindingsPrefix = "lifecycle/findings/"
)

// VerifyCursor is how far the re-reading of all bytes has come: `verify/cursor.json`, or one document for each shard.
// The function verify writes it. Where it is lost, everything is read from the beginning.
type VerifyCursor struct {
	Version   int                    `json:"version"`
	Busy      Lease                  `json:"busy,omitzero"`
	Allowance Allowance              `json:"allowance,omitzero"`
	Sources   map[string]*SourceTour `json:"sources,omitempty"` // by host/source
}

// Allowance is how many bytes may be read now, where there is a limit for a month.
type Allowance struct {
	At   time.Time `json:"at,omitzero"`
	Left int64     `json:"left"` // negative: more was read than there was
}

// Refill returns the allowance at now. It grows evenly, so that what a month allows is not read on its first day, and
// what is left over for a day only: in any 30 days no more than month is allowed.
func (a Allowance) Refill(month int64, now time.Time) Allowance {
	const day = 24 * time.Hour
	daily := month / 31 // thirty days, and the one that may be left over
	since := now.Sub(a.At)
	if a.At.IsZero() || since > day || since < 0 {
		since = day
	}
	left := a.Left + int64(float64(daily)*(float64(since)/float64(day)))
	return Allowance{At: now.UTC(), Left: min(left, daily)}
}

// Lease says that an invocation is at work; a second one leaves it alone until the time is over.
type Lease struct {
	Owner string    `json:"owner,omitempty"` // id of the request
	Until time.Time `json:"until,omitzero"`
}

// longestLease is longer than any invocation. A lease that ends later was taken by a clock that was wrong, and would keep
// everybody from work for as long as that was ahead.
const longestLease = time.Hour

// Held reports whether somebody else is at work.
func (l Lease) Held(owner string, now time.Time) bool {
	return l.Owner != "" && l.Owner != owner && now.Before(l.Until) && l.Until.Sub(now) <= longestLease
}

// Within reports whether then is less than d ago. What lies ahead of now stems from a clock that was wrong, and is not: it
// would put off what is to be done again for as long as that was ahead.
func Within(then, now time.Time, d time.Duration) bool {
	age := now.Sub(then)
	return age < d && age > -skew
}

// SourceTour is the re-reading of one source. A lap reads all of its packs; beside it, what is new is read soon.
type SourceTour struct {
	Lap   verify.Sweep `json:"lap,omitzero"`
	Open  bool         `json:"open,omitempty"`  // a lap is under way
	Begun time.Time    `json:"begun,omitzero"`  // when it began, or the last one did, by the function's clock
	Ended time.Time    `json:"ended,omitzero"`  // when the last lap was done
	Packs int          `json:"packs,omitempty"` // in that lap
	Bytes int64        `json:"bytes,omitempty"`
	Laps  uint64       `json:"laps,omitempty"`  // done so far: what is dear to read takes turns by it
	Split *Split       `json:"split,omitempty"` // the lap is read in ranges; nil: whole
	Total int64        `json:"total,omitempty"` // bytes that a lap reads, when last looked at
	Late  bool         `json:"late,omitempty"`  // that this lap takes longer than the period has been told

	Fresh     verify.Sweep `json:"fresh,omitzero"`
	FreshOpen bool         `json:"fresh_open,omitempty"`
	Looked    time.Time    `json:"looked,omitzero"` // when what was new had been read last
	// Read is the newest arrival, by the store's clock, up to which all packs of all snapshots have been read at least
	// once; zero: no lap is done yet.
	Read time.Time `json:"read,omitzero"`

	Sequence uint64 `json:"sequence,omitempty"` // of the newest snapshot that was seen
	Manifest string `json:"manifest,omitempty"` // its hash, in hex
	Error    string `json:"error,omitempty"`    // why the last attempt failed
}

// Split is a lap that is read in ranges of packs, each with a [VerifyRange].
type Split struct {
	Ranges  int       `json:"ranges"`
	Counted int64     `json:"counted"`       // bytes of them that are taken off the allowance
	Sent    time.Time `json:"sent,omitzero"` // when invocations were last asked for
}

// VerifyRange is how far one range of a lap has come: `verify/ranges/<host>/<source>/<begin of the lap>-<n>-of-<ranges>.json`.
// The invocation that reads it writes it.
type VerifyRange struct {
	Version int          `json:"version"`
	Busy    Lease        `json:"busy,omitzero"`
	Sweep   verify.Sweep `json:"sweep"`
	Done    bool         `json:"done,omitempty"`
	Error   string       `json:"error,omitempty"` // why the last attempt failed
}

// VerifyRangesPrefix begins the keys of [VerifyRange]s.
const VerifyRangesPrefix = "verify/ranges/"

// VerifyRangeKey is the key of one range.
func VerifyRangeKey(s snapshot.Source, lap time.Time, n, ranges int) string {
	return fmt.Sprintf("%s%s/%s/%d-%d-of-%d.json", VerifyRangesPrefix, s.Host, s.Name, lap.Unix(), n, ranges)
}

// VerifyShardKey is the key of the cursor of one shard of the sources.
func VerifyShardKey(shard, shards int) string {
	if shards <= 1 {
		return VerifyCursorKey
	}
	return fmt.Sprintf("verify/cursor-%d-of-%d.json", shard, shards)
}

// Findings is what a function has found wrong with one source, for monitor: `verify/findings/<host>/<source>.json` and
// `lifecycle/findings/<host>/<source>.json`. Receipts say which snapshots are hit; this says what else is to be known.
type Findings struct {
	Version  int       `json:"version"`
	Source   string    `json:"source"`
	Findings []Finding `json:"findings"`          // newest first
	Omitted  int       `json:"omitted,omitempty"` // of very many
}

// MaxFindings bounds what is remembered of one source.
const MaxFindings = 200

// Finding is one thing that is wrong.
type Finding struct {
	By        string    `json:"by"`  // arrival, rotation, period, versions, lock, replica, retention, pass
	Key       string    `json:"key"` // of the object
	Problem   string    `json:"problem"`
	Detail    string    `json:"detail,omitempty"`
	Warning   bool      `json:"warning,omitempty"` // nothing is lost by it
	Snapshots []uint64  `json:"snapshots,omitempty"`
	First     time.Time `json:"first"` // when it was first found
	Last      time.Time `json:"last"`
}

// VerifyFindingsKey is the key of what verify has found.
func VerifyFindingsKey(s snapshot.Source) string {
	return VerifyFindingsPrefix + s.Host + "/" + s.Name + ".json"
}

// LifecycleFindingsKey is the key of what lifecycle has found.
func LifecycleFindingsKey(s snapshot.Source) string {
	return LifecycleFindingsPrefix + s.Host + "/" + s.Name + ".json"
}

// Note adds what was found at now. Whatever one of replaces had said before, and is not found again, is over.
// It reports whether anything but the times of what stays is different, or a day has passed since they were written.
func (f *Findings) Note(src snapshot.Source, now time.Time, found []Finding, replaces ...string) bool {
	f.Version, f.Source = 1, src.String()
	gone := map[string]bool{}
	for _, by := range replaces {
		gone[by] = true
	}
	type name struct{ by, key, problem string }
	known := map[name]Finding{}
	for _, old := range f.Findings {
		known[name{old.By, old.Key, old.Problem}] = old
	}
	changed, seen := false, map[name]bool{}
	var all []Finding
	for _, n := range found {
		at := name{n.By, n.Key, n.Problem}
		if seen[at] {
			continue
		}
		seen[at] = true
		old, there := known[at]
		n.First, n.Last = now.UTC(), now.UTC()
		if there {
			n.First = old.First
		}
		changed = changed || !there || old.Detail != n.Detail || now.Sub(old.Last) >= 24*time.Hour
		all = append(all, n)
	}
	for _, old := range f.Findings {
		switch at := (name{old.By, old.Key, old.Problem}); {
		case seen[at]:
		case gone[old.By]:
			changed = true
		default:
			all = append(all, old)
		}
	}
	if n := len(all) - MaxFindings; n > 0 {
		f.Omitted += n
		all = all[:MaxFindings]
	}
	f.Findings = all
	return changed
}
