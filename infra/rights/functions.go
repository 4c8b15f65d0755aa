package rights

import (
	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// Function is what a function of this verb may do, besides its own log, queue and dead letters; see [Machinery].
func Function(s *settings.Settings, verb string) Document {
	switch verb {
	case settings.Coordinate:
		return coordinate(s)
	case settings.Verify:
		return verify(s)
	case settings.Lifecycle:
		return lifecycle(s)
	case settings.Monitor:
		return monitor(s)
	case settings.Restore:
		return restore(s)
	case settings.Watchdog:
		return watchdog(s)
	}
	return nil
}

// Machinery is what a function needs to run at all: its log, its queue if it has one, and its dead letters.
func Machinery(log, deadLetters, queue string) Document {
	d := Document{
		{Sid: "Log", Effect: Allow, Action: []string{"logs:CreateLogStream", "logs:PutLogEvents"}, Resource: []string{log + ":*"}},
		{Sid: "DeadLetters", Effect: Allow, Action: []string{"sqs:SendMessage"}, Resource: []string{deadLetters}},
	}
	if queue != "" {
		d = append(d, Statement{
			Sid: "OwnQueue", Effect: Allow,
			Action:   []string{"sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"},
			Resource: []string{queue},
		})
	}
	return d
}

func allow(sid string, actions []string, resources ...string) Statement {
	return Statement{Sid: sid, Effect: Allow, Action: actions, Resource: resources}
}

// repository reads all but packs, keys and records of logs, and lists.
func repository(s *settings.Settings) Document {
	bucket := s.BucketARN(s.Bucket)
	objects := append(documents(bucket+"/v1/*"), bucket+"/v1/repository.json", bucket+"/v1/access/*")
	return Document{
		allow("ListRepository", []string{"s3:ListBucket"}, bucket),
		allow("ReadDocuments", []string{"s3:GetObject"}, objects...),
	}
}

// state reads the policy and the keys under read, and also writes those under write. A list is needed to tell an object
// that is not there from one that may not be read.
func state(s *settings.Settings, read, write []string) Document {
	bucket := s.BucketARN(s.StateBucket())
	readable := below(bucket, append([]string{"/config/*"}, read...)...)
	d := Document{allow("ListState", []string{"s3:ListBucket"}, bucket), allow("ReadState", []string{"s3:GetObject"}, append(readable, below(bucket, write...)...)...)}
	if len(write) > 0 {
		d = append(d, allow("WriteState", []string{"s3:DeleteObject", "s3:PutObject"}, below(bucket, write...)...))
	}
	return d
}

// parameters reads the trust anchor and the verb's own signer. They are encrypted with the key that Systems Manager
// keeps for the account, which needs no right of its own.
func parameters(s *settings.Settings, verb string, signs bool) Statement {
	names := []string{s.ARN("ssm", "parameter"+settings.TrustParameter)}
	if signs {
		names = append(names, s.ARN("ssm", "parameter"+settings.SignerParameter+verb))
	}
	return allow("ReadParameters", []string{"ssm:GetParameters"}, names...)
}

// order puts jobs on hosts' queues.
func order(s *settings.Settings) Statement {
	return allow("OrderJobs", []string{"sqs:GetQueueUrl", "sqs:SendMessage"}, s.ARN("sqs", events.QueuePrefix+"*"))
}

func report(s *settings.Settings) Statement {
	st := allow("Report", []string{"events:PutEvents"}, s.ARN("events", "event-bus/"+events.BusName))
	st.Condition = sentAs(events.SourceControl)
	return st
}

func coordinate(s *settings.Settings) Document {
	d := append(repository(s), state(s, []string{"/freeze/*", "/restores/*"}, []string{"/coordinate/*", "/jobs/*"})...)
	return append(d, parameters(s, settings.Coordinate, false), order(s))
}

func verify(s *settings.Settings) Document {
	bucket := s.BucketARN(s.Bucket)
	d := Document{
		allow("ListRepository", []string{"s3:ListBucket"}, bucket),
		allow("ReadRepository", []string{"s3:GetObject"}, bucket+"/v1/*"),
		{
			Sid: "WriteReceipts", Effect: Allow, Action: []string{"s3:PutObject"}, Resource: kinds(bucket+"/v1/*", "receipts/cloud", "damaged"),
			Condition: Conditions{"Null": {"s3:if-none-match": "false"}},
		},
	}
	d = append(d, state(s, nil, []string{"/verify/*"})...)
	return append(d, parameters(s, settings.Verify, true))
}

// lifecycle removes and extends in the bucket of its own region, and in no other: neither role can touch what the other
// one keeps.
func lifecycle(s *settings.Settings) Document {
	d := append(repository(s), tending(s.BucketARN(s.Bucket))...)
	read := []string{"/freeze/*", "/restores/*"}
	if s.Second {
		read = nil // both are in the first region: see First
	}
	d = append(d, state(s, read, []string{"/lifecycle/*"})...)
	d = append(d, parameters(s, settings.Lifecycle, true))
	if s.Second {
		return d
	}
	return append(d, report(s))
}

// tending is what lifecycle does to the objects of a bucket.
func tending(bucket string) Document {
	tag := allow("Cool", []string{"s3:PutObjectTagging"}, kinds(bucket+"/v1/*", "packs")...)
	tag.Condition = Conditions{"StringEquals": {"s3:RequestObjectTag/" + settings.ColdTag: settings.ColdValue}}
	return Document{
		tag,
		// A key goes when nothing is left of its chain, which its document names. Who may not decrypt opens nothing with it.
		allow("ReadWrappedKeys", []string{"s3:GetObject"}, kinds(bucket+"/v1/*", "keys")...),
		allow("ReadVersions", []string{"s3:GetBucketVersioning", "s3:ListBucketVersions"}, bucket),
		{
			Sid: "Announce", Effect: Allow, Action: []string{"s3:PutObject"}, Resource: kinds(bucket+"/v1/*", "condemned", "expired", "receipts/cloud"),
			Condition: Conditions{"Null": {"s3:if-none-match": "false"}},
		},
		allow("Remove", []string{"s3:DeleteObject", "s3:DeleteObjectVersion"},
			kinds(bucket+"/v1/*", "snapshots", "keys", "packs", "lists", "log", "condemned", "expired", "damaged", "marks", "receipts")...),
		allow("Extend", []string{"s3:GetObjectLegalHold", "s3:GetObjectRetention", "s3:PutObjectLegalHold", "s3:PutObjectRetention"}, bucket+"/v1/*"),
	}
}

// observed is the repository with the locks of its manifests: who can't read those takes what is protected for unprotected.
func observed(s *settings.Settings) Document {
	return append(repository(s), allow("ReadLocks", []string{"s3:GetObjectLegalHold", "s3:GetObjectRetention"}, kinds(s.BucketARN(s.Bucket)+"/v1/*", "snapshots")...))
}

func monitor(s *settings.Settings) Document {
	d := append(observed(s), state(s, []string{"/coordinate/*", "/jobs/*", "/freeze/*", "/restores/*", "/verify/*", "/lifecycle/*"},
		[]string{"/sources/*", "/alerts.json", "/monitor.json", "/monitor/*"})...)
	d = append(d,
		allow("Alert", []string{"sns:ListSubscriptionsByTopic", "sns:Publish"}, s.ARN("sns", settings.TopicName)),
		parameters(s, settings.Monitor, false), report(s))
	if s.Ping != "" {
		d = append(d, allow("ReadPing", []string{"ssm:GetParameter", "ssm:GetParameters"}, s.ARN("ssm", "parameter"+s.Ping)))
	}
	if s.Replica != nil {
		for _, st := range observed(s.In(s.Replica)) {
			st.Sid += "Replica"
			d = append(d, st)
		}
	}
	return d
}

// restore carries requests to hosts. It reads no content: it asks for archived packs to be thawed, and a listing tells it
// how far they are.
func restore(s *settings.Settings) Document {
	d := append(repository(s), state(s, []string{"/jobs/*", "/sources/*"}, []string{"/restores/*", "/freeze/*"})...)
	thaw := allow("Thaw", []string{"s3:RestoreObject"}, kinds(s.BucketARN(s.Bucket)+"/v1/*", "packs")...)
	return append(d, thaw, parameters(s, settings.Restore, false), order(s))
}

// watchdog lives in the replica's region and looks at both. What lifecycle and verify have found there it tells.
func watchdog(s *settings.Settings) Document {
	d := append(repository(s), state(s, []string{"/lifecycle/*", "/verify/*"}, []string{"/watchdog.json"})...)
	return append(d,
		allow("Alert", []string{"sns:ListSubscriptionsByTopic", "sns:Publish"}, s.ARN("sns", settings.TopicName)),
		parameters(s, settings.Watchdog, false))
}

// First is what a function of the second region reads in the first one. It may write nothing there.
func First(first *settings.Settings, verb string) Document {
	state := first.BucketARN(first.StateBucket())
	read := below(state, "/config/*", "/monitor.json") // the state that monitor leaves there
	if verb == settings.Lifecycle {
		read = below(state, "/config/*", "/freeze/*")
	}
	d := Document{allow("ListFirst", []string{"s3:ListBucket"}, state), allow("ReadFirst", []string{"s3:GetObject"}, read...)}
	if verb == settings.Lifecycle {
		// To compare: which objects the primary has, and which of them its snapshots need.
		for _, st := range repository(first) {
			st.Sid += "First"
			d = append(d, st)
		}
	}
	return d
}

// Schedule lets EventBridge Scheduler invoke functions and put what it could not deliver into their dead letters.
func Schedule(functions, dead []string) Document {
	return Document{allow("Invoke", []string{"lambda:InvokeFunction"}, functions...), allow("DeadLetters", []string{"sqs:SendMessage"}, dead...)}
}
