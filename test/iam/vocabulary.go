package iam

import (
	"fmt"
	"slices"
	"strings"
)

// actions are the actions that policies here may name, by service, as the Service Authorization Reference spells them.
// A new one is added here after a look at that reference: does it take resources, which keys does it know?
func actions() map[string][]string {
	return map[string][]string{
		"s3": {
			"AbortMultipartUpload", "BypassGovernanceRetention", "DeleteBucket", "DeleteObject", "DeleteObjectTagging", "DeleteObjectVersion",
			"DeleteObjectVersionTagging", "GetBucketVersioning", "GetObject", "GetObjectLegalHold", "GetObjectRetention", "GetObjectVersion",
			"GetObjectVersionAcl", "GetObjectVersionForReplication", "GetObjectVersionTagging", "GetReplicationConfiguration", "ListBucket",
			"ListBucketVersions", "PutObject", "PutObjectAcl", "PutObjectLegalHold", "PutObjectRetention", "PutObjectTagging", "PutObjectVersionAcl",
			"PutObjectVersionTagging", "ReplicateDelete", "ReplicateObject", "ReplicateTags", "RestoreObject",
		},
		"sqs":    {"ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl", "PurgeQueue", "ReceiveMessage", "SendMessage"},
		"events": {"PutEvents", "PutRule"},
		"kms": {
			"CancelKeyDeletion", "CreateAlias", "CreateGrant", "Decrypt", "DeleteAlias", "DescribeKey", "DisableKey", "EnableKey", "EnableKeyRotation",
			"Encrypt", "GenerateDataKey", "GetKeyPolicy", "GetKeyRotationStatus", "ListGrants", "ListKeyPolicies", "ListResourceTags", "PutKeyPolicy",
			"RevokeGrant", "ScheduleKeyDeletion", "TagResource", "UntagResource", "UpdateAlias", "UpdateKeyDescription",
		},
		"logs":   {"CreateLogStream", "PutLogEvents"},
		"lambda": {"InvokeFunction", "UpdateFunctionCode"},
		"sns":    {"ListSubscriptionsByTopic", "Publish"},
		"ssm":    {"GetParameter", "GetParameters", "PutParameter"},
		"sts":    {"AssumeRole", "SetSourceIdentity", "TagSession"},
	}
}

// keys are the condition keys that policies here may name. Global ones are in the IAM guide, "AWS global condition
// context keys", the others in the Service Authorization Reference.
func keys() []string {
	return []string{
		"aws:PrincipalAccount", "aws:PrincipalArn", "aws:SecureTransport", "aws:SourceAccount", "aws:SourceArn", "aws:TagKeys",
		"events:source", "events:detail-type",
		"kms:EncryptionContextKeys", "kms:ResourceAliases", "kms:ViaService",
		"s3:if-none-match", "s3:ObjectCreationOperation", "s3:object-lock-remaining-retention-days", "s3:object-lock-mode", "s3:prefix",
		"s3:x-amz-copy-source",
	}
}

// families are keys with a name of ours behind them.
func families() []string {
	return []string{"aws:PrincipalTag/", "aws:RequestTag/", "kms:EncryptionContext:", "s3:RequestObjectTag/"}
}

func checkAction(action string, allowed bool) error {
	service, name, found := strings.Cut(action, ":")
	known := actions()[service]
	switch {
	case !found || known == nil:
		return fmt.Errorf("action %q: the service is not known to the evaluator", action)
	case name == "*" && !allowed:
		return nil
	case strings.ContainsAny(name, "*?"):
		return fmt.Errorf("action %q: allowed by wildcard", action)
	case !slices.Contains(known, name):
		return fmt.Errorf("action %q is not known to the evaluator", action)
	}
	return nil
}

func checkKey(key string) error {
	if slices.Contains(keys(), key) {
		return nil
	}
	for _, f := range families() {
		if name, ok := strings.CutPrefix(key, f); ok && name != "" && !strings.ContainsAny(name, "${}, ") {
			return nil
		}
	}
	return fmt.Errorf("condition key %q is not known to the evaluator", key)
}
