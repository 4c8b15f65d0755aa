package environment

import "time"

// Cloud is what every function is told.
type Cloud struct {
	State      string `env:"HOLDFAST_STATE_BUCKET"`        // name of the state bucket
	Repository string `env:"HOLDFAST_REPOSITORY,optional"` // address of the repository; empty: that of the policy
	Trust      string `env:"HOLDFAST_TRUST_PARAMETER"`     // SSM parameter: identity text without a secret key
	Signer     string `env:"HOLDFAST_SIGNER_PARAMETER,optional"`
	Endpoint   string `env:"HOLDFAST_STATE_ENDPOINT,optional"` // URL of a server that is not AWS's, for tests
	LogLevel   string `env:"HOLDFAST_LOG_LEVEL,optional"`      // debug, info, warn, error; empty: info
}

// Coordinate is the environment of the function coordinate.
type Coordinate struct {
	Cloud
	Queue      string        `env:"HOLDFAST_COORDINATE_QUEUE"`        // URL of its own queue, for shards
	ShardHosts int           `env:"HOLDFAST_SHARD_HOSTS,optional"`    // most hosts in one invocation; 0: 500
	Lost       time.Duration `env:"HOLDFAST_LOST_AFTER,optional"`     // silence after which an accepted job is lost; 0: 20m
	Attempts   int           `env:"HOLDFAST_ATTEMPTS,optional"`       // at one run; 0: 4
	QueueBase  string        `env:"HOLDFAST_QUEUE_URL_BASE,optional"` // URL below which the hosts' queues are; empty: asked for
}

// Verify is the environment of the function verify, in the region of the repository or in that of its replica.
type Verify struct {
	Cloud
	Queue    string        `env:"HOLDFAST_VERIFY_QUEUE,optional"`       // URL of its own queue, for ranges of large sources; empty: one invocation reads all
	Copy     string        `env:"HOLDFAST_VERIFY_COPY,optional"`        // address of the replica, if that is what Cloud.Repository is
	Bytes    int           `env:"HOLDFAST_VERIFY_BYTES,optional"`       // most bytes of packs in 30 days; 0: what the time allows
	RunBytes int           `env:"HOLDFAST_VERIFY_RUN_BYTES,optional"`   // the same in one run
	Period   time.Duration `env:"HOLDFAST_VERIFY_PERIOD,optional"`      // in which all bytes are read again; 0: 30 days
	Workers  int           `env:"HOLDFAST_VERIFY_WORKERS,optional"`     // packs read at the same time; 0: 4
	Range    int           `env:"HOLDFAST_VERIFY_RANGE_BYTES,optional"` // more than this left of a source is read in ranges of about so much; 0: 64 GiB
}

// Lifecycle is the environment of the function lifecycle.
type Lifecycle struct {
	Cloud
	Queue   string        `env:"HOLDFAST_LIFECYCLE_QUEUE,optional"` // URL of its own queue, for shards; empty: one invocation has all
	Shard   int           `env:"HOLDFAST_SHARD_SOURCES,optional"`   // most sources in one invocation; 0: 100
	Lock    string        `env:"HOLDFAST_LOCK_MODE,optional"`       // GOVERNANCE or COMPLIANCE; empty: the bucket has no Object Lock
	Default time.Duration `env:"HOLDFAST_LOCK_DEFAULT,optional"`    // the bucket's default retention; 0: 14 days
	Every   time.Duration `env:"HOLDFAST_LIFECYCLE_EVERY,optional"` // between two passes over a source; 0: 20h
	Deletes int           `env:"HOLDFAST_MOST_DELETES,optional"`    // objects removed in one run; 0: what the time allows
	Cold    time.Duration `env:"HOLDFAST_COLD_AFTER,optional"`      // age at which proven, closed chains are tagged for a colder class; 0: never

	// In the region of the replica: what it is the replica of. Cloud.Repository is the replica, Cloud.State its own.
	Primary       string `env:"HOLDFAST_PRIMARY,optional"`              // address of the first region's repository; empty: this is the first region
	PrimaryState  string `env:"HOLDFAST_PRIMARY_STATE_BUCKET,optional"` // where policy and freezes are
	PrimaryRegion string `env:"HOLDFAST_PRIMARY_REGION,optional"`       // where it is
}

// Restore is the environment of the function restore.
type Restore struct {
	Cloud
	QueueBase string `env:"HOLDFAST_QUEUE_URL_BASE,optional"` // URL below which the hosts' queues are; empty: asked for
}
