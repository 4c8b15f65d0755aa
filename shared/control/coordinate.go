package control

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// CoordinatePrefix begins the keys of what coordinate keeps for itself.
const CoordinatePrefix = "coordinate/"

// SlotsKey is the key of [Slots].
const SlotsKey = CoordinatePrefix + "slots.json"

// ShardKey is the key of the [Shard] with the number shard of shards.
func ShardKey(shard, shards int) string {
	return fmt.Sprintf("%sshard-%d-of-%d.json", CoordinatePrefix, shard, shards)
}

// Shard says when each host of a part of the hosts is to be looked at next, so that the documents of all need not be
// read each minute. It is a hint: lost or out of date, hosts are looked at earlier than need be, and each at the latest
// after LookEvery.
type Shard struct {
	Version int                  `json:"version"`
	Policy  string               `json:"policy"` // tag of the policy that the times are from: another, and all are void
	Hosts   map[string]time.Time `json:"hosts"`
}

// LookEvery is how often a host is looked at whatever is expected of it.
const LookEvery = time.Hour

// ShardOf tells to which of the shards a host belongs.
func ShardOf(host string, shards int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(host))
	return int(h.Sum32() % uint32(max(shards, 1))) //nolint:gosec // a count of shards
}

// Pending returns those of the hosts that are to be looked at now, those that wait longest first.
func (s *Shard) Pending(hosts []string, policy string, now time.Time) []string {
	if s.Policy != policy {
		s.Hosts = nil
	}
	var out []string
	for _, host := range hosts {
		at, ok := s.Hosts[host]
		if !ok || !at.After(now) || at.Sub(now) > LookEvery {
			out = append(out, host)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return s.Hosts[a].Compare(s.Hosts[b]) })
	return out
}

// Looked notes when a host is to be looked at again; the zero time: when nothing calls for it.
func (s *Shard) Looked(host string, next, now time.Time) {
	if s.Hosts == nil {
		s.Hosts = map[string]time.Time{}
	}
	latest := now.Add(LookEvery)
	if next.IsZero() || next.After(latest) {
		next = latest
	}
	s.Hosts[host] = next.UTC().Truncate(time.Second)
}

// Keep forgets all hosts but these.
func (s *Shard) Keep(hosts []string) {
	known := map[string]bool{}
	for _, host := range hosts {
		known[host] = true
	}
	maps.DeleteFunc(s.Hosts, func(host string, _ time.Time) bool { return !known[host] })
}

// Slots holds the runs that count against the policy's limit of backups at once.
type Slots struct {
	Version int             `json:"version"`
	Held    map[string]Slot `json:"held,omitempty"` // by id of the run's first attempt
}

// Slot is one run that counts.
type Slot struct {
	Host   string    `json:"host"`
	Source string    `json:"source"`
	Since  time.Time `json:"since"`
}

// Take takes a slot for the run if there is one below the limit. A run that has one keeps it.
func (s *Slots) Take(first string, slot Slot, limit int) bool {
	if _, ok := s.Held[first]; ok {
		return true
	}
	if len(s.Held) >= limit {
		return false
	}
	if s.Held == nil {
		s.Held = map[string]Slot{}
	}
	s.Held[first] = slot
	return true
}

// Put takes a slot for a run whatever the limit is.
func (s *Slots) Put(first string, slot Slot) { s.Take(first, slot, len(s.Held)+1) }

// Release frees the slots of runs that have ended; false: none of them held one.
func (s *Slots) Release(firsts ...string) bool {
	before := len(s.Held)
	for _, first := range firsts {
		delete(s.Held, first)
	}
	return len(s.Held) != before
}

// Doubtful returns the runs whose slots are old enough to ask whether they have ended without anybody freeing them,
// as after a crash.
func (s *Slots) Doubtful(now time.Time) []string {
	var out []string
	for first, slot := range s.Held {
		if elapsed(slot.Since, now) >= followEvery {
			out = append(out, first)
		}
	}
	slices.Sort(out)
	return out
}

// Runs reports whether the run with this first id is open on the host, and may be at work: one whose attempt has failed is
// not until it is asked for again, nor is one that nobody takes.
func (h *HostJobs) Runs(first string) bool {
	for _, sj := range h.Sources {
		if j := sj.Open; j != nil && j.First == first {
			return j.Retry.IsZero() && (!j.Accepted.IsZero() || j.Sends <= untaken)
		}
	}
	return false
}

// untaken is how many messages nobody has answered when it is said that an agent has not taken the job.
const untaken = 2
