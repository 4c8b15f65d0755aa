package settings

import "fmt"

// The verbs of functions. Each has a directory functions/<verb>; watchdog is monitor in another region and mode.
const (
	Coordinate = "coordinate"
	Verify     = "verify"
	Lifecycle  = "lifecycle"
	Monitor    = "monitor"
	Restore    = "restore"
	Watchdog   = "watchdog"
)

// Function is one function as it is deployed. [Functions] is the only list of them: binaries, roles, queues, schedules
// and alarms are made from it.
type Function struct {
	Verb        string
	Program     string // directory below functions/, and of the binary
	Description string
	Memory      float64 // MB
	Timeout     float64 // seconds
	Every       float64 // seconds between two beats of its schedule; 0: it has none
	Input       string  // what the schedule sends
	Queue       bool    // it has a queue of its own that feeds it
	Batch       float64 // most messages in one invocation
	Concurrency float64 // most invocations at a time from its queue
	Quiet       float64 // seconds without an invocation that are a failure; 0: any
	Replica     bool    // deployed in the replica's region; the others in the first
}

// In seconds. The windows of quiet are a few beats of the schedule.
const (
	minute = 60
	hour   = 3600
)

// Schedule is the expression of EventBridge Scheduler; empty: it has none.
func (f *Function) Schedule() string {
	minutes := int(f.Every / minute)
	switch minutes {
	case 0:
		return ""
	case 1:
		return "rate(1 minute)"
	}
	return fmt.Sprintf("rate(%d minutes)", minutes)
}

// failing is the window in which failures are counted, in seconds: what fails at every beat must have failed often enough
// within it. A function that is called once in an hour never fails three times in a quarter of one.
func (f *Function) failing() float64 { return max(15*minute, 4*f.Every) }

// Functions lists what is deployed in a region.
func Functions(second bool) []Function {
	all := []Function{
		{
			Verb: Coordinate, Program: Coordinate, Description: "what is due goes to the hosts' queues", Memory: 512, Timeout: 5 * minute,
			Every: minute, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`,
			Queue: true, Batch: 10, Concurrency: 10, Quiet: 5 * minute,
		},
		{
			Verb: Verify, Program: Verify, Description: "checks each new snapshot, and all bytes in turn", Memory: 512, Timeout: 15 * minute,
			Every: hour, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`,
			Queue: true, Batch: 10, Concurrency: 10, Quiet: 3 * hour,
		},
		{
			Verb: Lifecycle, Program: Lifecycle, Description: "retention, removal in two phases, Object Lock", Memory: 1024, Timeout: 15 * minute,
			Every: hour, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`,
			Queue: true, Batch: 1, Concurrency: 10, Quiet: 3 * hour,
		},
		{
			Verb: Monitor, Program: Monitor, Description: "objectives, metrics, messages, the widget", Memory: 1024, Timeout: 5 * minute,
			Every: 5 * minute, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`, Quiet: 15 * minute,
		},
		{
			Verb: Restore, Program: Restore, Description: "plan, request, approve, status and cancel of a restore", Memory: 512, Timeout: 5 * minute,
			Every: 15 * minute, Input: `{"action":"follow"}`, Quiet: hour,
		},
		{
			Verb: Lifecycle, Program: Lifecycle, Description: "the same for the replica, and whether it is like the primary", Memory: 1024, Timeout: 15 * minute,
			Every: hour, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`,
			Queue: true, Batch: 1, Concurrency: 10, Quiet: 3 * hour, Replica: true,
		},
		{
			Verb: Watchdog, Program: Monitor, Description: "watches the first region's monitor and the replica", Memory: 512, Timeout: 5 * minute,
			Every: 5 * minute, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`, Quiet: 15 * minute, Replica: true,
		},
		{
			Verb: Verify, Program: Verify, Description: "reads all bytes of the replica in turn", Memory: 512, Timeout: 15 * minute,
			Every: hour, Input: `{"version":1,"time":"<aws.scheduler.scheduled-time>"}`,
			Queue: true, Batch: 10, Concurrency: 10, Quiet: 3 * hour, Replica: true,
		},
	}
	var out []Function
	for _, f := range all {
		if f.Replica == second {
			out = append(out, f)
		}
	}
	return out
}
