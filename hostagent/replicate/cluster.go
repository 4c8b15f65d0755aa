package replicate

// Cluster is what the status tells of a cluster of PostgreSQL. LSNs are written as PostgreSQL does.
type Cluster struct {
	System   string `json:"system,omitempty"` // identifier
	Version  string `json:"version,omitempty"`
	Timeline uint32 `json:"timeline,omitempty"`
	Standby  bool   `json:"standby,omitempty"`

	Durable string `json:"durable_lsn,omitempty"` // all WAL before it is durable in the repository
	Sent    string `json:"sent_lsn,omitempty"`    // all WAL before it was received
	End     string `json:"end_lsn,omitempty"`     // of the server's WAL, as it said last

	Slot  *Slot    `json:"slot,omitempty"`
	Notes []string `json:"notes,omitempty"` // what should be set otherwise
}

// Slot is the replication slot that keeps WAL until it is durable in the repository, as the server tells of it.
type Slot struct {
	Name     string  `json:"name"`
	Active   bool    `json:"active"`
	Restart  string  `json:"restart_lsn,omitempty"` // all WAL from there on is kept
	Retained uint64  `json:"retained_bytes"`        // that it keeps
	State    string  `json:"wal_status,omitempty"`  // reserved, extended, unreserved, lost
	Safe     *int64  `json:"safe_wal_size,omitempty"`
	Limit    *uint64 `json:"max_slot_wal_keep_size,omitempty"` // bytes; absent: there is none
	Free     *uint64 `json:"disk_free_bytes,omitempty"`        // where the server's WAL is; absent: it is not on this host
	Disk     *uint64 `json:"disk_bytes,omitempty"`
}
