package environment

import "time"

// Monitor is the environment of the function monitor.
type Monitor struct {
	Cloud
	Topic         string        `env:"HOLDFAST_ALERT_TOPIC"`             // ARN of the SNS topic that people subscribe to
	Bus           string        `env:"HOLDFAST_BUS,optional"`            // event bus for opened and closed alerts; empty: none are put
	Ping          string        `env:"HOLDFAST_PING_PARAMETER,optional"` // SSM parameter: URL that is fetched after each pass
	Runbook       string        `env:"HOLDFAST_RUNBOOK,optional"`        // where docs/runbook.md can be read
	DigestHour    int           `env:"HOLDFAST_DIGEST_HOUR,optional"`    // UTC
	SilentAfter   time.Duration `env:"HOLDFAST_SILENT_AFTER,optional"`   // an agent that was not heard for longer is silent; 0: 45m, at least 40m
	SettleAfter   time.Duration `env:"HOLDFAST_SETTLE_AFTER,optional"`   // what is over must stay so for this long before it is told; 0: 10m
	ReceiptWithin time.Duration `env:"HOLDFAST_RECEIPT_WITHIN,optional"` // what arrives is checked within this time; 0: 2h
	Parallel      int           `env:"HOLDFAST_PARALLEL,optional"`       // requests to the repository at the same time; 0: 32
}

// Watchdog is the environment of the function monitor in the region of the replica, where it watches the monitor of the
// primary region. Cloud.State is a state bucket of its own region, Cloud.Repository the address of the replica.
type Watchdog struct {
	Cloud
	Mode          string        `env:"HOLDFAST_MONITOR_MODE"`            // ModeWatchdog
	Topic         string        `env:"HOLDFAST_ALERT_TOPIC"`             // ARN of a topic in its own region
	Primary       string        `env:"HOLDFAST_PRIMARY_STATE_BUCKET"`    // state bucket of the primary region
	PrimaryRegion string        `env:"HOLDFAST_PRIMARY_REGION"`          // where it is
	Runbook       string        `env:"HOLDFAST_RUNBOOK,optional"`        // as of the monitor
	SilentAfter   time.Duration `env:"HOLDFAST_SILENT_AFTER,optional"`   // the primary's monitor is silent after; 0: 30m
	ReplicaWithin time.Duration `env:"HOLDFAST_REPLICA_WITHIN,optional"` // what arrives is replicated within this time; 0: 1h
}

// ModeWatchdog is the mode of a [Watchdog]. The function reads its mode before anything else; empty is the monitor.
const ModeWatchdog = "watchdog"

// ModeVariable names the mode.
const ModeVariable = "HOLDFAST_MONITOR_MODE"
