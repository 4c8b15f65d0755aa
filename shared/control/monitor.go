package control

import (
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Keys of what the function monitor writes, besides [AlertsKey] and what is below [SourcesPrefix].
const (
	MonitorKey  = "monitor.json"      // [Monitor]
	RowsKey     = "monitor/rows.json" // [Rows]
	WatchdogKey = "watchdog.json"     // the alerts of the watchdog, in the state bucket of its own region
)

// Monitor is the heartbeat of the function monitor and what it remembers from one pass to the next. The watchdog in the
// other region reads it.
type Monitor struct {
	Version   int       `json:"version"`
	Busy      Lease     `json:"busy,omitzero"`    // a pass is at work
	Begun     time.Time `json:"begun,omitzero"`   // of the newest pass
	Time      time.Time `json:"time,omitzero"`    // when the newest pass came to its end
	Next      int       `json:"next"`             // the shard with which the next pass begins
	Newest    []Arrived `json:"newest,omitempty"` // newest manifests, newest first
	Orphans   []string  `json:"orphans,omitempty"`
	Listed    time.Time `json:"listed,omitzero"`     // when orphans were looked for
	KeyProven time.Time `json:"key_proven,omitzero"` // when somebody said that the offline identity was proven
	KeyBy     string    `json:"key_by,omitempty"`

	Subscriptions *Subscriptions `json:"subscriptions,omitempty"` // nil: never looked at
}

// Subscriptions is who gets the alerts.
type Subscriptions struct {
	Checked   time.Time `json:"checked"`
	Since     time.Time `json:"since,omitzero"` // since when something is wrong with them
	Confirmed int       `json:"confirmed"`
	Pending   []string  `json:"pending,omitempty"` // protocols of those that nobody confirmed: addresses are private
}

// Arrived is a manifest and when the store received it.
type Arrived struct {
	Host     string    `json:"host"`
	Source   string    `json:"source"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
}

// ID names the snapshot.
func (a Arrived) ID() snapshot.ID {
	return snapshot.ID{Source: snapshot.Source{Host: a.Host, Name: a.Source}, Sequence: a.Sequence}
}

// Rows is the table of hosts that a dashboard shows.
type Rows struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Hosts   []Row     `json:"hosts"` // worst first
}

// Row is one host.
type Row struct {
	Host    string    `json:"host"`
	Tier    string    `json:"tier"`
	Sources int       `json:"sources"`
	Breach  int       `json:"breach"`          // sources that do not meet an objective
	Worst   string    `json:"worst,omitempty"` // the code of the worst state
	Cause   string    `json:"cause,omitempty"`
	Age     float64   `json:"age"` // of the newest state of the worst source, as a share of its RPO
	Newest  time.Time `json:"newest,omitzero"`
	Stored  int64     `json:"stored"`
	Days    []int64   `json:"days,omitempty"` // bytes stored, oldest first
}
