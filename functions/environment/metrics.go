package environment

import "slices"

// Namespace is the CloudWatch namespace of all metrics.
const Namespace = "Holdfast"

// The names of the dimensions.
const (
	DimensionTier     = "tier"     // critical, high, standard, low
	DimensionKind     = "kind"     // files, sqlite, postgres, docker
	DimensionFunction = "function" // the verb of a function that has a queue
	DimensionSource   = "source"   // host/source; only where the policy says metrics: true
)

// MostOwnMetrics is how many sources may have metrics of their own; a metric costs by the month.
const MostOwnMetrics = 50

// The units of metrics, as CloudWatch names them.
const (
	UnitCount   = "Count"
	UnitBytes   = "Bytes"
	UnitSeconds = "Seconds"
	UnitPercent = "Percent"
)

// Metric is one name that the functions emit, with every set of dimensions under which they do.
type Metric struct {
	Name       string
	Unit       string
	Dimensions []string // nil: without dimensions. One set per name, so that a sum over a name means something
	Function   string   // the verb of the function that emits it; empty: each one that has a queue
	Always     bool     // emitted at every pass: that it is missing is a failure
	Help       string   // for a dashboard
}

// The names. An alarm or widget may use no others.
const (
	MetricMonitorPass      = "MonitorPass"
	MetricSourcesInBreach  = "SourcesInBreach"
	MetricSources          = "Sources"
	MetricWorstAgeToRPO    = "WorstAgeToRPO"
	MetricNeverBackedUp    = "NeverBackedUp"
	MetricUnverified       = "Unverified"
	MetricDamaged          = "Damaged"
	MetricFailing          = "Failing"
	MetricBytesTotal       = "BytesTotal"
	MetricSourcesOfKind    = "SourcesOfKind"
	MetricHostsSilent      = "HostsSilent"
	MetricJobsLost         = "JobsLost"
	MetricWithoutReceipt   = "WithoutReceipt"
	MetricCopiesLate       = "CopiesLate"
	MetricAlertsOpen       = "AlertsOpen"
	MetricOldestLook       = "OldestLook"
	MetricUnconfirmed      = "UnconfirmedSubscriptions"
	MetricRequests         = "RepositoryRequests"
	MetricSourceAgeToRPO   = "AgeToRPO"
	MetricSourceBreach     = "InBreach"
	MetricSourceBytes      = "StoredBytes"
	MetricWatchdogPass     = "WatchdogPass"
	MetricPrimaryHeartbeat = "PrimaryHeartbeatAge"
	MetricReplicaLag       = "ReplicaLag"
	MetricRereadBehind     = "RereadBehind"
	MetricRereadDays       = "RereadDays"
	MetricRereadBytes      = "RereadBytes"
	MetricFailedMessages   = "FailedMessages"
)

// The verbs of the functions that emit metrics.
const (
	FunctionMonitor    = "monitor"
	FunctionWatchdog   = "watchdog"
	FunctionVerify     = "verify"
	FunctionCoordinate = "coordinate"
	FunctionLifecycle  = "lifecycle"
)

// Metrics lists every metric that the functions emit. Infrastructure takes names for alarms and widgets from here, and a
// test of the functions proves that they emit nothing else.
func Metrics() []Metric {
	tier, kind, source, function := []string{DimensionTier}, []string{DimensionKind}, []string{DimensionSource}, []string{DimensionFunction}
	return []Metric{
		{MetricMonitorPass, UnitCount, nil, FunctionMonitor, true, "1 at the end of every pass of monitor"},
		{MetricSources, UnitCount, tier, FunctionMonitor, true, "sources of the policy"},
		{MetricSourcesInBreach, UnitCount, tier, FunctionMonitor, true, "sources with an objective that is not met"},
		{MetricWorstAgeToRPO, UnitPercent, tier, FunctionMonitor, true, "age of the newest usable state, as a share of the RPO, of the worst source"},
		{MetricNeverBackedUp, UnitCount, tier, FunctionMonitor, true, "sources without a snapshot"},
		{MetricUnverified, UnitCount, tier, FunctionMonitor, true, "sources that were not verified in time"},
		{MetricDamaged, UnitCount, tier, FunctionMonitor, true, "sources with snapshots that failed a verification, or that are gone"},
		{MetricFailing, UnitCount, tier, FunctionMonitor, true, "sources whose last run failed"},
		{MetricBytesTotal, UnitBytes, kind, FunctionMonitor, true, "bytes stored, all versions that the listing shows"},
		{MetricSourcesOfKind, UnitCount, kind, FunctionMonitor, true, "sources of the policy"},
		{MetricHostsSilent, UnitCount, nil, FunctionMonitor, true, "hosts whose agent was not heard in time"},
		{MetricJobsLost, UnitCount, nil, FunctionMonitor, true, "jobs that no agent answered"},
		{MetricWithoutReceipt, UnitCount, nil, FunctionMonitor, true, "sources whose newest snapshot nobody checked on arrival"},
		{MetricCopiesLate, UnitCount, nil, FunctionMonitor, true, "copies that lag or can't be looked at"},
		{MetricAlertsOpen, UnitCount, nil, FunctionMonitor, true, "alerts that are open, acknowledged ones included"},
		{MetricOldestLook, UnitSeconds, nil, FunctionMonitor, true, "time since the source that was looked at longest ago"},
		{MetricUnconfirmed, UnitCount, nil, FunctionMonitor, true, "subscriptions to the topic of alerts that nobody confirmed; 1 if there is none at all"},
		{MetricRequests, UnitCount, nil, FunctionMonitor, true, "requests to the repository in one pass"},
		{MetricSourceAgeToRPO, UnitPercent, source, FunctionMonitor, true, "age of the newest usable state, as a share of the RPO"},
		{MetricSourceBreach, UnitCount, source, FunctionMonitor, true, "1 if an objective is not met"},
		{MetricSourceBytes, UnitBytes, source, FunctionMonitor, true, "bytes stored"},
		{MetricWatchdogPass, UnitCount, nil, FunctionWatchdog, true, "1 at the end of every pass of the watchdog, in the region of the replica"},
		{MetricPrimaryHeartbeat, UnitSeconds, nil, FunctionWatchdog, true, "time since the primary's monitor was last at work"},
		{MetricReplicaLag, UnitSeconds, nil, FunctionWatchdog, true, "for how long the oldest manifest that is not in the replica has waited"},
		{MetricRereadBehind, UnitCount, nil, FunctionVerify, true, "sources whose bytes are not all read again within the period"},
		{MetricRereadDays, UnitCount, nil, FunctionVerify, true, "days that reading all bytes takes within the limit of bytes"},
		{MetricRereadBytes, UnitBytes, nil, FunctionVerify, true, "bytes read again in one run"},
		{MetricFailedMessages, UnitCount, function, "", false, "messages of a function's queue that failed; the queue brings them again"},
	}
}

// DimensionValues returns the values that a dimension can have, so that the number of metrics is known before a bill
// comes; nil for [DimensionSource], of which there are at most [MostOwnMetrics].
func DimensionValues(dimension string) []string {
	switch dimension {
	case DimensionTier:
		return []string{"critical", "high", "standard", "low"}
	case DimensionKind:
		return []string{"files", "sqlite", "postgres", "docker"}
	case DimensionFunction:
		return []string{FunctionCoordinate, FunctionVerify, FunctionLifecycle}
	}
	return nil
}

// Series counts the metrics, in CloudWatch's sense of a name with one set of values, for a number of sources with
// metrics of their own.
func Series(own int) int {
	total := 0
	for _, m := range Metrics() {
		switch {
		case m.Dimensions == nil:
			total++
		case slices.Contains(m.Dimensions, DimensionSource):
			total += min(own, MostOwnMetrics)
		default:
			n := 1
			for _, d := range m.Dimensions {
				n *= len(DimensionValues(d))
			}
			total += n
		}
	}
	return total
}
