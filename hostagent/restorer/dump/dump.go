// Package dump restores dumps of PostgreSQL databases: [Beside] makes a new database, [InPlace] puts new ones where old ones
// are, [Scratch] fills a server that is thrown away, [Globals] makes roles that are missing.
//
// A restore in place, and what a crash leaves:
//
//  1. What restores before this one left unfinished is dropped. A crash leaves some of it.
//  2. Each dump is restored into a new database of another name, with a comment that says whose it is. Production goes on.
//     A crash leaves new databases, which step 1 of the next restore drops.
//  3. The new databases are proven.
//  4. The application is stopped.
//  5. Old and new databases change names, all in one transaction; the sessions of the old ones are ended, and new ones wait
//     for it. A crash leaves either all old databases in their places, or all new ones.
//  6. The application is started, and asked whether it is well. Where it is not, all change their names back, and the new
//     ones are dropped.
//
// The old databases stay, as safety copies under other names, until somebody drops them.
package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
	"github.com/btcdecoded/holdfast/shared/postgres/logical"
)

// Dump is one dump to restore. Its Bytes are 0 where its size is not known.
type Dump struct {
	logical.Database
	Reader int // major version of pg_restore that reads it, or any later
	// Write writes the dump to w. It may be called again, and ends without an error when w takes no more.
	Write func(ctx context.Context, w io.Writer) error
}

// Options are how to restore.
type Options struct {
	Connection string // of programs: the name of a service, or "host=… user=…" without a password
	// Connect connects to a database of the server.
	Connect  func(ctx context.Context, database string) (*pgconn.PgConn, error)
	Bin      string // directory of PostgreSQL's programs; empty: they are looked for
	Jobs     int    // of pg_restore; more than 1 needs room for the dump in Temp
	Temp     string // directory; empty: the system's own place
	NoOwner  bool   // everything belongs to who restores it, and nobody is granted anything
	Select   *Selection
	Source   string // named in comments
	Progress Progress
	Began    func(step string)
	Note     func(text string)
	Now      func() time.Time

	// Prove judges a new database: what it is called where it was dumped, and here. Nil: nobody does.
	Prove func(ctx context.Context, database, here string) error
	// Application is who uses the databases; in place it is stopped for the exchange of names.
	steps.Application

	// fault is asked before each step of tests.
	fault func(step string) error
}

// Progress is told how many bytes of dumps were read.
type Progress interface {
	Add(files, bytes, readBytes uint64)
}

// The steps, as results and errors name them.
const (
	StepPrepare  = "prepare"
	StepFetch    = "fetch"
	StepRestore  = "restore"
	StepAnalyze  = "analyze"
	StepProve    = "prove"
	StepStop     = "stop"
	StepExchange = "exchange"
	StepStart    = "start"
	StepHealth   = "health"
)

// Restored is one database that was restored.
type Restored struct {
	Database string // where it was dumped
	Name     string // here
	Safety   string // what the database is called that had the name; empty: there was none
}

// Result is what a restore did.
type Result struct {
	Databases []Restored
	Bytes     uint64 // of dumps
	Steps     []steps.Step
	Warnings  []string
	Dropped   []string // databases that a restore had left which did not come to its end
}

// StepError says where a restore failed. Unless Back or Start is set, all is as it was. Safety is what the old databases are
// called where they could not be put back.
type StepError struct {
	steps.Failure
	Database string // empty: all
	hint     string
}

// failed is how a step ended everything, with one database or, where that is empty, with all.
func failed(step, database string, err error) *StepError {
	return &StepError{Failure: steps.Failure{Step: step, Err: err}, Database: database}
}

func (e *StepError) Error() string {
	where := e.Step
	if e.Database != "" {
		where += " database " + e.Database
	}
	text := fmt.Sprintf("%s: %v", where, e.Err)
	if e.Back != nil {
		text += fmt.Sprintf("; and the old databases could not be put back: %v", e.Back)
	}
	if e.Start != nil {
		text += fmt.Sprintf("; and what was stopped could not be started: %v", e.Start)
	}
	return text
}

// Unwrap returns what all restores tell.
func (e *StepError) Unwrap() error { return &e.Failure }

// Hint says what the user can do; it may be empty.
func (e *StepError) Hint() string {
	var with interface{ Hint() string }
	if e.hint == "" && errors.As(e.Err, &with) {
		return with.Hint()
	}
	return e.hint
}

// What a restore refuses.
var (
	ErrExists = errors.New("the database exists")
	ErrBusy   = errors.New("another restore of dumps is at work on this server")
	ErrRights = errors.New("the role may not")
)

// ErrSize says that a dump is shorter or longer than its snapshot says.
var ErrSize = errors.New("it is not whole")

// Beside restores one dump into a new database of the name, which must not be there. Errors: *StepError.
func Beside(ctx context.Context, d Dump, name string, o Options) (*Result, error) {
	r, err := begin(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close(ctx)
	return r.result, r.beside(ctx, d, name)
}

// Free reports whether a database of the name could be made by [Beside]: for those to whom making the dump costs much.
// Errors: *StepError.
func Free(ctx context.Context, name string, o Options) error {
	r, err := begin(ctx, o)
	if err != nil {
		return err
	}
	defer r.close(ctx)
	return r.free(ctx, name)
}

// InPlace restores dumps over the databases that they are of, which need not be there. Errors: *StepError.
func InPlace(ctx context.Context, dumps []Dump, o Options) (*Result, error) {
	r, err := begin(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close(ctx)
	return r.result, r.inPlace(ctx, dumps)
}

// Scratch restores dumps under their own names into a server that nobody needs, and proves them. Errors: *StepError.
func Scratch(ctx context.Context, dumps []Dump, o Options) (*Result, error) {
	r, err := begin(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close(ctx)
	r.apart = true
	for _, d := range dumps {
		if err := r.build(ctx, d, d.Name, d.Name); err != nil {
			return r.result, err
		}
		if err := r.prove(ctx, d.Name, d.Name); err != nil {
			return r.result, err
		}
		r.result.Databases = append(r.result.Databases, Restored{Database: d.Name, Name: d.Name})
	}
	return r.result, nil
}
