package objstore

// Class is what reading an object costs, as far as a listing tells of its storage class.
type Class uint8

// The classes.
const (
	Warm   Class = iota // reading costs a request: S3 Standard and its infrequent-access classes; where nothing is told
	Cool                // it is read at once, and every byte is paid for: S3 Glacier Instant Retrieval
	Frozen              // it must be thawed first, which takes hours: S3 Glacier Flexible Retrieval
	Deep                // the same, and it takes longer: S3 Glacier Deep Archive
)

// Archived reports whether an object must be thawed before it can be read, see [Thawer].
func (c Class) Archived() bool { return c == Frozen || c == Deep }
