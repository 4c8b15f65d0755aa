// Package control has the documents that the control plane keeps in its state bucket, and their keys. They are written
// through package statestore and can all be rebuilt: from the policy, the repository and what agents report next.
package control

import "github.com/btcdecoded/holdfast/shared/snapshot"

// Keys of single documents.
const (
	PolicyKey       = "config/policy.yaml" // the policy; only the deployer may write it
	AlertsKey       = "alerts.json"
	VerifyCursorKey = "verify/cursor.json"
)

// Prefixes of keys.
const (
	JobsPrefix     = "jobs/"
	SourcesPrefix  = "sources/"
	FreezePrefix   = "freeze/"
	RestoresPrefix = "restores/"
)

// JobsKey is the key of a host's [HostJobs].
func JobsKey(host string) string { return JobsPrefix + host + ".json" }

// FreezeKey is the key of the document that stops removals of a source.
func FreezeKey(s snapshot.Source) string { return FreezePrefix + s.Host + "/" + s.Name + ".json" }

// RestoreKey is the key of a restore.
func RestoreKey(id string) string { return RestoresPrefix + id + ".json" }
