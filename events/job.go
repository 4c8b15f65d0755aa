package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// JobKind is what a job asks for.
type JobKind string

// The kinds of jobs.
const (
	Backup  JobKind = "backup"
	Verify  JobKind = "verify"
	Restore JobKind = "restore"
)

// Job is an order to one host. It has no hook, no command and no path: what is done, and how, stands in the policy file
// of the host.
//
// The id of a backup is derived from what it is for (see [JobID]): the same run asked for twice has the same id, and the
// agent's journal drops the second. Attempt counts how often a run that was lost or failed was asked for anew; each
// attempt has an id of its own (see [RetryID]).
type Job struct {
	Version  int           `json:"version"`
	ID       string        `json:"id"`
	Host     string        `json:"host"`
	Source   string        `json:"source"` // name on the host; empty in restores that say it in their request
	Kind     JobKind       `json:"kind"`
	Type     string        `json:"type,omitempty"`    // backups: full, differential, incremental; verify: the level
	Attempt  int           `json:"attempt,omitempty"` // 0: the first
	Due      time.Time     `json:"due"`
	NotAfter time.Time     `json:"not_after"` // when it has not begun by then, it is stale and refused; at most MaxAhead away
	Restore  *RestoreOrder `json:"restore,omitempty"`
}

// RestoreOrder is a request to restore and the approvals that its policy asks for. The agent checks them; the control
// plane only carries them.
type RestoreOrder struct {
	Request    []byte      `json:"request"` // the exact bytes that were signed
	Signatures []Signature `json:"signatures"`
}

// Signature is one approver's signature over the bytes of a request.
type Signature struct {
	Signer    string `json:"signer"`
	Signature string `json:"signature"` // base64
}

// RefuseCode says why a job was refused.
type RefuseCode string

// The reasons for refusing a job.
const (
	Malformed     RefuseCode = "malformed"      // not a job of this version
	Stale         RefuseCode = "stale"          // past its not_after
	Foreign       RefuseCode = "foreign"        // for another host
	Duplicate     RefuseCode = "duplicate"      // the journal has it already
	UnknownSource RefuseCode = "unknown_source" // not in the policy of the host
	NotAllowed    RefuseCode = "not_allowed"    // the policy of the host does not allow it
	Forged        RefuseCode = "forged"         // a signature is missing or wrong
)

// MaxAhead is how far away the not_after of a job may be. Its id is remembered until then, so that its message can't come
// again: one in the year 9999 would be for ever.
const MaxAhead = 45 * 24 * time.Hour

// CheckTime says whether the job may be taken at now. Its error is a [*RefusedError]: of code [Stale] past its not_after,
// and of code [Malformed] where that is further away than [MaxAhead].
func (j *Job) CheckTime(now time.Time) error {
	switch {
	case now.After(j.NotAfter):
		return &RefusedError{Code: Stale, Reason: "not_after was " + j.NotAfter.UTC().Format(time.RFC3339)}
	case j.NotAfter.Sub(now) > MaxAhead:
		return malformed("not_after is more than %d days away", int(MaxAhead.Hours()/24))
	}
	return nil
}

// RefusedError says why a job is refused.
type RefusedError struct {
	Code   RefuseCode
	Reason string // without content of the message beyond short names
}

func (e *RefusedError) Error() string { return "job refused as " + string(e.Code) + ": " + e.Reason }

// EncodeJob writes the body of a message.
func EncodeJob(j *Job) ([]byte, error) {
	data, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encode job %s: %w", j.ID, err)
	}
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("encode job %s: %w", j.ID, ErrSize)
	}
	return data, nil
}

// DecodeJob reads the body of a message strictly. Every error is a [*RefusedError] of code [Malformed]. Whether the job
// is stale, foreign, a duplicate or allowed is for the agent to say.
func DecodeJob(data []byte) (*Job, error) {
	if len(data) > MaxMessage {
		return nil, malformed("%d bytes are more than %d", len(data), MaxMessage)
	}
	if err := uniqueMembers(data); err != nil {
		return nil, malformed("%v", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	j := &Job{}
	if err := d.Decode(j); err != nil {
		return nil, malformed("%v", brief(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("something follows the job")
	}
	if err := j.check(); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *Job) check() error {
	switch {
	case j.Version != Version:
		return malformed("version %d, not %d", j.Version, Version)
	case !IsID(j.ID):
		return malformed("id is not 32 lower-case hexadecimal digits")
	case !isName(j.Host):
		return malformed("host is not a name")
	case j.Source != "" && !isName(j.Source):
		return malformed("source is not a name")
	case j.Due.IsZero() || j.NotAfter.IsZero():
		return malformed("no due or no not_after")
	case j.NotAfter.Before(j.Due):
		return malformed("not_after is before due")
	case j.Attempt < 0:
		return malformed("attempt is negative")
	case (j.Restore != nil) != (j.Kind == Restore):
		return malformed("a restore order belongs into jobs of kind restore, and only there")
	}
	return j.checkKind()
}

func (j *Job) checkKind() error {
	switch j.Kind {
	case Backup:
		if j.Type != "full" && j.Type != "differential" && j.Type != "incremental" {
			return malformed("type of a backup is not full, differential or incremental")
		}
	case Verify:
		if j.Type != "structure" && j.Type != "bytes" && j.Type != "content" && j.Type != "restore" {
			return malformed("type of a verification is not structure, bytes, content or restore")
		}
	case Restore:
		if j.Type != "" {
			return malformed("a restore has no type")
		}
		if len(j.Restore.Request) == 0 || len(j.Restore.Signatures) == 0 {
			return malformed("a restore without request or signatures")
		}
		return nil
	default:
		return malformed("unknown kind")
	}
	if j.Source == "" {
		return malformed("no source")
	}
	return nil
}

func malformed(format string, args ...any) error {
	return &RefusedError{Code: Malformed, Reason: fmt.Sprintf(format, args...)}
}

// brief cuts an error's text, which may repeat what somebody sent.
func brief(err error) string {
	const limit = 120
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > limit {
		return strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// uniqueMembers refuses objects that have a member twice, or in another case than ours: which of two counts must not
// depend on who reads it.
func uniqueMembers(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	_, err := members(d, 0)
	return err
}

// members reads one value; it returns no error where the syntax is wrong, which the decoder reports better.
func members(d *json.Decoder, depth int) (ok bool, err error) {
	t, terr := d.Token()
	if terr != nil {
		return false, nil //nolint:nilerr // see above
	}
	delim, isDelim := t.(json.Delim)
	if !isDelim {
		return true, nil
	}
	if depth > 8 {
		return false, errors.New("nested too deep")
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			name, terr := d.Token()
			if terr != nil {
				return false, nil //nolint:nilerr // see above
			}
			key, _ := name.(string)
			if seen[key] {
				return false, errors.New("a member is there twice")
			}
			if strings.ToLower(key) != key {
				return false, errors.New("a member has upper-case letters")
			}
			seen[key] = true
		}
		if ok, err := members(d, depth+1); !ok {
			return false, err
		}
	}
	_, terr = d.Token()
	return terr == nil, nil
}

// isName reports whether s can be the name of a host or a source: docs/format.md, "Names".
func isName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i, c := range []byte(s) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '-' && c != '.' && c != '_') {
			return false
		}
	}
	return true
}

// IsID reports whether s has the form of a job's id.
func IsID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// JobID derives the id of a job from what it is for: 32 hexadecimal digits. policy names the policy, not its revision
// (package schedule says how): a policy that is edited between a crash and its repetition must not make a second
// backup. source is "host/source"; due is exact to the second.
func JobID(policy, source string, due time.Time, kind, typ string) string {
	return digest("holdfast job 1", policy, source, due.UTC().Format(time.RFC3339), kind, typ)
}

// RetryID derives the id of another attempt at a job from the id of the first; attempt 0 is the first itself.
func RetryID(first string, attempt int) string {
	if attempt == 0 {
		return first
	}
	return digest("holdfast retry 1", first, strconv.Itoa(attempt))
}

// digest hashes the parts so that no two lists of parts look alike.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
