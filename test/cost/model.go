package cost

import (
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/compliance/cost"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Month is the length of a month in hours, as AWS counts it.
const Month = 730.0

// GB is how AWS counts bytes.
const GB = 1 << 30

// Typical is the policy of the host that the page counts with.
const Typical = `version: 1
repository:
  primary: s3://bucket?region=us-east-1
  copies: ["s3://replica?region=us-west-2"]
hosts:
  host:
    sources:
      app:
        files: {roots: [/srv/app]}
        schedule: {full: "0 2 1 * *", incremental: "0 * * * *"}
        objectives: {tier: high, rpo: 2h, copies: 2}
        retention: {keep_within: 7d, daily: 30, weekly: 12}
      config:
        files: {roots: [/etc]}
        schedule: {full: "0 3 1 * *", incremental: "30 */4 * * *"}
        objectives: {tier: critical, rpo: 8h, copies: 2}
        retention: {keep_within: 7d, daily: 30, weekly: 12}
`

// The sizes of the typical host, in bytes of files.
const (
	AppBytes    = 20 * GB
	ConfigBytes = GB / 5
)

// What the model assumes beside the policy. Each is a guess on the dear side until somebody has a bill.
const (
	heartbeats     = 12   // an hour
	polls          = 180  // an hour: one receive of 20 s after the other
	tickSeconds    = 0.3  // of an invocation that finds nothing to do
	hostSeconds    = 0.01 // of coordinate and monitor for each host and invocation
	reportSeconds  = 0.1  // of an invocation for agents' events
	eventsInBatch  = 4    // that such an invocation takes, once there are many hosts
	readPerSecond  = 60 << 20
	logPerCall     = 1500 // bytes
	packBytes      = 16 << 20
	passEvery      = 20                // hours between two passes of lifecycle over a source
	passes         = Month / passEvery // in a month
	passGets       = 5                 // for each snapshot: manifest, list, receipts; functions/lifecycle's TestTimeOfAPass counts them
	passLists      = 14
	passSeconds    = 3.0
	replicaSeconds = 7.0 // with the documents of the first region

	verifyMonths   = 1  // in which all bytes are read again, by default of limits.reread
	replicaMonths  = 3  // and those of the replica
	daysOfSnapshot = 30 // AWS Backup: daily recovery points
	dailyChange    = 0.02
	hostsPerServer = 500
)

// Line is one line of a bill.
type Line struct {
	What   string
	Dollar float64
}

// Bill is what a month costs.
type Bill struct {
	Hosts int
	Lines []Line
}

// Total adds the lines up.
func (b Bill) Total() float64 {
	total := 0.0
	for _, l := range b.Lines {
		total += l.Dollar
	}
	return total
}

// host is what one host does in a month.
type host struct {
	stored, uploaded  float64 // GB; GB
	puts, lists, gets float64
	runs              float64
	looks             float64 // of monitor, a LIST each
	sources, kept     float64 // kept: snapshots, after a year
}

func typical() (*host, error) {
	p, err := policy.Parse([]byte(Typical))
	if err != nil {
		return nil, err
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	projected, err := cost.Project(p, map[snapshot.Source]cost.Measure{
		{Host: "host", Name: "app"}: {Bytes: AppBytes}, {Host: "host", Name: "config"}: {Bytes: ConfigBytes},
	}, from)
	if err != nil {
		return nil, err
	}
	const days = Month / 24
	t := projected.Total
	h := &host{
		stored: float64(t.Stored) / GB, uploaded: float64(t.Uploaded) / GB * days,
		// The projection counts the puts of the copy too; those are S3's own and have their own price here.
		puts: t.Puts * days / 2, lists: t.Lists * days, gets: t.Gets * days, runs: t.Runs * days,
		kept: float64(t.Kept),
	}
	p.Each(func(_, _ string, s *policy.Source) {
		h.sources++
		h.looks += Month / (s.Objectives.RPO.Std().Hours() / 3)
		if s.Schedule.Continuous > 0 {
			h.looks += 2 * Month // its log and the replica's, once an hour
		}
	})
	return h, nil
}

// Holdfast is the bill for a number of typical hosts, with a replica.
func Holdfast(hosts int) (Bill, error) {
	h, err := typical()
	if err != nil {
		return Bill{}, err
	}
	p := Prices()
	n := float64(hosts)
	price := func(key int) float64 { return p[key].Dollar }
	b := Bill{Hosts: hosts}
	add := func(what string, dollar float64) { b.Lines = append(b.Lines, Line{what, dollar}) }
	packs := h.stored * GB / packBytes
	add("storage, first region", n*h.stored*price(S3Standard))
	add("storage, replica", n*h.stored*price(S3Infrequent))
	add("replication: transfer and PUT", n*(h.uploaded*price(Transfer)+h.puts*price(S3PutInfrequent)/1000))
	add("requests of agents", n*((h.puts+h.lists)*price(S3Put)+h.gets*price(S3Get))/1000)
	add("requests of verify and monitor", n*((h.runs+h.looks+2*Month)*price(S3Put)+(6*h.runs+packs/verifyMonths)*price(S3Get))/1000)
	// In the replica's region it reads the documents of both.
	gets, lists, locks := passes*passGets*h.kept, passes*passLists*h.sources, packs+3*h.kept
	add("requests of lifecycle", n*((3*lists+locks)*price(S3Put)+2*gets*price(S3Get)+locks*price(S3PutInfrequent)+gets*price(S3GetInfrequent))/1000)
	add("reading the replica again", n*(h.stored*price(S3RetrieveInfrequent)+packs*price(S3GetInfrequent)/1000)/replicaMonths)
	compute, calls := h.compute(n)
	add("Lambda", compute*price(LambdaSecond)+calls/1e6*price(LambdaRequest))
	add("schedules", beats()/1e6*price(SchedulerInvocation))
	add("agents' events", n*heartbeats*Month/1e6*price(EventCustom))
	// A job is sent, received and deleted; an event is sent to a queue and leaves it in a batch; agents wait for jobs.
	add("queues", n*(polls*Month+3*h.runs+1.5*heartbeats*Month)/1e6*price(SQSRequest))
	s, err := deployed()
	if err != nil {
		return Bill{}, err
	}
	alarms := len(s.Alarms()) + len(s.In(s.Replica).Alarms())
	add("metrics and alarms", float64(environment.Series(0))*price(Metric)+float64(alarms)*price(Alarm)+4*price(CompositeAlarm))
	add("logs", calls*logPerCall/GB*price(LogByte))
	add("keys", 2*price(KMSKey)+n*h.runs/1e4*price(KMSRequest))
	return b, nil
}

// compute returns GB seconds and invocations of all functions.
func (h *host) compute(n float64) (seconds, calls float64) {
	for _, f := range append(settings.Functions(false), settings.Functions(true)...) {
		times, each := invocations(f), tickSeconds
		switch f.Verb {
		case settings.Coordinate, settings.Monitor:
			each += n * hostSeconds
			if f.Verb == settings.Monitor {
				break
			}
			reports := n * heartbeats * Month / min(eventsInBatch, max(1, n/25))
			seconds, calls = seconds+reports*reportSeconds*f.Memory/1024, calls+reports
		case settings.Verify:
			if f.Replica {
				seconds += n * h.stored * GB / readPerSecond / replicaMonths * f.Memory / 1024
				break
			}
			seconds += n * (h.runs*reportSeconds + h.stored*GB/readPerSecond/verifyMonths) * f.Memory / 1024
			calls += n * h.runs
		case settings.Lifecycle:
			pass := passSeconds
			if f.Replica {
				pass = replicaSeconds
			}
			seconds += n * h.sources * passes * pass * f.Memory / 1024
		}
		seconds, calls = seconds+times*each*f.Memory/1024, calls+times
	}
	return seconds, calls
}

// invocations is how often a function's schedule beats in a month.
func invocations(f settings.Function) float64 {
	if f.Every == 0 {
		return 0
	}
	return Month * 3600 / f.Every
}

func beats() float64 {
	total := 0.0
	for _, f := range append(settings.Functions(false), settings.Functions(true)...) {
		total += invocations(f)
	}
	return total
}

func deployed() (*settings.Settings, error) {
	p, err := policy.Parse([]byte(Typical))
	if err != nil {
		return nil, err
	}
	return settings.Load(p, func(key string) string { return map[string]string{"account": "123456789012"}[key] })
}

// Backup is what AWS Backup would cost: daily recovery points of the hosts' EBS volumes for 30 days, copied to another
// region. It bills blocks as they are, uncompressed.
func Backup(hosts int) Bill {
	p := Prices()
	n, plain := float64(hosts), float64(AppBytes+ConfigBytes)/GB
	kept := plain * (1 + dailyChange*daysOfSnapshot)
	return Bill{Hosts: hosts, Lines: []Line{
		{"recovery points, first region", n * kept * p[EBSSnapshot].Dollar},
		{"recovery points, other region", n * kept * p[EBSSnapshot].Dollar},
		{"transfer", n * plain * dailyChange * Month / 24 * p[Transfer].Dollar},
	}}
}

// Server is what servers of one's own would cost, with pgBackRest and restic writing to a volume, whose snapshots are
// the second copy. The hours of those who keep them running are not in it.
func Server(hosts int) (Bill, error) {
	h, err := typical()
	if err != nil {
		return Bill{}, err
	}
	p := Prices()
	n := float64(hosts)
	servers := float64((hosts + hostsPerServer - 1) / hostsPerServer)
	return Bill{Hosts: hosts, Lines: []Line{
		{"instances", servers * Month * p[InstanceHour].Dollar},
		{"volumes, 30 % free", n * h.stored * 1.3 * p[EBSVolume].Dollar},
		{"snapshots in another region", n * h.stored * p[EBSSnapshot].Dollar},
		{"transfer", n * h.uploaded * p[Transfer].Dollar},
	}}, nil
}

// Assumptions says in words what the numbers rest on beside the policy.
func Assumptions() []string {
	return append(cost.Assumptions(),
		fmt.Sprintf("an agent waits for jobs with one request of 20 s after the other (%d an hour) and sends a heartbeat every 5 minutes", polls),
		fmt.Sprintf("an invocation that finds nothing to do takes %g s; coordinate and monitor take %g s more for each host", tickSeconds, hostSeconds),
		fmt.Sprintf("verify reads all bytes once a month and those of the replica once in %d, at %d MB/s, and each new snapshot's documents when it arrives; "+
			"limits.reread of the policy makes that more or less, see below", replicaMonths, readPerSecond>>20),
		"monitor lists each source once in a third of its RPO, and a log once an hour beside the replica's, verify the sources of each host once in an hour",
		fmt.Sprintf("lifecycle has a pass over each source every %d hours, with %d GETs for each snapshot that is kept and %d LISTs, in %g s, of the replica in %g s; it locks each object for longer once in 30 days",
			passEvery, passGets, passLists, passSeconds, replicaSeconds),
		fmt.Sprintf("a log line of %d bytes for each invocation", logPerCall),
		"AWS Backup's restore testing, and restores and drills of all three, are not counted",
	)
}

// Reread is what it costs to read a TB of packs again once: of the repository in Standard, or of the replica in Standard-IA.
func Reread(replica bool) float64 {
	const tb = 1000
	p := Prices()
	get, retrieve := p[S3Get].Dollar, 0.0
	if replica {
		get, retrieve = p[S3GetInfrequent].Dollar, p[S3RetrieveInfrequent].Dollar
	}
	memory := 0.0
	for _, f := range settings.Functions(replica) {
		if f.Verb == settings.Verify {
			memory = f.Memory / 1024
		}
	}
	return tb*retrieve + tb*GB/packBytes*get/1000 + tb*GB/readPerSecond*memory*p[LambdaSecond].Dollar
}
