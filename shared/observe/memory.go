package observe

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Memory is what is remembered of one source between looks at it. It can be lost: the next look reads the repository
// again. It keeps the snapshots that objectives can depend on, not all, so that it stays small.
type Memory struct {
	Source     string                     `json:"source"`
	Looked     time.Time                  `json:"looked"`            // last listing that succeeded
	Audited    time.Time                  `json:"audited,omitzero"`  // last listing of everything
	Receipts   time.Time                  `json:"receipts,omitzero"` // arrival of the newest receipt that was read
	Awaited    time.Time                  `json:"awaited,omitzero"`  // last listing of receipts
	Recent     []string                   `json:"recent,omitempty"`  // receipts that arrived just before that, shortened
	Objects    int                        `json:"objects"`           // in the last listing of everything
	Stored     int64                      `json:"stored"`            // bytes, then; plus what was added since
	Mark       string                     `json:"mark"`              // of the listing of manifests
	Rest       string                     `json:"rest,omitempty"`    // of the listing of everything else that is small
	Count      int                        `json:"count"`             // snapshots
	LastSeen   uint64                     `json:"last_seen"`         // highest number ever
	Kept       []Kept                     `json:"kept"`              // ascending
	Unreadable []uint64                   `json:"unreadable,omitempty"`
	Missing    []uint64                   `json:"missing,omitempty"`
	Expired    []snapshot.Range           `json:"expired,omitempty"`  // numbers with a record of their removal, ascending
	Days       []compliance.Sample        `json:"days,omitempty"`     // one for each day with a listing of everything
	Copies     map[string]compliance.Copy `json:"copies,omitempty"`   // by address
	Followed   bool                       `json:"followed,omitempty"` // it has a log
	Compared   time.Time                  `json:"compared,omitzero"`  // when that was compared with the copies' last
	Locked     time.Time                  `json:"locked,omitzero"`    // until when the newest manifest is locked against deletion
	Asked      time.Time                  `json:"asked,omitzero"`     // when the store was asked for that
	Lock       *compliance.Lock           `json:"lock,omitempty"`     // as lifecycle knows it
	LockRead   time.Time                  `json:"lock_read,omitzero"`
	Restored   *compliance.Restore        `json:"restored,omitempty"`
	Deep       deep                       `json:"deep,omitzero"`
	KeyProven  time.Time                  `json:"key_proven,omitzero"`   // by the newest receipt of level key
	KeyReceipt string                     `json:"key_receipt,omitempty"` // that one, shortened
}

// The flags of kept snapshots.
const (
	flagPartial = 1 << iota
	flagVerified
	flagFailed // by its receipts
	flagPacks  // uses packs on record as damaged
	flagCondemned
	flagChecked
	flagNotConsistent
	flagUnfinished
)

// Kept is a snapshot that is remembered.
type Kept struct {
	compliance.Snapshot
	Manifest string // the first 32 hex digits of the manifest's hash; empty for older ones
	Added    int64  // bytes stored for it
	listed   time.Time
	failed   bool
	packs    bool
}

// keptForm is how it is written: numbers in a row, times in milliseconds. With ten thousand sources each byte counts.
type keptForm [8]int64

// MarshalJSON writes a short form.
func (k Kept) MarshalJSON() ([]byte, error) {
	arrived := k.Arrived.UnixMilli()
	var flags int64
	for flag, set := range map[int64]bool{
		flagPartial: k.Partial, flagVerified: k.Verified, flagFailed: k.failed, flagPacks: k.packs,
		flagCondemned: k.Condemned, flagChecked: k.Checked, flagNotConsistent: k.NotConsistent, flagUnfinished: k.Unfinished,
	} {
		if set {
			flags |= flag
		}
	}
	form := keptForm{
		int64(k.Sequence), arrived, k.listed.UnixMilli() - arrived, k.Started.UnixMilli() - arrived, k.Finished.UnixMilli() - arrived, k.Bytes, k.Added, flags,
	}
	return json.Marshal([]any{form, k.Manifest})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (k *Kept) UnmarshalJSON(b []byte) error {
	var form keptForm
	if err := json.Unmarshal(b, &[2]any{&form, &k.Manifest}); err != nil {
		return fmt.Errorf("decode snapshot: %w", err)
	}
	arrived, flags := form[1], form[7]
	at := func(offset int64) time.Time { return time.UnixMilli(arrived + offset).UTC() }
	k.Point = recovery.Point{
		Sequence: uint64(form[0]), Arrived: at(0), Started: at(form[3]), Finished: at(form[4]),
		Partial: flags&flagPartial != 0, Verified: flags&flagVerified != 0, Condemned: flags&flagCondemned != 0,
		NotConsistent: flags&flagNotConsistent != 0, Unfinished: flags&flagUnfinished != 0,
	}
	k.listed, k.Bytes, k.Added, k.Checked = at(form[2]), form[5], form[6], flags&flagChecked != 0
	k.failed, k.packs = flags&flagFailed != 0, flags&flagPacks != 0
	k.settle()
	return nil
}

// settle derives what counts from what receipts and records of damage say.
func (k *Kept) settle() {
	k.Damaged = k.failed || k.packs
	k.Verified = k.Verified && !k.Damaged
}

// hashDigits is how much of a manifest's hash is remembered.
const hashDigits = 32

func kept(m *repository.Stored, listed time.Time) Kept {
	return Kept{
		Snapshot: compliance.Snapshot{Point: recovery.FromManifest(m.Manifest, m.Arrived.UTC()), Bytes: contentBytes(m)},
		Manifest: m.Hash.String()[:hashDigits], Added: int64(min(m.Counts.AddedBytes, 1<<62)), listed: listed.UTC().Truncate(time.Millisecond),
	}
}

// How much is remembered of a source.
const (
	keepNewest  = 12 // what is usual is judged by these
	keepDays    = 8  // gaps are told for seven
	keepMost    = 300
	keepDamaged = 50
	keepSamples = 35
)

// usable reports whether the snapshot counts for the RPO, as package compliance judges it.
func (k *Kept) usable() bool { return !k.Partial && !k.Damaged && !k.Condemned && !k.ClockOff() }

// proven reports whether the snapshot counts as verified.
func (k *Kept) proven() bool { return k.Verified && !k.Condemned }

// trim drops what no objective depends on any more: it keeps the oldest, the newest, those of the last days, the newest
// that is usable, the newest that is verified, and those that are damaged.
func (m *Memory) trim(now time.Time) {
	var keep []Kept // descending
	var haveUsable, haveProven bool
	damaged := 0
	for i := len(m.Kept) - 1; i >= 0; i-- {
		k := &m.Kept[i]
		fromEnd := len(m.Kept) - 1 - i
		recent := fromEnd < keepNewest || fromEnd < keepMost && now.Sub(k.Arrived) < keepDays*24*time.Hour
		// A deletion that is announced may be withdrawn: what would count then is kept as well.
		counts := *k
		counts.Condemned = false
		needed := !haveUsable && counts.usable() || !haveProven && counts.proven()
		told := k.Damaged && !k.Condemned && damaged < keepDamaged
		if !recent && !needed && !told && i > 0 {
			continue
		}
		if k.Damaged {
			damaged++
		}
		haveUsable, haveProven = haveUsable || k.usable(), haveProven || k.proven()
		if fromEnd >= keepNewest && !k.Damaged {
			k.Manifest = "" // it is half of what is kept, and that the listing shows the same object is enough for old ones
		}
		keep = append(keep, *k)
	}
	slices.Reverse(keep)
	m.Kept = keep
	if n := len(m.Days); n > keepSamples {
		m.Days = slices.Clone(m.Days[n-keepSamples:])
	}
}

// sample notes how much is stored, once a day.
func (m *Memory) sample(now time.Time) {
	if n := len(m.Days); n > 0 && now.Sub(m.Days[n-1].Time) < 20*time.Hour {
		return
	}
	m.Days = append(m.Days, compliance.Sample{Time: now.UTC(), Bytes: m.Stored})
}

// Facts is what is remembered, for [compliance.Evaluate]. What jobs, policy and agent say is added by the caller.
func (m *Memory) Facts(src snapshot.Source) *compliance.Facts {
	f := &compliance.Facts{
		Source: src, Missing: m.Missing, Unreadable: m.Unreadable, LastSeen: m.LastSeen, Stored: m.Stored,
		Restored: m.Restored, Growth: m.Days, Lock: m.Lock, KeyProven: m.KeyProven,
	}
	// Who can neither delete nor overwrite the newest manifest, for a time that the store itself holds to, can't do so with
	// what was put before: a lock is for all objects of a bucket.
	f.Protected = m.Locked.After(m.Looked)
	if m.removed(m.LastSeen) {
		f.LastSeen = 0
	}
	for i := range m.Kept {
		f.Snapshots = append(f.Snapshots, m.Kept[i].Snapshot)
	}
	for _, c := range m.Copies {
		f.Copies = append(f.Copies, c)
	}
	slices.SortFunc(f.Copies, func(a, b compliance.Copy) int {
		if a.Place < b.Place {
			return -1
		}
		return 1
	})
	return f
}

// removed reports whether there is a record that retention removed a snapshot.
func (m *Memory) removed(n uint64) bool {
	return slices.ContainsFunc(m.Expired, func(r snapshot.Range) bool { return r.First <= n && n <= r.Last })
}
