// Package approval has requests to restore that come over the queue, and decides whether one may run. Two approvers of
// the host's own policy file sign the same bytes, one who asks and one who approves, so that neither a single person
// nor a control plane in foreign hands can restore anything.
//
// [Encode] writes a request, [Sign] signs it, [Check] is what the agent asks before it runs one. [SignedBy] tells people
// who signed. The package does no I/O and is told the time; private keys come from its callers.
//
// A signature is that of `ssh-keygen -Y sign -n holdfast-restore`: what OpenSSH calls SSHSIG, so that keys in an agent or
// elsewhere can sign without this program. Keys are of Ed25519 or ECDSA on P-256; one that is elsewhere, as in KMS, signs by
// [SignBy]. Checking needs the public key of the policy and nobody else. Members of a request may be added; an agent that does not know one refuses
// the request.
package approval

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Version is the version of requests that this package reads and writes.
const Version = 1

// Limits of requests.
const (
	// MaxLife is how long a request may be valid: shorter than agents remember the ids of jobs, so that none runs twice.
	MaxLife = 7 * 24 * time.Hour
	// Skew is how far ahead the clock may be of who made the request.
	Skew = 5 * time.Minute
	// MaxRequest bounds a request in bytes.
	MaxRequest = 32 << 10
	maxPaths   = 200
	maxReason  = 500
)

// Approvals is how many different approvers must have signed.
const Approvals = 2

// Request asks for one restore.
type Request struct {
	Version  int       `json:"version"`
	ID       string    `json:"id"`               // 32 hexadecimal digits; that of the job which carries it
	Host     string    `json:"host"`             // on which it runs
	Source   string    `json:"source"`           // host/name in the repository; the host may be another one, which is lost
	Snapshot uint64    `json:"snapshot"`         // its number
	At       time.Time `json:"at,omitzero"`      // of a database: the snapshot and the log after it, up to then
	Paths    []string  `json:"paths,omitempty"`  // absolute paths in the snapshot; none: all of it
	Target   string    `json:"target,omitempty"` // absolute directory on the host; empty where InPlace
	InPlace  bool      `json:"in_place,omitempty"`
	Reason   string    `json:"reason,omitempty"` // for people
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"` // a restore that has not begun by then does not
}

// NewID returns a random id.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// Encode checks the request and returns the bytes that are signed.
func Encode(r *Request) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	if len(b) > MaxRequest {
		return nil, fmt.Errorf("encode request: %d bytes are more than %d", len(b), MaxRequest)
	}
	return append(b, '\n'), nil
}

// Decode reads a request strictly: whoever signs one must see all that is in it.
func Decode(b []byte) (*Request, error) {
	if len(b) > MaxRequest+1 {
		return nil, fmt.Errorf("decode request: %d bytes are more than %d", len(b), MaxRequest)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("decode request: not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	r := &Request{}
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode request: something follows it")
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	// One text for one request: a member given twice, or under another spelling, would show a person something else
	// than what the program reads.
	again, err := json.MarshalIndent(r, "", "  ")
	if err != nil || !bytes.Equal(append(again, '\n'), b) {
		return nil, errors.New("decode request: not written as this program writes it")
	}
	return r, nil
}

// From is the source in the repository.
func (r *Request) From() snapshot.Source {
	host, name, _ := strings.Cut(r.Source, "/")
	return snapshot.Source{Host: host, Name: name}
}

func (r *Request) check() error {
	if err := r.From().Check(); err != nil {
		return err
	}
	if err := (snapshot.Source{Host: r.Host, Name: "x"}).Check(); err != nil {
		return err
	}
	switch {
	case r.Version != Version:
		return fmt.Errorf("version %d is not known", r.Version)
	case !events.IsID(r.ID):
		return errors.New("id: want 32 lower-case hexadecimal digits")
	case r.Snapshot == 0:
		return errors.New("snapshot: want the number of one; what is the newest may change while people look at it")
	case len(r.Paths) > maxPaths:
		return fmt.Errorf("more than %d paths", maxPaths)
	case len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return fmt.Errorf("reason: want one line of at most %d bytes", maxReason)
	case r.InPlace == (r.Target != ""):
		return errors.New("want either a target or in_place")
	case r.Target != "" && !absolute(r.Target):
		return fmt.Errorf("target %q: want an absolute path that needs no cleaning", r.Target)
	case r.Created.IsZero() || !r.Expires.After(r.Created):
		return errors.New("expires is not after created")
	case r.Expires.Sub(r.Created) > MaxLife:
		return fmt.Errorf("valid for more than %s", MaxLife)
	}
	for i, p := range r.Paths {
		if !absolute(p) {
			return fmt.Errorf("path %q: want an absolute path that needs no cleaning", p)
		}
		if slices.Contains(r.Paths[:i], p) {
			return fmt.Errorf("path %q comes twice", p)
		}
	}
	return nil
}

// absolute reports whether a path says where it leads, and can be shown to a person as it is.
func absolute(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsFunc(p, func(c rune) bool { return c < ' ' || c == 0x7f })
}
