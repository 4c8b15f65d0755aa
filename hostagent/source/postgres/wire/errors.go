package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	codeConnection       = "08" // class
	codeAuthorization    = "28000"
	codePassword         = "28P01"
	codeDatabase         = "3D000"
	codePrivilege        = "42501"
	codeUndefined        = "42704"
	codeDuplicate        = "42710"
	codeTooMany          = "53300"
	codeDiskFull         = "53100"
	codeLimit            = "53400"
	codeState            = "55000"
	codeInUse            = "55006"
	codeShutdown         = "57P01"
	codeCrash            = "57P02"
	codeNotNow           = "57P03"
	codeUndefinedFile    = "58P01"
	codeIO               = "58030"
	codeCorrupted        = "XX001"
	codeUnknownParameter = "42704"
)

// Error is what went wrong between this program and a server.
type Error struct {
	Op   string // "connect", "create slot x"
	Code string // SQLSTATE, where the server has given one
	Err  error  // what the server said; never with a secret

	hint string
	late bool // it came in the middle of a stream
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what a person can do; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Explain makes an error of pgconn one that says what a person can do. Op is what was tried.
func Explain(op string, err error) error { return explain(op, err) }

// explain makes an *Error of any error; one that is already stays as it is.
func explain(op string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	e := &Error{Op: op, Err: err}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		e.Code = server.Code
		e.Err = serverError{server}
		e.hint = hintOf(server)
		return e
	}
	var connecting *pgconn.ConnectError
	if errors.As(err, &connecting) {
		e.Err = unwrapped(connecting)
	}
	e.hint = networkHint(err)
	return e
}

// serverError prints what a server said without what is of no use to a reader.
type serverError struct{ *pgconn.PgError }

func (e serverError) Error() string {
	text := "the server says: " + e.Message
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e serverError) Unwrap() error { return e.PgError }

// unwrapped is what a failed connection says, with the address that was tried, on one line.
func unwrapped(err *pgconn.ConnectError) error {
	inner := err.Unwrap()
	if joined, ok := inner.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
		inner = joined.Unwrap()[0] // with the others it failed in the same way, or worse
	}
	return oneLine{inner}
}

type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLine) Unwrap() error { return e.error }

// hintOf says what can be done about an error of the server. Its text may be in any language: only the code is looked at.
func hintOf(e *pgconn.PgError) string {
	switch e.Code {
	case codeAuthorization:
		return "the role must exist, and pg_hba.conf needs a line for it: with the database `replication` for base backups and WAL, " +
			"such as `host replication name 127.0.0.1/32 scram-sha-256`, for which the role needs REPLICATION too, and one with `all` for everything else; then `SELECT pg_reload_conf()`"
	case codePassword:
		return "look whether the role exists and its password in ~/.pgpass, the service file or PGPASSWORD is the right one; in .pgpass the database of such a line is `replication` or `*`"
	case codeDatabase:
		return "name another database: dbname= in the service file"
	case codePrivilege:
		return "the role needs more rights: ALTER ROLE name REPLICATION for base backups and WAL, GRANT pg_read_all_data TO name for dumps, GRANT pg_read_all_settings TO name to see settings"
	case codeTooMany:
		return "no walsender or connection is free: raise max_wal_senders (a backup takes one, the stream of WAL another) or max_connections, and restart the server"
	case codeLimit:
		return "raise max_replication_slots and restart the server, or drop a slot that nobody needs (SELECT slot_name, active FROM pg_replication_slots)"
	case codeInUse:
		return "something else streams from this slot, or did a moment ago: SELECT slot_name, active_pid FROM pg_replication_slots"
	case codeState:
		return "the server must run with wal_level replica or logical and max_wal_senders above 0 (a change needs a restart); a slot that is lost must be made anew"
	case codeNotNow, codeShutdown, codeCrash:
		return "the server is starting or stopping: try again when it runs"
	case codeUndefinedFile:
		return "the server has removed WAL that was still needed: keep more of it (wal_keep_size), or a slot"
	case codeDiskFull:
		return "the server's disk is full"
	case codeIO:
		return "the server's disk has errors: look into its log at once"
	case codeCorrupted:
		return "pages of the database are damaged: look into the server's log, and keep the older snapshots"
	}
	return ""
}

// networkHint says what can be done about a connection that does not come about, or breaks.
func networkHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !pgconn.Timeout(err):
		return ""
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &record):
		return "look at sslmode and sslrootcert in the service file, and at the server's certificate"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return "look whether the server runs, and at host and port in the service file"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection ended: the server was stopped, or the network was cut; its log tells"
	case pgconn.Timeout(err), os.IsTimeout(err):
		return "the server did not answer in time"
	}
	return ""
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Code != "" {
		return e.Code
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.Code
	}
	return ""
}

// IsMissing reports whether what was named (a slot, a history file) does not exist on the server.
func IsMissing(err error) bool { c := codeOf(err); return c == codeUndefined || c == codeUndefinedFile }

// IsUnknownSetting reports whether the server's version has no such setting.
func IsUnknownSetting(err error) bool { return codeOf(err) == codeUnknownParameter }

// IsForbidden reports whether the role lacks a right.
func IsForbidden(err error) bool { return codeOf(err) == codePrivilege }

// IsExists reports whether there is a slot of this name already.
func IsExists(err error) bool { return codeOf(err) == codeDuplicate }

// IsInUse reports whether somebody else uses the slot.
func IsInUse(err error) bool { return codeOf(err) == codeInUse }

// IsLimit reports whether the server has no slot left for a new one.
func IsLimit(err error) bool { return codeOf(err) == codeLimit }

// IsState reports whether the server is not in a state for it: it keeps too little WAL (wal_level), or a slot is lost.
func IsState(err error) bool { return codeOf(err) == codeState }

// IsRemoved reports whether the WAL that was asked for is not there any more, or the slot that should have kept it is lost:
// said when the stream begins, or in its midst.
func IsRemoved(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.late && (e.Code == codeUndefinedFile || e.Code == codeState)
}

// IsTransient reports whether the same may work a little later: the network failed, or the server was starting, stopping
// or full.
func IsTransient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	switch code := codeOf(err); code {
	case "":
	case codeShutdown, codeCrash, codeNotNow, codeTooMany, codeInUse:
		return true
	default:
		return strings.HasPrefix(code, codeConnection)
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, errEnded)
}

// errEnded says that the server ended a stream because it stops.
var errEnded = errors.New("the server has ended the stream: it is being stopped")

// broken is an answer that makes no sense.
func broken(op, format string, args ...any) error {
	return &Error{Op: op, Err: fmt.Errorf(format, args...), hint: "this may be another program than PostgreSQL, or a version that is not known yet"}
}
