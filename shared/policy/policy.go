// Package policy has the policy file: what is backed up on which host, when, how long it is kept and which objectives
// it must meet.
//
// [Parse] reads a file strictly: a key that is not known, a key that is given twice and a value of the wrong form are
// errors with line, column and, where one is near, the name that was probably meant; all errors of a file are reported
// at once, by line. Parse fills in the defaults, [Policy.Marshal] writes them out, and what Marshal writes parses to
// the same policy. [Schema] is the same grammar as a JSON Schema, for editors.
//
// The package does no I/O and expands no environment variables. A policy holds no secrets: there is no key for one, and
// addresses with user information are refused.
//
// The keys are described in docs/policy.md. Keys may be added; no key changes its meaning within version 1.
package policy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	// The zones of cron specifications must be known on hosts without a time zone database.
	_ "time/tzdata"
)

// Version is the version of the policy file that this package reads.
const Version = 1

//go:embed schema.json
var schema string

// Schema returns the JSON Schema (draft 2020-12) of the policy file.
func Schema() []byte { return []byte(schema) }

// Policy is a whole policy file, defaults filled in.
type Policy struct {
	Version    int              `json:"version"`
	Repository Repository       `json:"repository,omitzero"`
	Approvers  []Approver       `json:"approvers,omitempty"` // who may ask for and approve restores over the queue
	Limits     Limits           `json:"limits,omitzero"`
	Hosts      map[string]*Host `json:"hosts"`
}

// Repository says where the snapshots go.
type Repository struct {
	Primary    string   `json:"primary,omitempty"`    // address of the repository
	Copies     []string `json:"copies,omitempty"`     // addresses of its copies
	Recipients []string `json:"recipients,omitempty"` // age recipients and KMS keys
}

// Host is one machine.
type Host struct {
	MaxSize Size               `json:"max_size,omitzero"` // stored bytes; 0: no objective
	Restore Restore            `json:"restore,omitzero"`  // what restores over the queue may do
	Sources map[string]*Source `json:"sources"`

	Globs    map[string]*Source `json:"-"` // sources that stand for any number of databases
	Expanded bool               `json:"-"` // [Policy.Expand] has made sources of those that there are
}

// The kinds of sources.
const (
	KindFiles    = "files"
	KindSQLite   = "sqlite"
	KindPostgres = "postgres"
	KindDocker   = "docker"
)

// Source is one thing that is backed up. Exactly one of Files, SQLite, Postgres and Docker is set.
type Source struct {
	Files    *Files    `json:"files,omitempty"`
	SQLite   *SQLite   `json:"sqlite,omitempty"`
	Postgres *Postgres `json:"postgres,omitempty"`
	Docker   *Docker   `json:"docker,omitempty"`

	Schedule     Schedule     `json:"schedule,omitzero"`
	Objectives   Objectives   `json:"objectives"`
	Retention    Retention    `json:"retention,omitzero"`
	Verification Verification `json:"verification,omitzero"`
	Checks       []Check      `json:"checks,omitempty"`
	Hooks        Hooks        `json:"hooks,omitzero"`
	Metrics      bool         `json:"metrics"` // metrics and alarms of its own; default: tier critical
}

// Kind tells what the source is: one of the Kind constants.
func (s *Source) Kind() string {
	switch {
	case s.Files != nil:
		return KindFiles
	case s.SQLite != nil:
		return KindSQLite
	case s.Postgres != nil:
		return KindPostgres
	case s.Docker != nil:
		return KindDocker
	}
	return ""
}

// Files is a source of kind files: directory trees.
type Files struct {
	Roots         []string `json:"roots"`                  // absolute, cleaned paths
	Include       []string `json:"include,omitempty"`      // patterns; what fits is taken back from Exclude
	Exclude       []string `json:"exclude,omitempty"`      // patterns of what is left out
	OneFileSystem bool     `json:"one_file_system"`        // do not enter other file systems
	ExcludeCaches bool     `json:"exclude_caches"`         // leave out directories with a CACHEDIR.TAG
	MaxFileSize   Size     `json:"max_file_size,omitzero"` // larger files are left out; 0: none are
	Watch         bool     `json:"watch"`                  // a change makes a snapshot within seconds
}

// Docker is a source of kind docker. At least one list has an element.
type Docker struct {
	Images     []string `json:"images,omitempty"`
	Volumes    []string `json:"volumes,omitempty"`
	Containers []string `json:"containers,omitempty"`
}

// Schedule says when snapshots are taken. A zero member is not scheduled.
type Schedule struct {
	Full         Cron     `json:"full,omitzero"`
	Differential Cron     `json:"differential,omitzero"`
	Incremental  Cron     `json:"incremental,omitzero"`
	Continuous   Duration `json:"continuous,omitzero"` // interval at which the log is flushed

	Jitter   *Duration `json:"jitter,omitempty"`   // most by which a source's own delay puts off its start; nil: package schedule chooses
	Blackout []Window  `json:"blackout,omitempty"` // windows in which no backup begins
}

// Verification says how often the agent of the source's host verifies it at the levels that need a key. A zero member is
// not asked for.
type Verification struct {
	Content Duration `json:"content,omitzero"` // every chunk of every snapshot is opened
	Restore Duration `json:"restore,omitzero"` // the newest snapshot is restored beside, and removed again
}

// Limits bounds what the control plane asks of all hosts together, and what it reads itself.
type Limits struct {
	Concurrent int       `json:"concurrent,omitempty"` // backups that run at once; 0: any number
	Reread     Rereading `json:"reread,omitzero"`
}

// Rereading bounds how the control plane reads all stored bytes again and again (level bytes), in the primary and in the
// replica.
type Rereading struct {
	Period        Duration `json:"period,omitzero"`         // in which all is read once; 0: DefaultReread
	Bytes         Size     `json:"bytes,omitzero"`          // most that is read in 30 days; 0: no limit
	ReplicaPeriod Duration `json:"replica_period,omitzero"` // 0: DefaultReplicaReread
	ReplicaBytes  Size     `json:"replica_bytes,omitzero"`
}

// The periods in which all bytes are read again where the policy names none. The class in which replicas are kept charges
// for each byte that is read.
const (
	DefaultReread        = Duration(30 * 24 * time.Hour)
	DefaultReplicaReread = Duration(90 * 24 * time.Hour)
)

// Tier groups sources by how much their loss hurts. It orders messages and work; it changes no data.
type Tier string

// The tiers, highest first.
const (
	Critical Tier = "critical"
	High     Tier = "high"
	Standard Tier = "standard"
	Low      Tier = "low"
)

// Defaults of objectives.
const (
	DefaultTier     = Standard
	DefaultRPO      = Duration(24 * time.Hour)
	DefaultCopies   = 1
	DefaultKeyCheck = Duration(180 * 24 * time.Hour)
	DefaultVerify   = Duration(7 * 24 * time.Hour)
	// DefaultHookTimeout limits a hook that names no timeout.
	DefaultHookTimeout = Duration(5 * time.Minute)
)

// Objectives are what the source must meet; the package compliance judges it.
type Objectives struct {
	Tier     Tier     `json:"tier"`
	RPO      Duration `json:"rpo"`               // most that may be lost
	RTO      Duration `json:"rto,omitzero"`      // longest restore; 0: no objective
	MaxSize  Size     `json:"max_size,omitzero"` // stored bytes; 0: no objective
	Copies   int      `json:"copies"`            // places with the snapshots, the primary counted
	KeyCheck Duration `json:"key_check"`         // age of the last proof of the offline identity
	Verify   Duration `json:"verify"`            // greatest age of the newest verified snapshot
}

// Retention says which snapshots are kept; the package retention decides. All zero keeps everything.
type Retention struct {
	KeepLast   int      `json:"keep_last,omitempty"`
	KeepWithin Duration `json:"keep_within,omitzero"`
	Hourly     int      `json:"hourly,omitempty"`
	Daily      int      `json:"daily,omitempty"`
	Weekly     int      `json:"weekly,omitempty"`
	Monthly    int      `json:"monthly,omitempty"`
	Yearly     int      `json:"yearly,omitempty"`
	KeepTags   []string `json:"keep_tags,omitempty"`
	TimeZone   string   `json:"time_zone,omitempty"` // where hours and days begin; empty: UTC
}

// Empty reports whether no rule is set, which keeps everything.
func (r Retention) Empty() bool {
	return r.KeepLast == 0 && r.KeepWithin == 0 && r.Hourly == 0 && r.Daily == 0 && r.Weekly == 0 &&
		r.Monthly == 0 && r.Yearly == 0 && len(r.KeepTags) == 0
}

// Equal reports whether two retentions have the same rules.
func (r Retention) Equal(o Retention) bool {
	a, b := r, o
	a.KeepTags, b.KeepTags = nil, nil
	return a.same(b) && slices.Equal(r.KeepTags, o.KeepTags)
}

func (r Retention) same(o Retention) bool {
	return r.KeepLast == o.KeepLast && r.KeepWithin == o.KeepWithin && r.Hourly == o.Hourly && r.Daily == o.Daily &&
		r.Weekly == o.Weekly && r.Monthly == o.Monthly && r.Yearly == o.Yearly && r.TimeZone == o.TimeZone
}

// Check is a query that a restored source must answer as expected.
type Check struct {
	Query    string `json:"query"`
	Expect   string `json:"expect"`             // an operator (=, !=, <, <=, >, >=) and a value, or a value
	Database string `json:"database,omitempty"` // only postgres: that is asked; empty: that of the service, or the only one
}

// Hooks are commands around a backup, and around a restore in place. The after hooks always run, and so do the start hooks
// once those that stop were begun.
type Hooks struct {
	Before []Hook `json:"before,omitempty"`
	After  []Hook `json:"after,omitempty"`
	Stop   []Hook `json:"stop,omitempty"`   // before a restore in place: ends what has the database open
	Start  []Hook `json:"start,omitempty"`  // after it: begins that again
	Health []Hook `json:"health,omitempty"` // tells whether it is well; repeated until it is, or its time is over
}

// each gives all lists of hooks with their keys.
func (h *Hooks) each(fn func(key string, hooks []Hook)) {
	fn("before", h.Before)
	fn("after", h.After)
	fn("stop", h.Stop)
	fn("start", h.Start)
	fn("health", h.Health)
}

// Hook is one command; no shell interprets it unless it names one.
type Hook struct {
	Command []string `json:"command"`
	Timeout Duration `json:"timeout"`
}

// Lookup returns a source of the policy; of a database that only a pattern names, one without a path. The error names the nearest host or source that exists.
func (p *Policy) Lookup(host, source string) (*Source, error) {
	h, ok := p.Hosts[host]
	if !ok || h == nil {
		return nil, &LookupError{Host: host, Nearest: nearest(host, sortedKeys(p.Hosts))}
	}
	s, ok := h.Sources[source]
	if !ok {
		s = h.derived(source)
	}
	if s == nil {
		return nil, &LookupError{Host: host, Source: source, Nearest: nearest(source, sortedKeys(h.Sources))}
	}
	return s, nil
}

// LookupError says that the policy has no such host or source.
type LookupError struct {
	Host    string
	Source  string // empty: the host is not in the policy
	Nearest string // a similar name in the policy, or empty
}

func (e *LookupError) Error() string {
	msg := fmt.Sprintf("look up host %q: not in the policy", e.Host)
	if e.Source != "" {
		msg = fmt.Sprintf("look up source %q of host %q: not in the policy", e.Source, e.Host)
	}
	return msg + didYouMean(e.Nearest)
}

// Each calls fn for every source, ordered by host and name.
func (p *Policy) Each(fn func(host, name string, s *Source)) {
	for _, host := range sortedKeys(p.Hosts) {
		for _, name := range sortedKeys(p.Hosts[host].Sources) {
			fn(host, name, p.Hosts[host].Sources[name])
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
