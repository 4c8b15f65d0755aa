package stack

import (
	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awskms"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrolesanywhere"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/jsii-runtime-go"

	"github.com/btcdecoded/holdfast/infra/rights"
	"github.com/btcdecoded/holdfast/infra/settings"
)

// storage fills the stack of what must outlive the others.
func (b *builder) storage(st awscdk.Stack) {
	s := b.s
	logName := settings.LogBucket(s.Account, s.Region)
	logs := b.logBucket(st, logName, []string{s.Bucket, s.StateBucket()})
	repository := b.repositoryBucket(st, logName)
	repository.AddResourceDependency(logs, nil)
	b.key(st)
	b.stateBucket(st, logName).AddResourceDependency(logs, nil)
	if s.Second {
		b.guard(st, "RepositoryPolicy", repository, rights.ReplicaBucket(s, b.first))
		return
	}
	d := rights.RepositoryBucket(s, s.FunctionRole(settings.Lifecycle))
	b.guard(st, "RepositoryPolicy", repository, append(d, rights.SecondReads(s, s.BucketARN(s.Bucket))...))
	b.agents(st)
}

func private() *awss3.CfnBucket_PublicAccessBlockConfigurationProperty {
	return &awss3.CfnBucket_PublicAccessBlockConfigurationProperty{
		BlockPublicAcls: jsii.Bool(true), BlockPublicPolicy: jsii.Bool(true), IgnorePublicAcls: jsii.Bool(true), RestrictPublicBuckets: jsii.Bool(true),
	}
}

// encryption is the store's own. With a key of KMS, disabling that key would close even what the offline identity opens.
func encryption() *awss3.CfnBucket_BucketEncryptionProperty {
	return &awss3.CfnBucket_BucketEncryptionProperty{ServerSideEncryptionConfiguration: []any{&awss3.CfnBucket_ServerSideEncryptionRuleProperty{
		ServerSideEncryptionByDefault: &awss3.CfnBucket_ServerSideEncryptionByDefaultProperty{SseAlgorithm: jsii.String("AES256")},
	}}}
}

func owner() *awss3.CfnBucket_OwnershipControlsProperty {
	return &awss3.CfnBucket_OwnershipControlsProperty{Rules: []any{
		&awss3.CfnBucket_OwnershipControlsRuleProperty{ObjectOwnership: jsii.String("BucketOwnerEnforced")},
	}}
}

func versioned() *awss3.CfnBucket_VersioningConfigurationProperty {
	return &awss3.CfnBucket_VersioningConfigurationProperty{Status: jsii.String("Enabled")}
}

func abortUploads() *awss3.CfnBucket_RuleProperty {
	return &awss3.CfnBucket_RuleProperty{
		Id: jsii.String("abort-incomplete-uploads"), Status: jsii.String("Enabled"),
		AbortIncompleteMultipartUpload: &awss3.CfnBucket_AbortIncompleteMultipartUploadProperty{DaysAfterInitiation: jsii.Number(2)},
	}
}

func rules(list ...any) *awss3.CfnBucket_LifecycleConfigurationProperty {
	return &awss3.CfnBucket_LifecycleConfigurationProperty{Rules: list}
}

func logging(bucket, prefix string) *awss3.CfnBucket_LoggingConfigurationProperty {
	return &awss3.CfnBucket_LoggingConfigurationProperty{DestinationBucketName: jsii.String(bucket), LogFilePrefix: jsii.String(prefix)}
}

// logBucket gets the access logs. It has no Object Lock: log delivery does not work with a default retention.
func (b *builder) logBucket(st awscdk.Stack, name string, of []string) awss3.CfnBucket {
	bucket := awss3.NewCfnBucket(st, jsii.String("AccessLogs"), &awss3.CfnBucketProps{
		BucketName: jsii.String(name), BucketEncryption: encryption(), PublicAccessBlockConfiguration: private(), OwnershipControls: owner(),
		VersioningConfiguration: versioned(),
		LifecycleConfiguration: rules(abortUploads(), &awss3.CfnBucket_RuleProperty{
			Id: jsii.String("expire"), Status: jsii.String("Enabled"), ExpirationInDays: jsii.Number(400),
			NoncurrentVersionExpiration: &awss3.CfnBucket_NoncurrentVersionExpirationProperty{NoncurrentDays: jsii.Number(30)},
		}),
	})
	suppress(bucket, "AwsSolutions-S1", "this is the bucket of access logs; logging it into itself would never end")
	keep(bucket)
	b.guard(st, "AccessLogsPolicy", bucket, rights.LogBucket(b.s, name, of...))
	return bucket
}

// repositoryBucket holds the repository, or its replica. No rule expires a current version: only lifecycle, the
// function, removes.
func (b *builder) repositoryBucket(st awscdk.Stack, logs string) awss3.CfnBucket {
	s := b.s
	rule := []any{abortUploads(), &awss3.CfnBucket_RuleProperty{
		// What was overwritten or deleted behind our back stays until two verifications could have missed it.
		Id: jsii.String("expire-old-versions"), Status: jsii.String("Enabled"),
		NoncurrentVersionExpiration: &awss3.CfnBucket_NoncurrentVersionExpirationProperty{NoncurrentDays: jsii.Number(float64(noncurrentDays(s)))},
	}}
	if s.ColdAfter > 0 {
		// Lifecycle, the function, tags what may move; it has waited long enough then.
		rule = append(rule, &awss3.CfnBucket_RuleProperty{
			Id: jsii.String("cool-proven-chains"), Status: jsii.String("Enabled"), Prefix: jsii.String("v1/"),
			TagFilters:  []any{&awss3.CfnBucket_TagFilterProperty{Key: jsii.String(settings.ColdTag), Value: jsii.String(settings.ColdValue)}},
			Transitions: []any{&awss3.CfnBucket_TransitionProperty{StorageClass: jsii.String(settings.ColdClass), TransitionInDays: jsii.Number(0)}},
		})
	}
	props := &awss3.CfnBucketProps{
		BucketName: jsii.String(s.Bucket), BucketEncryption: encryption(), PublicAccessBlockConfiguration: private(), OwnershipControls: owner(),
		VersioningConfiguration: versioned(), LoggingConfiguration: logging(logs, s.Bucket+"/"),
		ObjectLockEnabled: jsii.Bool(true),
		ObjectLockConfiguration: &awss3.CfnBucket_ObjectLockConfigurationProperty{
			ObjectLockEnabled: jsii.String("Enabled"),
			Rule: &awss3.CfnBucket_ObjectLockRuleProperty{DefaultRetention: &awss3.CfnBucket_DefaultRetentionProperty{
				Mode: jsii.String(s.LockMode), Days: jsii.Number(float64(s.LockDays)),
			}},
		},
		LifecycleConfiguration: rules(rule...),
		NotificationConfiguration: &awss3.CfnBucket_NotificationConfigurationProperty{
			EventBridgeConfiguration: &awss3.CfnBucket_EventBridgeConfigurationProperty{EventBridgeEnabled: jsii.Bool(true)},
		},
	}
	var role awsiam.CfnRole
	if s.Replica != nil && !s.Second {
		role = b.replicationRole(st)
		props.ReplicationConfiguration = b.replication()
	}
	bucket := awss3.NewCfnBucket(st, jsii.String("Repository"), props)
	if role != nil {
		bucket.AddResourceDependency(role, nil)
	}
	keep(bucket)
	return bucket
}

// noncurrentDays is how long old versions stay: twice the time in which the function verify reads all bytes again.
func noncurrentDays(s *settings.Settings) int {
	return max(2*s.RereadDays(), 2*s.VerifyDays(), s.LockDays+2)
}

func (b *builder) replicationRole(st awscdk.Stack) awsiam.CfnRole {
	role := awsiam.NewCfnRole(st, jsii.String("Replicate"), &awsiam.CfnRoleProps{
		RoleName: jsii.String(settings.ReplicaRole), Path: jsii.String("/holdfast/"),
		Description:              jsii.String("S3 copies objects of the repository to the second region"),
		AssumeRolePolicyDocument: b.document(rights.TrustPlain("s3.amazonaws.com")),
		Policies:                 []any{b.inline("replicate", rights.Replicate(b.s))},
	})
	patterns(role, rights.Replicate(b.s))
	keep(role)
	return role
}

func (b *builder) inline(name string, d rights.Document) *awsiam.CfnRole_PolicyProperty {
	return &awsiam.CfnRole_PolicyProperty{PolicyName: jsii.String(name), PolicyDocument: b.document(d)}
}

// replication copies every new object. Delete markers stay: what is deleted here must not be deleted there.
func (b *builder) replication() *awss3.CfnBucket_ReplicationConfigurationProperty {
	s := b.s
	to := &awss3.CfnBucket_ReplicationDestinationProperty{
		Bucket: jsii.String(s.BucketARN(s.Replica.Bucket)), StorageClass: jsii.String("STANDARD_IA"),
	}
	if s.Replica.Account != s.Account {
		to.Account = jsii.String(s.Replica.Account)
		to.AccessControlTranslation = &awss3.CfnBucket_AccessControlTranslationProperty{Owner: jsii.String("Destination")}
	}
	return &awss3.CfnBucket_ReplicationConfigurationProperty{
		Role: jsii.String(s.RoleARN("/holdfast/", settings.ReplicaRole)),
		Rules: []any{&awss3.CfnBucket_ReplicationRuleProperty{
			Id: jsii.String("second-region"), Status: jsii.String("Enabled"), Priority: jsii.Number(1),
			Filter:                  &awss3.CfnBucket_ReplicationRuleFilterProperty{Prefix: jsii.String("v1/")},
			DeleteMarkerReplication: &awss3.CfnBucket_DeleteMarkerReplicationProperty{Status: jsii.String("Disabled")},
			Destination:             to,
		}},
	}
}

// stateBucket has the control plane's state, which can be computed again, and the policy, which can be uploaded again.
// Old versions of the policy say who decided what when.
func (b *builder) stateBucket(st awscdk.Stack, logs string) awss3.CfnBucket {
	bucket := awss3.NewCfnBucket(st, jsii.String("State"), &awss3.CfnBucketProps{
		BucketName: jsii.String(b.s.StateBucket()), BucketEncryption: encryption(), PublicAccessBlockConfiguration: private(), OwnershipControls: owner(),
		VersioningConfiguration: versioned(), LoggingConfiguration: logging(logs, "state/"),
		LifecycleConfiguration: rules(abortUploads(), &awss3.CfnBucket_RuleProperty{
			Id: jsii.String("expire-old-state"), Status: jsii.String("Enabled"),
			NoncurrentVersionExpiration: &awss3.CfnBucket_NoncurrentVersionExpirationProperty{
				NoncurrentDays: jsii.Number(90), NewerNoncurrentVersions: jsii.Number(10),
			},
		}),
	})
	keep(bucket)
	b.guard(st, "StatePolicy", bucket, rights.StateBucket(b.s))
	return bucket
}

func (b *builder) guard(st awscdk.Stack, id string, bucket awss3.CfnBucket, d rights.Document) {
	// Named by text, not by reference: so that the policy can be adopted by its bucket's name.
	policy := awss3.NewCfnBucketPolicy(st, jsii.String(id), &awss3.CfnBucketPolicyProps{Bucket: bucket.BucketName(), PolicyDocument: b.document(d)})
	policy.AddResourceDependency(bucket, nil)
	keep(policy)
}

// key makes the key that wraps data keys, unless an earlier deployment left one, which then keeps its policy.
func (b *builder) key(st awscdk.Stack) {
	target := jsii.String(b.s.Key)
	if b.s.Key == "" {
		key := awskms.NewCfnKey(st, jsii.String("Key"), &awskms.CfnKeyProps{
			Description:       jsii.String("Holdfast: wraps data keys of backups. Without it, and without another recipient's key, they can't be read"),
			EnableKeyRotation: jsii.Bool(true), PendingWindowInDays: jsii.Number(30), KeyPolicy: b.document(rights.Key(b.s)),
		})
		keep(key)
		target = key.AttrArn()
		awscdk.NewCfnOutput(st, jsii.String("KeyArn"), &awscdk.CfnOutputProps{
			Value: target, Description: jsii.String("add it to repository.recipients of the policy; needed as -c key=… if this stack is ever made again"),
		})
	}
	alias := awskms.NewCfnAlias(st, jsii.String("KeyAlias"), &awskms.CfnAliasProps{AliasName: jsii.String(settings.KeyAlias), TargetKeyId: target})
	keep(alias)
}

// agents makes what hosts and restorers become. Roles for machines on EC2 are made per host, with the same policies and
// a tag: an instance's session has the tags of its role and no others.
func (b *builder) agents(st awscdk.Stack) {
	s := b.s
	b.managed(st, "Capture", "holdfast-capture", "backs up the host that the tag "+settings.HostTag+" names", rights.Capture(s, settings.HostTag))
	b.managed(st, "RestoreHost", "holdfast-restore", "restores the host that the tag "+settings.HostTag+" names", rights.Restore(s, settings.HostTag))
	restore := awsiam.NewCfnRole(st, jsii.String("RestoreRole"), &awsiam.CfnRoleProps{
		RoleName: jsii.String(settings.RestoreRole), Path: jsii.String(settings.RestorePath), MaxSessionDuration: jsii.Number(12 * 3600),
		Description:              jsii.String("reads and decrypts the backups of one host, which a tag of the session names"),
		AssumeRolePolicyDocument: b.document(rights.TrustRestorers(s)),
		Policies:                 []any{b.inline("restore", rights.Restore(s, settings.HostTag))},
	})
	patterns(restore, rights.Restore(s, settings.HostTag))
	if s.TrustAnchor == "" {
		return
	}
	capture := awsiam.NewCfnRole(st, jsii.String("CaptureRole"), &awsiam.CfnRoleProps{
		RoleName: jsii.String("holdfast-capture-certificate"), Path: jsii.String(settings.CapturePath),
		Description:              jsii.String("backs up the host that the common name of its certificate names"),
		AssumeRolePolicyDocument: b.document(rights.TrustHosts(s.TrustAnchor)),
		Policies:                 []any{b.inline("capture", rights.Capture(s, settings.CertificateTag))},
	})
	patterns(capture, rights.Capture(s, settings.CertificateTag))
	awsrolesanywhere.NewCfnProfile(st, jsii.String("Profile"), &awsrolesanywhere.CfnProfileProps{
		Name: jsii.String("holdfast-capture"), Enabled: jsii.Bool(true), DurationSeconds: jsii.Number(3600),
		RoleArns: &[]any{capture.AttrArn()},
	})
}

func (b *builder) managed(st awscdk.Stack, id, name, description string, d rights.Document) {
	p := awsiam.NewCfnManagedPolicy(st, jsii.String(id), &awsiam.CfnManagedPolicyProps{
		ManagedPolicyName: jsii.String(name), Description: jsii.String(description), PolicyDocument: b.document(d),
	})
	patterns(p, d)
}
