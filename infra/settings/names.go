package settings

import "fmt"

// Paths of roles. Policies of buckets tell who is who by them, so that no statement has to name a role or a host.
const (
	AgentPath   = "/holdfast/agent/"
	CapturePath = "/holdfast/agent/capture/"
	RestorePath = "/holdfast/agent/restore/"
	ControlPath = "/holdfast/control/"
)

// HostTag is the tag of a role or session that says for which host it speaks.
const HostTag = "holdfast-host"

// CertificateTag is how IAM Roles Anywhere presents the common name of a host's certificate.
const CertificateTag = "x509Subject/CN"

// Names that do not depend on settings.
const (
	KeyAlias    = "alias/holdfast"
	TopicName   = "holdfast-alerts"
	ReplicaRole = "holdfast-replicate"
	RestoreRole = "holdfast-restore-host"
	// QueuePrefix begins the names of the control plane's own queues. It differs from that of hosts' queues, so that no
	// name of a host can be one of them.
	QueuePrefix     = "holdfastcontrol-"
	TrustParameter  = "/holdfast/trust"
	SignerParameter = "/holdfast/signer/" // and the verb
)

// StateBucket is the bucket of the control plane's state in this region.
func (s *Settings) StateBucket() string {
	return fmt.Sprintf("holdfast-state-%s-%s", s.Account, s.Region)
}

// LogBucket is the bucket of access logs in a region.
func LogBucket(account, region string) string {
	return fmt.Sprintf("holdfast-access-logs-%s-%s", account, region)
}

// ARN makes an ARN of this account and region; resource is all that comes after the account.
func (s *Settings) ARN(service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", s.Partition, service, s.Region, s.Account, resource)
}

// RoleARN is the ARN of a role of this account; path is one of the paths above.
func (s *Settings) RoleARN(path, name string) string {
	return fmt.Sprintf("arn:%s:iam::%s:role%s%s", s.Partition, s.Account, path, name)
}

// BucketARN is the ARN of a bucket.
func (s *Settings) BucketARN(bucket string) string {
	return fmt.Sprintf("arn:%s:s3:::%s", s.Partition, bucket)
}

// In returns the settings as seen from the replica's region: its account, region, bucket and key.
func (s *Settings) In(r *Replica) *Settings {
	at := *s
	at.Account, at.Region, at.Bucket, at.Address, at.Key, at.Second = r.Account, r.Region, r.Bucket, r.Address, r.Key, true
	return &at
}

// RoleName is the name of a function's role. Roles have no region, so that those of the second one have a suffix.
func (s *Settings) RoleName(verb string) string {
	if s.Second {
		return "holdfast-" + verb + "-replica"
	}
	return "holdfast-" + verb
}

// FunctionRole is the ARN of a function's role.
func (s *Settings) FunctionRole(verb string) string {
	return s.RoleARN(ControlPath, s.RoleName(verb))
}

// FunctionName is the name of a function.
func FunctionName(verb string) string { return "holdfast-" + verb }
