// Package postgres restores PostgreSQL clusters to a moment: the data directory from a base backup, and what was committed
// after it by recovery, which a server of the cluster's own version does. [ToDir] makes a data directory where none is,
// [InPlace] exchanges the one that is there, [Scratch] makes one to look at and removes it. [Fetch] is what that server calls
// for its WAL.
//
// # What it promises
//
// The target is checked against what is known before anything is touched. What comes out has reached the target, or the
// restore fails and says where recovery stopped and why: the server never decides by itself that it has come far enough.
//
//   - It recovers as a standby (standby.signal): a standby waits where its WAL ends, it does not promote. With
//     recovery.signal any failure of restore_command that exits with 1 to 125, or a torn segment, would end recovery silently.
//   - It pauses at its target. Then it is asked what it has replayed; only then it is promoted. A server that can't be read at
//     its target, because a transaction with many subtransactions is under way there, promotes itself: at the target and nowhere
//     else, which is proven before anybody gets it.
//   - Segments are assembled from records whose hashes and order are proven, and whose WAL is proven to go on where that of
//     the record before ended. All that is wrong with one, or with the store, ends the server and is told by name.
//   - Where the log ends before the target does, the end is proven: the last record of WAL that is whole was replayed.
//
// Settings that must not be those of production are given on the server's command line: nothing is archived, nobody is
// followed, it is reached by a socket in a directory that nobody else can enter.
//
// # To a directory
//
// What a crash, or kill -9, leaves after each step; the same restore done again removes what it finds of that:
//
//	mark      a directory with nothing but "holdfast.recovery" in it
//	lay out   an incomplete data directory. PostgreSQL may refuse it or not, so "holdfast.recovery" tells that it is not done
//	recover   a data directory that only goes on as a standby, with a restore_command that finds no WAL: whoever starts
//	          it gets an error, never a cluster that is short of the target. The server has ended with this program
//	promote   a cluster that has reached the target, with settings for a recovery in it that is over
//	finish    the settings are gone, what was written is synced, "holdfast.recovery" is removed: done
//
// # In place
//
// The same is done in a directory beside it (".NAME.holdfast-restore"), until the new cluster is proven and its server
// stopped. Then, with the application and the old server stopped by the stop hook:
//
//  1. mark: which directories are meant is written to a marker, and synced.
//  2. exchange: the old and the new one change places (RENAME_EXCHANGE, one atomic step).
//  3. keep: the old one gets its name as a safety copy, NAME.before-TIME.
//  4. start: the start hook runs, then the health check.
//  5. settle: marker and working directory are removed.
//
// A crash before 2 leaves all as it was; from 2 on the new one stands in its place and the old one is whole beside it;
// [Recover], with which the next restore begins, removes or names what is left. Where start or health fail the two change
// places again, and the new one is kept as NAME.failed-TIME. Tablespaces of the new cluster lie beside those of the old one,
// which keeps its own: nothing of the two is ever mixed.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// What ends a restore; match with errors.Is.
var (
	// ErrExists says that there is something at the target.
	ErrExists = errors.New("it exists and is not empty")
	// ErrInUse says that a server runs on the data directory.
	ErrInUse = errors.New("a server runs on it")
	// ErrBusy says that another restore to the same place is running.
	ErrBusy = inplace.ErrBusy
	// ErrMoved says that somebody changed the place while a restore was under way or after it died.
	ErrMoved = inplace.ErrMoved
	// ErrIncomplete says that the snapshot has files that can't be restored.
	ErrIncomplete = errors.New("the base is not complete")
	// ErrShort says that recovery did not come to its target.
	ErrShort = errors.New("recovery did not reach its target")
	// ErrPlace says that a data directory can't be exchanged where it is.
	ErrPlace = errors.New("it can't be exchanged")
)

// Options say how to restore.
type Options struct {
	Target      Target
	Tablespaces map[string]string // where those go that were at a place
	Pause       bool              // the server stays, paused at the target, for people to look; not in place
	// Program finds postgres of a major version.
	Program func(ctx context.Context, major int) (string, error)
	// Fetch is the command that restore_command runs, to which the plan's path, %f and %p are added.
	Fetch []string
	// RunAs is the user as whom the server runs and whom the data directory belongs to; empty: as [pgserver.Choose] says.
	RunAs string
	// Superuser is a role of the cluster; empty: postgres, or another that is found.
	Superuser string
	// Settings are more settings of the server while it recovers.
	Settings []pgserver.Setting
	// Prove looks at the recovered cluster; an error ends the restore with all as it was. nil: nothing is proven.
	Prove    func(ctx context.Context, s *pgserver.Server) error
	Progress restorer.Progress // may be nil
	Temp     string            // as [restorer.Options] has it
	Now      func() time.Time  // nil: time.Now
	Began    func(step string) // is told which step begins; may be nil
	Phase    func(text string) // is told how far the recovery is; may be nil
	Note     func(text string) // is told what a person may want to know on the way; may be nil

	// Of a restore in place:

	// Application is who uses the cluster. Its Stop ends the old server as well, its Start begins the new one.
	steps.Application

	inPlace      bool
	spacesBelow  string // tablespaces go to directories of this one
	spacesBeside string // where its place is taken a tablespace goes beside it, with this suffix
	scratch      bool   // nobody keeps it: nothing is synced, the server is not stopped cleanly

	// fault is called at each step; an error stands for its failure. For tests.
	fault func(step string) error
	// plainRename does without RENAME_EXCHANGE. For tests.
	plainRename bool
}

// The steps of a restore, besides those that all have, as [steps.Step] and [StepError] name them.
const (
	StepLayOut  = "base"
	StepStartUp = "start server"
	StepRecover = "recovery"
	StepPromote = "promote"
	StepProve   = "checks"
	StepFinish  = "sync"
	StepInUse   = "look whether a server runs"
	StepSwap    = "swap"
)

// Reached is where a recovery has come.
type Reached struct {
	LSN      pg.LSN    // replayed
	Time     time.Time // of the last transaction that was replayed; zero: none was
	Timeline uint32    // that was recovered
	Now      uint32    // timeline of the new cluster; 0: it was not promoted
	Words    string    // of the server, such as "recovery stopping before commit of transaction 750, time …"
	LogEnd   bool      // it ended with the log, because nothing behind the target is in it
}

// Result is what a restore made.
type Result struct {
	Path        string // the data directory
	Reached     Reached
	Files       uint64 // of the base
	Bytes       uint64 // of the base
	Written     uint64 // of the base
	WAL         uint64 // bytes of the log that the server was given
	Tablespaces []Tablespace
	Account     pgserver.Account
	Socket      string // directory of the server that was left running; empty: none was
	Superuser   string // of that server
	Safety      string // what was there before; empty: nothing was
	Steps       []steps.Step
	Warnings    []string
	Settled     string // what an earlier restore to this place had left, in words; empty: nothing
}

// StepError says which step ended a restore and what became of the place.
type StepError = steps.Failure

func (o *Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

func (o *Options) faulty(step string) error {
	if o.fault == nil {
		return nil
	}
	return o.fault(step)
}

func (o *Options) note(format string, args ...any) {
	if o.Note != nil {
		o.Note(fmt.Sprintf(format, args...))
	}
}
