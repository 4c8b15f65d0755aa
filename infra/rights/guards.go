package rights

import (
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/infra/settings"
)

// encrypted denies what does not come by TLS; every resource policy begins with it.
func encrypted(action string, resources ...string) Statement {
	return Statement{
		Sid: "DenyPlaintext", Effect: Deny, Principal: Everybody(), Action: []string{action}, Resource: resources,
		Condition: Conditions{"Bool": {"aws:SecureTransport": "false"}},
	}
}

// RepositoryBucket guards the repository. What it denies holds whatever an identity's policy allows; lifecycle is the
// ARN of the only role that may delete.
func RepositoryBucket(s *settings.Settings, lifecycle string) Document {
	bucket := s.BucketARN(s.Bucket)
	all := bucket + "/*"
	agents := func(more Conditions) Conditions {
		c := anyAccount(s, settings.AgentPath)
		for operator, keys := range more {
			c[operator] = keys
		}
		return c
	}
	deny := func(sid string, resources []string, c Conditions, actions ...string) Statement {
		return Statement{Sid: sid, Effect: Deny, Principal: Everybody(), Action: actions, Resource: resources, Condition: c}
	}
	d := Document{
		encrypted("s3:*", bucket, all),
		deny("AgentsNeverOverwrite", []string{all}, agents(Conditions{"Null": {"s3:if-none-match": "true"}}), "s3:PutObject"),
		deny("AgentsPutWholeObjects", []string{all}, agents(Conditions{"Bool": {"s3:ObjectCreationOperation": "false"}}), "s3:PutObject"),
		deny("AgentsNeverCopy", []string{all}, agents(Conditions{"Null": {"s3:x-amz-copy-source": "false"}}), "s3:PutObject"),
		deny("AgentsOnlyAdd", []string{all}, agents(nil), "s3:AbortMultipartUpload", "s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectTagging",
			"s3:DeleteObjectVersion", "s3:DeleteObjectVersionTagging", "s3:PutObjectAcl", "s3:PutObjectLegalHold", "s3:PutObjectRetention",
			"s3:PutObjectTagging", "s3:PutObjectVersionAcl", "s3:PutObjectVersionTagging", "s3:RestoreObject"),
		deny("AgentsForgeNothing", kinds(bucket+"/v1/*", "receipts/cloud", "condemned", "expired"), agents(nil), "s3:PutObject"),
		deny("CaptureReadsNoContent", kinds(bucket+"/v1/*", "packs"), anyAccount(s, settings.CapturePath), "s3:GetObject", "s3:GetObjectVersion"),
		deny("RetentionHasAnEnd", []string{all}, Conditions{
			"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": strconv.Itoa(settings.MaxRemainingDays)},
		}, "s3:PutObjectRetention"),
	}
	return append(d,
		deny("LockedUntilItEnds", []string{all}, except(s), "s3:BypassGovernanceRetention"),
		deny("OnlyLifecycleDeletes", []string{all}, except(s, lifecycle), "s3:DeleteObject", "s3:DeleteObjectVersion"),
		deny("LockStaysOn", []string{bucket}, except(s), "s3:DeleteBucket"),
	)
}

// anyAccount matches the roles below a path. Agents keep their account where the replica has one of its own.
func anyAccount(s *settings.Settings, path string) Conditions {
	return Conditions{"ArnLike": {"aws:PrincipalArn": "arn:" + s.Partition + ":iam::*:role" + path + "*"}}
}

// except matches everybody but some roles and the one that breaks the glass.
func except(s *settings.Settings, arns ...string) Conditions {
	if s.BreakGlass != "" {
		arns = append(arns, s.BreakGlass)
	}
	if len(arns) == 0 {
		return nil
	}
	return Conditions{"ArnNotEquals": {"aws:PrincipalArn": arns}}
}

// StateBucket guards the control plane's state: what is deployed is written by who deploys, never by a function.
func StateBucket(s *settings.Settings) Document {
	bucket := s.BucketARN(s.StateBucket())
	d := Document{encrypted("s3:*", bucket, bucket+"/*")}
	for _, path := range []string{settings.AgentPath, settings.ControlPath} {
		sid := map[string]string{settings.AgentPath: "AgentsStayOut", settings.ControlPath: "FunctionsObeyPolicy"}[path]
		resource := bucket + "/config/*"
		actions := []string{"s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"}
		if path == settings.AgentPath {
			resource, actions = bucket+"/*", append(actions, "s3:GetObject")
		}
		d = append(d, Statement{
			Sid: sid, Effect: Deny, Principal: Everybody(), Action: actions, Resource: []string{resource}, Condition: anyAccount(s, path),
		})
	}
	return append(d, SecondReads(s, bucket)...)
}

// only gives a statement to one role of an account. The role is named in a condition: as principal it would have to be
// there before the bucket, and the stack that makes it comes later.
func only(s *settings.Settings, role string, st Statement) Statement {
	st.Principal = map[string]any{"AWS": "arn:" + s.Partition + ":iam::" + s.Account + ":root"}
	st.Condition = Conditions{"ArnEquals": {"aws:PrincipalArn": role}}
	return st
}

// SecondReads lets the functions of the second region read one of the first region's buckets where they are of another
// account; within one account their own policies do.
func SecondReads(s *settings.Settings, bucket string) Document {
	if s.Replica == nil || s.Replica.Account == s.Account {
		return nil
	}
	var d Document
	at := s.In(s.Replica)
	for _, verb := range []string{settings.Lifecycle, settings.Watchdog} {
		for _, st := range First(s, verb) {
			var here []string
			for _, r := range st.Resource {
				if r == bucket || strings.HasPrefix(r, bucket+"/") {
					here = append(here, r)
				}
			}
			if len(here) > 0 {
				st.Sid, st.Resource = verb+st.Sid, here
				d = append(d, only(at, at.FunctionRole(verb), st))
			}
		}
	}
	return d
}

// LogBucket lets S3 deliver access logs of the account's buckets.
func LogBucket(s *settings.Settings, bucket string, of ...string) Document {
	arn := s.BucketARN(bucket)
	sources := make([]string, 0, len(of))
	for _, b := range of {
		sources = append(sources, s.BucketARN(b))
	}
	return Document{encrypted("s3:*", arn, arn+"/*"), {
		Sid: "Deliver", Effect: Allow, Principal: Service("logging.s3.amazonaws.com"), Action: []string{"s3:PutObject"}, Resource: []string{arn + "/*"},
		Condition: Conditions{"StringEquals": {"aws:SourceAccount": s.Account}, "ArnLike": {"aws:SourceArn": sources}},
	}}
}

// ReplicaBucket is RepositoryBucket for the replica's bucket, which the replication role also fills. s is the replica's,
// first the settings of the other region, whose monitor comes from another account where the replica has its own.
func ReplicaBucket(s, first *settings.Settings) Document {
	d := RepositoryBucket(s, s.FunctionRole(settings.Lifecycle))
	bucket := s.BucketARN(s.Bucket)
	from := func(sid, role string, actions []string, resources ...string) {
		d = append(d, only(first, role, Statement{Sid: sid, Effect: Allow, Action: actions, Resource: resources}))
	}
	replicate := first.RoleARN("/holdfast/", settings.ReplicaRole)
	from("Replicate", replicate, []string{"s3:ReplicateObject", "s3:ReplicateTags"}, bucket+"/*")
	from("ReplicateSettings", replicate, []string{"s3:GetBucketVersioning", "s3:ListBucket"}, bucket)
	if s.Account != first.Account {
		for _, st := range observed(s) {
			from("Monitor"+st.Sid, first.FunctionRole(settings.Monitor), st.Action, st.Resource...)
		}
	}
	return d
}

// Replicate is what S3 may do on our behalf to copy objects to the second region. Neither deletions nor their markers
// travel.
func Replicate(s *settings.Settings) Document {
	return Document{
		{
			Sid: "ReadSettings", Effect: Allow, Action: []string{"s3:GetReplicationConfiguration", "s3:ListBucket"},
			Resource: []string{s.BucketARN(s.Bucket)},
		},
		{
			Sid: "ReadObjects", Effect: Allow,
			Action: []string{
				"s3:GetObjectLegalHold", "s3:GetObjectRetention", "s3:GetObjectVersionAcl", "s3:GetObjectVersionForReplication",
				"s3:GetObjectVersionTagging",
			},
			Resource: []string{s.BucketARN(s.Bucket) + "/*"},
		},
		{
			Sid: "WriteReplicas", Effect: Allow, Action: []string{"s3:ReplicateObject", "s3:ReplicateTags"},
			Resource: []string{s.BucketARN(s.Replica.Bucket) + "/*"},
		},
	}
}

// Key guards the key that wraps data keys. The account's policies decide who uses it, except that nobody but the role
// that breaks the glass can disable it or schedule its end, which would close every snapshot that no other recipient
// opens. A key's policy names the key itself by "*": AWS knows no other way.
func Key(s *settings.Settings) Document {
	root := map[string]any{"AWS": "arn:" + s.Partition + ":iam::" + s.Account + ":root"}
	self := []string{"*"}
	return Document{
		{
			Sid: "Administer", Effect: Allow, Principal: root, Resource: self,
			Action: []string{
				"kms:CancelKeyDeletion", "kms:CreateAlias", "kms:CreateGrant", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey",
				"kms:EnableKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies",
				"kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
				"kms:UpdateAlias", "kms:UpdateKeyDescription",
			},
		},
		{
			Sid: "UseWithContext", Effect: Allow, Principal: root, Resource: self,
			Action:    []string{"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"},
			Condition: Conditions{"Null": {"kms:EncryptionContext:host": "false", "kms:EncryptionContext:source": "false"}},
		},
		{
			Sid: "NobodyEndsIt", Effect: Deny, Principal: Everybody(), Resource: self, Condition: except(s),
			Action: []string{"kms:DisableKey", "kms:ScheduleKeyDeletion"},
		},
	}
}

// Queue guards a queue of the control plane; the rules with these ARNs may send to it.
func Queue(arn string, rules ...string) Document {
	d := Document{encrypted("sqs:*", arn)}
	if len(rules) > 0 {
		d = append(d, Statement{
			Sid: "Rules", Effect: Allow, Principal: Service("events.amazonaws.com"), Action: []string{"sqs:SendMessage"}, Resource: []string{arn},
			Condition: Conditions{"ArnEquals": {"aws:SourceArn": rules}},
		})
	}
	return d
}

// Topic guards the topic of alerts; alarms and rules of this account may publish.
func Topic(s *settings.Settings) Document {
	arn := s.ARN("sns", settings.TopicName)
	return Document{encrypted("sns:Publish", arn), {
		Sid: "Alarms", Effect: Allow, Principal: Service("cloudwatch.amazonaws.com"), Action: []string{"sns:Publish"}, Resource: []string{arn},
		Condition: Conditions{"StringEquals": {"aws:SourceAccount": s.Account}, "ArnLike": {"aws:SourceArn": s.ARN("cloudwatch", "alarm:holdfast-*")}},
	}, {
		Sid: "Rules", Effect: Allow, Principal: Service("events.amazonaws.com"), Action: []string{"sns:Publish"}, Resource: []string{arn},
		Condition: Conditions{"ArnLike": {"aws:SourceArn": s.ARN("events", "rule/holdfast-*")}},
	}}
}
