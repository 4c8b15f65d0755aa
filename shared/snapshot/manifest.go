package snapshot

import "time"

// SnapshotType says what a snapshot may reference.
type SnapshotType string //nolint:revive // Type is that of tree entries

// The types of snapshots.
const (
	Full         SnapshotType = "full"
	Differential SnapshotType = "differential"
	Incremental  SnapshotType = "incremental"
)

// Manifest is the document whose presence makes a snapshot exist. JSON members as in docs/format.md, "Manifest".
type Manifest struct {
	Format     int          `json:"format"`
	Repository string       `json:"repository"`
	Host       string       `json:"host"`
	Source     string       `json:"source"`
	Kind       string       `json:"kind"`
	Sequence   uint64       `json:"sequence"`
	Previous   string       `json:"previous"`
	Type       SnapshotType `json:"type"`
	Parent     uint64       `json:"parent"`
	Chain      string       `json:"chain"`
	ChainStart uint64       `json:"chain_start"`
	Started    time.Time    `json:"started"`
	Finished   time.Time    `json:"finished"`
	Tool       string       `json:"tool"`
	Keys       []Key        `json:"keys"`
	Lists      []List       `json:"lists"`
	Without    [][2]uint64  `json:"without,omitempty"`
	NextPack   uint64       `json:"next_pack"`
	Root       JSONRef      `json:"root"`
	Report     *JSONRef     `json:"report,omitempty"`
	Counts     Counts       `json:"counts"`
	Partial    bool         `json:"partial"`
	Unfinished bool         `json:"unfinished,omitempty"` // stored while its run was still at work; Partial then
	Tags       []string     `json:"tags,omitempty"`
	Log        *LogPlace    `json:"log,omitempty"`      // of a continuous source: what of its log the snapshot holds
	Postgres   *Postgres    `json:"postgres,omitempty"` // of a physical snapshot of PostgreSQL
}

// Key is a data key with its wrapped entries.
type Key struct {
	Key     string    `json:"key"` // key id, hex
	Wrapped []Wrapped `json:"wrapped"`
}

// Wrapped is a data key sealed for one recipient.
type Wrapped struct {
	Type      string `json:"type"` // "age", "kms"; entries of others are for newer programs
	Recipient string `json:"recipient"`
	Wrapped   []byte `json:"wrapped"` // base64 in JSON
}

// List names a pack list.
type List struct {
	List  string `json:"list"`  // hex SHA-256
	Size  int64  `json:"size"`  // bytes of the list object
	Packs int    `json:"packs"` // packs listed
	Bytes int64  `json:"bytes"` // sum of the packs' sizes
}

// Counts is what a backup saw and did.
type Counts struct {
	Files         uint64 `json:"files"`
	Directories   uint64 `json:"directories"`
	Others        uint64 `json:"others"`
	Bytes         uint64 `json:"bytes"` // content of all files, holes included
	NewFiles      uint64 `json:"new_files"`
	ChangedFiles  uint64 `json:"changed_files"`
	ReadBytes     uint64 `json:"read_bytes"`
	AddedBytes    uint64 `json:"added_bytes"` // stored in new packs
	AddedPacks    uint64 `json:"added_packs"`
	Errors        uint64 `json:"errors"`
	NotConsistent uint64 `json:"not_consistent"`
	LiveBytes     uint64 `json:"live_bytes,omitempty"` // sealed bytes of the chunks that the tree leads to; 0: not known
	PackBytes     uint64 `json:"pack_bytes,omitempty"` // bytes of the packs that the snapshot uses
}

// JSONRef is a [Ref] as manifests write it.
type JSONRef struct {
	Pack   uint64 `json:"pack"`
	Offset uint32 `json:"offset"`
	Sealed uint32 `json:"sealed"`
	Plain  uint32 `json:"plain"`
	ID     string `json:"id"` // hex
}

// Problem is one thing that a backup could not capture as it should; sealed in the report chunk.
type Problem struct {
	Path      []byte `json:"path,omitempty"` // base64 in JSON
	Operation string `json:"operation"`
	Error     string `json:"error"`
}
