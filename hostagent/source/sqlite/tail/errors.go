package tail

import "fmt"

// State says why a database can't be followed.
type State string

// States.
const (
	Missing           State = "missing"
	Empty             State = "empty"              // no byte: a database without a table
	NotDatabase       State = "not-a-database"     // something else, or not a regular file
	Encrypted         State = "encrypted"          // no header, and no pattern in it
	Corrupt           State = "corrupt"            // the header, or frames of the log that should be good
	Unsupported       State = "unsupported"        // of a version that is not known
	RollbackMode      State = "rollback-mode"      // not in WAL mode: there is no log to follow
	LockedExclusively State = "locked-exclusively" // for rollback modes: somebody holds the lock that forbids reading
	Unreadable        State = "unreadable"         // permissions, or the disk
	Busy              State = "busy"               // no moment of rest was found; try again
)

// StateError tells that a database can't be followed, or not now.
type StateError struct {
	State State
	Path  string
	Hint  string // what the user can do
	Err   error  // may be nil
}

func (e *StateError) Error() string {
	text := fmt.Sprintf("SQLite database %s: %s", e.Path, e.State)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

func (e *StateError) Unwrap() error { return e.Err }

// Cause classifies a gap.
type Cause string

// Causes.
const (
	Deleted     Cause = "deleted"      // the database file is gone
	Replaced    Cause = "replaced"     // another file is in its place, or it was written to without its log
	PageSize    Cause = "page-size"    // pages have another size now
	JournalMode Cause = "journal-mode" // no longer in WAL mode
	Missed      Cause = "missed"       // commits are known to be missing
	Unproven    Cause = "unproven"     // commits may be missing
	Rewound     Cause = "rewound"      // what was read is not in the log any more: a power failure, or a copy put back
)

// GapError tells that the tail lost its place: commits were missed, or may have been. Nothing of the Poll that returns it
// counts, and all later ones return it too, until [Tail.Start].
type GapError struct {
	Cause  Cause
	Why    string
	Missed int // commits that are known to be missing; 0 if that is not known
}

func (e *GapError) Error() string { return "gap in the write-ahead log: " + e.Why }
