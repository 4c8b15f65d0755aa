package control

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/repository/lock"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Prefixes of what the function lifecycle writes.
const (
	LifecyclePrefix        = "lifecycle/"
	LifecycleSourcesPrefix = LifecyclePrefix + "sources/"
	LifecycleJournalPrefix = LifecyclePrefix + "journal/"
)

// LifecycleCursor says when each source had its last pass: `lifecycle/cursor.json`, or one document for each shard. The
// function lifecycle writes it. Where it is lost, each source has its pass a little early.
type LifecycleCursor struct {
	Version    int                  `json:"version"`
	Busy       Lease                `json:"busy,omitzero"`
	Passed     map[string]time.Time `json:"passed,omitempty"`    // by host/source, by the function's clock
	Tried      map[string]time.Time `json:"tried,omitempty"`     // when a pass began that has not come to an end, by host/source
	Repository lock.State           `json:"repository,omitzero"` // locks of the documents of the repository as a whole
	Listed     time.Time            `json:"listed,omitzero"`     // when the sources were listed last: all are in Passed, with the zero time until they had a pass
}

// LifecycleShardKey is the key of the cursor of one shard of the sources.
func LifecycleShardKey(shard, shards int) string {
	if shards <= 1 {
		return LifecyclePrefix + "cursor.json"
	}
	return fmt.Sprintf("%scursor-%d-of-%d.json", LifecyclePrefix, shard, shards)
}

// LifecycleSource is what lifecycle knows and has done of one source: `lifecycle/sources/<host>/<source>.json`.
type LifecycleSource struct {
	Version int       `json:"version"`
	Source  string    `json:"source"`
	Passed  time.Time `json:"passed,omitzero"` // end of the last whole pass, by the function's clock
	Error   string    `json:"error,omitempty"` // why the last one was not whole
	Frozen  string    `json:"frozen,omitempty"`

	// Seen is the highest number of a snapshot that a pass has ever seen: where the source ends before it, nothing that the
	// missing ones may need is removed.
	Seen uint64 `json:"seen,omitempty"`

	// Retention remembers the rules, so that shorter ones wait. It is written before anything is announced.
	Retention retention.Record     `json:"retention,omitzero"`
	Shortened *retention.Shortened `json:"shortened,omitempty"`

	Lock      lock.State           `json:"lock,omitzero"`
	Until     map[uint64]time.Time `json:"until,omitempty"` // until when each snapshot is locked against deletion
	Protected *compliance.Lock     `json:"protected,omitempty"`

	Cold []string `json:"cold,omitempty"` // chains whose packs are tagged for a colder storage class

	Waiting *PlanWaiting `json:"waiting,omitempty"` // removals that a person must agree to
	Last    *Pruned      `json:"last,omitempty"`
}

// PlanWaiting is a set of removals that is so large that a person must agree to it.
type PlanWaiting struct {
	Plan      string    `json:"plan"` // names just these snapshots
	Drop      int       `json:"drop"`
	Total     int       `json:"total"`
	Snapshots []uint64  `json:"snapshots"` // of very many the first
	Since     time.Time `json:"since"`
}

// Pruned sums up what the last pass removed.
type Pruned struct {
	Condemned int   `json:"condemned"`
	Withdrawn int   `json:"withdrawn"`
	Removed   int   `json:"removed"`
	Waiting   int   `json:"waiting"`
	Locked    int   `json:"locked"` // objects that nothing needs and a lock keeps
	Packs     int   `json:"packs"`
	Freed     int64 `json:"freed"`
}

// LifecycleSourceKey is the key of a source's document.
func LifecycleSourceKey(s snapshot.Source) string {
	return LifecycleSourcesPrefix + s.Host + "/" + s.Name + ".json"
}

// Deletions is what lifecycle is about to delete, written before it does: `lifecycle/journal/<host>/<source>/<time>-<n>.json`.
type Deletions struct {
	Version int       `json:"version"`
	Source  string    `json:"source"`
	Place   string    `json:"place"` // primary or replica
	Time    time.Time `json:"time"`
	Owner   string    `json:"owner,omitempty"` // id of the request
	Keys    []string  `json:"keys"`
}

// KeepJournal is how long the journal is kept.
const KeepJournal = 400 * 24 * time.Hour

// journalTime sorts as time does.
const journalTime = "20060102T150405.000000000Z"

// JournalPrefix begins the keys of a source's journal.
func JournalPrefix(s snapshot.Source) string {
	return LifecycleJournalPrefix + s.Host + "/" + s.Name + "/"
}

// JournalKey is the key of one part of the journal.
func JournalKey(s snapshot.Source, at time.Time, n int) string {
	return fmt.Sprintf("%s%s-%04d.json", JournalPrefix(s), at.UTC().Format(journalTime), n)
}

// JournalTime is when the part of the journal with this key was written.
func JournalTime(s snapshot.Source, key string) (time.Time, bool) {
	prefix := JournalPrefix(s)
	if len(key) < len(prefix)+len(journalTime) || key[:len(prefix)] != prefix {
		return time.Time{}, false
	}
	at, err := time.Parse(journalTime, key[len(prefix):len(prefix)+len(journalTime)])
	return at, err == nil
}
