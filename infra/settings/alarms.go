package settings

import (
	"fmt"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/functions/environment"
)

// What an alarm makes of minutes without data.
const (
	MissingBreaches = "breaching"    // that nothing comes is the failure
	MissingIsFine   = "notBreaching" // nothing comes where nothing failed
)

// Alarm is one alarm. All compare the greatest value, or the sum, of a period with a threshold.
type Alarm struct {
	Name        string // without the prefix holdfast-
	Description string
	Namespace   string
	Metric      string
	Dimensions  [][2]string
	Statistic   string // Maximum or Sum
	Operator    string
	Threshold   float64
	Period      float64 // seconds
	Periods     float64
	Missing     string
	Anchor      string // in docs/runbook.md
	Machinery   bool   // the control plane itself fails: it can't be trusted to say so, and the alarm itself sends the message
}

const (
	above = "GreaterThanThreshold"
	under = "LessThanThreshold"
)

// Alarms lists the alarms of a region. Those of objectives have no message of their own, because monitor writes a better
// one, with cause and next step; they are there for the dashboard, for the composite alarm and for whoever pages people
// by alarms. Those of the machinery notify by themselves.
func (s *Settings) Alarms() []Alarm {
	out := s.machinery()
	if s.Second {
		return append(append(out, watchdogAlarms()...), rereadAlarm("of the replica "))
	}
	for _, tier := range environment.DimensionValues(environment.DimensionTier) {
		out = append(out, objective("breach-"+tier, "breaches", "sources of tier "+tier+" do not meet an objective", environment.MetricSourcesInBreach,
			[2]string{environment.DimensionTier, tier}))
		out = append(out, objective("damaged-"+tier, "damaged", "sources of tier "+tier+" have snapshots that are damaged or gone", environment.MetricDamaged,
			[2]string{environment.DimensionTier, tier}))
	}
	out = append(out,
		objective("hosts-silent", "host_silent", "agents were not heard in time", environment.MetricHostsSilent),
		objective("jobs-lost", "job_lost", "jobs that no agent answered", environment.MetricJobsLost),
		objective("without-receipt", "no_receipt", "new snapshots that nobody checked", environment.MetricWithoutReceipt),
		objective("copies-late", "copy_late", "copies lag", environment.MetricCopiesLate),
		rereadAlarm(""),
	)
	unconfirmed := objective("unconfirmed", "unconfirmed", "nobody confirmed a subscription to the topic of alerts: nobody hears them", environment.MetricUnconfirmed)
	unconfirmed.Machinery = true
	out = append(out, unconfirmed)
	for _, source := range s.Own() {
		out = append(out, objective("source-"+source, "breaches", source+" does not meet an objective", environment.MetricSourceBreach,
			[2]string{environment.DimensionSource, source}))
	}
	return out
}

// Own returns the sources with metrics and alarms of their own, by name; at most as many as the functions emit.
func (s *Settings) Own() []string {
	var out []string
	for _, src := range ownSources(s.Policy) {
		if len(out) < environment.MostOwnMetrics {
			out = append(out, src)
		}
	}
	return out
}

func objective(name, anchor, description, metric string, dimensions ...[2]string) Alarm {
	return Alarm{
		Name: name, Anchor: anchor, Description: description, Namespace: environment.Namespace, Metric: metric, Dimensions: dimensions,
		Statistic: "Maximum", Operator: above, Threshold: 0, Period: 300, Periods: 1, Missing: MissingIsFine,
	}
}

// rereadAlarm tells that bytes are not all read again in their time. The function says so hourly.
func rereadAlarm(of string) Alarm {
	a := objective("reread-behind", "unverified", "not all bytes "+of+"are read again within the period", environment.MetricRereadBehind)
	a.Period = 2 * hour
	return a
}

// mostFailures is how many failures in its window a function may have that nobody is told of. What its schedule begins is
// tried twice: one beat that fails is no alarm, two are.
const mostFailures = 2

// machinery watches the functions of the region: that they are invoked, that they do not fail, and that their messages don't.
func (s *Settings) machinery() []Alarm {
	var out []Alarm
	dead := []string{}
	for _, f := range Functions(s.Second) {
		name := [2]string{"FunctionName", FunctionName(f.Verb)}
		if f.Quiet > 0 {
			out = append(out, Alarm{
				Name: f.Verb + "-silent", Anchor: "function_silent", Description: f.Verb + " is not invoked any more", Namespace: "AWS/Lambda", Metric: "Invocations",
				Dimensions: [][2]string{name}, Statistic: "Sum", Operator: under, Threshold: 1, Period: f.Quiet, Periods: 1,
				Missing: MissingBreaches, Machinery: true,
			})
		}
		out = append(out, Alarm{
			Name: f.Verb + "-crashes", Anchor: "function_failing", Description: f.Verb + " ends with errors or runs out of time", Namespace: "AWS/Lambda", Metric: "Errors",
			Dimensions: [][2]string{name}, Statistic: "Sum", Operator: above, Threshold: mostFailures, Period: f.failing(), Periods: 1,
			Missing: MissingIsFine, Machinery: true,
		})
		if f.Queue {
			// Lambda counts no error where single messages of a batch fail.
			out = append(out, Alarm{
				Name: f.Verb + "-failed-messages", Anchor: "function_failing", Description: "messages of the queue of " + f.Verb + " fail", Namespace: environment.Namespace,
				Metric: environment.MetricFailedMessages, Dimensions: [][2]string{{environment.DimensionFunction, f.Verb}},
				Statistic: "Sum", Operator: above, Threshold: mostFailures, Period: f.failing(), Periods: 1, Missing: MissingIsFine, Machinery: true,
			})
		}
		dead = append(dead, QueuePrefix+f.Verb+"-dlq")
	}
	if !s.Second {
		dead = append(dead, QueuePrefix+"rules-dlq", events.DeadLetterName)
		out = append(out, Alarm{
			Name: "monitor-pass", Anchor: "function_silent", Description: "monitor does not finish: objectives are not judged any more", Namespace: environment.Namespace,
			Metric: environment.MetricMonitorPass, Statistic: "Sum", Operator: under, Threshold: 1, Period: 300, Periods: 3,
			Missing: MissingBreaches, Machinery: true,
		})
	}
	for _, q := range dead {
		out = append(out, Alarm{
			Name: "dead-letters-" + q, Anchor: "dead_letters", Description: "messages failed for good in " + q, Namespace: "AWS/SQS", Metric: "ApproximateNumberOfMessagesVisible",
			Dimensions: [][2]string{{"QueueName", q}}, Statistic: "Maximum", Operator: above, Threshold: 0, Period: 300, Periods: 1,
			Missing: MissingIsFine, Machinery: true,
		})
	}
	return append(out, Alarm{
		Name: "key-state", Anchor: "key_state", Description: "somebody disables the key or schedules its end", Namespace: "AWS/Events", Metric: "TriggeredRules",
		Dimensions: [][2]string{{"RuleName", KeyRule}}, Statistic: "Sum", Operator: above, Threshold: 0, Period: 300, Periods: 1,
		Missing: MissingIsFine, Machinery: true,
	})
}

func watchdogAlarms() []Alarm {
	dead := Alarm{
		Name: "watchdog-pass", Anchor: "function_silent", Description: "the watchdog does not finish", Namespace: environment.Namespace, Metric: environment.MetricWatchdogPass,
		Statistic: "Sum", Operator: under, Threshold: 1, Period: 300, Periods: 3, Missing: MissingBreaches, Machinery: true,
	}
	heartbeat := Alarm{
		Name: "primary-silent", Anchor: "primary_silent", Description: "the first region's monitor does not work any more", Namespace: environment.Namespace,
		Metric: environment.MetricPrimaryHeartbeat, Statistic: "Maximum", Operator: above, Threshold: 1200, Period: 300, Periods: 2,
		Missing: MissingBreaches, Machinery: true,
	}
	lag := Alarm{
		Name: "replica-lag", Anchor: "replica_late", Description: "what arrived in the first region has not come over for a day", Namespace: environment.Namespace,
		Metric: environment.MetricReplicaLag, Statistic: "Maximum", Operator: above, Threshold: 24 * 3600, Period: 300, Periods: 3,
		Missing: MissingBreaches, Machinery: true,
	}
	return []Alarm{dead, heartbeat, lag}
}

// KeyRule is the name of the rule that sees the key disabled.
const KeyRule = "holdfast-key-state"

// AlarmName is the whole name of an alarm.
func AlarmName(a Alarm) string { return fmt.Sprintf("holdfast-%s", a.Name) }
