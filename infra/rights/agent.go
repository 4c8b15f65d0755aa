package rights

import (
	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// host is the policy variable for the host that a caller speaks for; tag is [settings.HostTag] or
// [settings.CertificateTag].
func host(tag string) string { return "${aws:PrincipalTag/" + tag + "}" }

// documents returns patterns of the objects, below a host's prefix, that are no content and open nothing: of logs the
// heads, which say what continues what, and not the records.
func documents(prefix string) []string {
	return append(kinds(prefix, "snapshots", "lists", "condemned", "expired", "marks", "damaged", "receipts"), prefix+"/*/log/*/head.json")
}

// kinds returns patterns of objects of some kinds below a host's prefix.
func kinds(prefix string, names ...string) []string {
	out := make([]string, 0, len(names))
	for _, k := range names {
		out = append(out, prefix+"/*/"+k+"/*")
	}
	return out
}

// Capture is what an agent may do to back up: add to its own host's prefix, read there all but packs and records of logs, take its own jobs
// and report. It can neither overwrite nor delete; the bucket's policy denies both once more.
func Capture(s *settings.Settings, tag string) Document {
	own := s.BucketARN(s.Bucket) + "/v1/" + host(tag)
	d := Document{
		{
			Sid: "AddOwnObjects", Effect: Allow, Action: []string{"s3:PutObject"}, Resource: []string{own + "/*"},
			Condition: Conditions{"Null": {"s3:if-none-match": "false"}},
		},
		{
			Sid: "ReadOwnDocuments", Effect: Allow, Action: []string{"s3:GetObject"},
			Resource: append(append(documents(own), kinds(own, "keys")...), below(s.BucketARN(s.Bucket), "/v1/repository.json", "/v1/access/*")...),
		},
	}
	d = append(d, reading(s, tag)...)
	d = append(d, Statement{
		Sid: "TakeOwnJobs", Effect: Allow,
		Action:   []string{"sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage"},
		Resource: []string{s.ARN("sqs", events.QueuePrefix+host(tag))},
	}, Statement{
		Sid: "Report", Effect: Allow, Action: []string{"events:PutEvents"}, Resource: []string{s.ARN("events", "event-bus/"+events.BusName)},
		Condition: sentAs(events.AgentSource(host(tag))),
	})
	return append(d, keys(s, tag, "WrapDataKeys", "kms:Encrypt", "kms:GenerateDataKey")...)
}

// Restore is what an agent or a replacement machine may do to restore one host's backups: read its prefix, packs and
// old versions too, and unwrap its data keys. It writes only what verifications write: receipts, and which packs are
// damaged.
func Restore(s *settings.Settings, tag string) Document {
	d := Document{
		{
			Sid: "ReadOwnObjects", Effect: Allow, Action: []string{"s3:GetObject", "s3:GetObjectVersion"},
			Resource: below(s.BucketARN(s.Bucket), "/v1/repository.json", "/v1/access/*", "/v1/"+host(tag)+"/*"),
		},
		{
			Sid: "AddVerdicts", Effect: Allow, Action: []string{"s3:PutObject"},
			Resource:  kinds(s.BucketARN(s.Bucket)+"/v1/"+host(tag), "receipts/host", "damaged"),
			Condition: Conditions{"Null": {"s3:if-none-match": "false"}},
		},
		{
			Sid: "ListOwnVersions", Effect: Allow, Action: []string{"s3:ListBucketVersions"}, Resource: []string{s.BucketARN(s.Bucket)},
			Condition: Conditions{"StringLike": {"s3:prefix": []string{"v1/" + host(tag) + "/*"}}},
		},
	}
	d = append(d, reading(s, tag)...)
	return append(d, keys(s, tag, "UnwrapDataKeys", "kms:Decrypt")...)
}

// sentAs is the condition that every event of a request has this source: a request carries several, each with its own.
func sentAs(source string) Conditions {
	return Conditions{"ForAllValues:StringEquals": {"events:source": source}, "Null": {"events:source": "false"}}
}

func reading(s *settings.Settings, tag string) Document {
	return Document{{
		Sid: "ListOwnObjects", Effect: Allow, Action: []string{"s3:ListBucket"}, Resource: []string{s.BucketARN(s.Bucket)},
		Condition: Conditions{"StringLike": {"s3:prefix": []string{"v1/" + host(tag) + "/*", "v1/access/*"}}},
	}}
}

// keys allows actions on the keys of both regions, with an encryption context of exactly {host, source} whose host is
// the caller's. Keys are named by alias: their own names are not known before they are made.
func keys(s *settings.Settings, tag, sid string, actions ...string) Document {
	places := []*settings.Settings{s}
	if s.Replica != nil {
		places = append(places, s.In(s.Replica))
	}
	var resources []string
	for _, at := range places {
		resources = append(resources, at.ARN("kms", "key/*"))
	}
	return Document{{
		Sid: sid, Effect: Allow, Action: actions, Resource: resources,
		Condition: Conditions{
			"ForAnyValue:StringEquals": {"kms:ResourceAliases": settings.KeyAlias},
			"StringEquals":             {"kms:EncryptionContext:host": host(tag)},
			"ForAllValues:StringEquals": {
				"kms:EncryptionContextKeys": []string{"host", "source"},
			},
			"Null": {"kms:EncryptionContext:source": "false"},
		},
	}}
}

// TrustHosts says who may become a capture role: machines with a certificate of the trust anchor.
func TrustHosts(anchor string) Document {
	return Document{{
		Sid: "Certificates", Effect: Allow, Principal: Service("rolesanywhere.amazonaws.com"),
		Action:    []string{"sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"},
		Condition: Conditions{"ArnEquals": {"aws:SourceArn": anchor}, "StringLike": {"aws:PrincipalTag/" + settings.CertificateTag: "?*"}},
	}}
}

// TrustRestorers lets people and machines of the account become the restore role for one host, which they name with a
// tag of the session and which their own policies may limit.
func TrustRestorers(s *settings.Settings) Document {
	return Document{{
		Sid: "Named", Effect: Allow, Principal: map[string]any{"AWS": "arn:" + s.Partition + ":iam::" + s.Account + ":root"},
		Action:    []string{"sts:AssumeRole", "sts:TagSession"},
		Condition: Conditions{"StringLike": {"aws:RequestTag/" + settings.HostTag: "?*"}, "ForAllValues:StringEquals": {"aws:TagKeys": []string{settings.HostTag}}},
	}}
}
