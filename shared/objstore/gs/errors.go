package gs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"google.golang.org/api/googleapi"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// wrap gives an error of the library its operation and object, and the contract's meaning.
func (s *Store) wrap(ctx context.Context, op, key string, err error) error {
	object := fmt.Sprintf("gs://%s/%s%s", s.name, s.prefix, key)
	switch kind := classify(err); {
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", op, object, ctx.Err())
	case kind != nil:
		return fmt.Errorf("%s %s: %w: %w", op, object, kind, err)
	case transient(err):
		return fmt.Errorf("%s %s: %w", op, object, objstore.Transient(err))
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

// status returns the HTTP status of the answer that err is, or 0.
func status(err error) int {
	var answer *googleapi.Error
	if errors.As(err, &answer) {
		return answer.Code
	}
	return 0
}

// classify returns the contract's error for err, or nil if it has none. Reasons are those of
// https://cloud.google.com/storage/docs/json_api/v1/status-codes.
func classify(err error) error {
	if errors.Is(err, objstore.ErrNotExist) {
		return objstore.ErrNotExist
	}
	var answer *googleapi.Error
	if !errors.As(err, &answer) {
		return nil
	}
	switch answer.Code {
	case http.StatusUnauthorized:
		return objstore.ErrDenied
	case http.StatusForbidden:
		for _, e := range answer.Errors {
			switch e.Reason {
			case "retentionPolicyNotMet", "objectUnderActiveHold", "objectRetained":
				return objstore.ErrLocked
			case "rateLimitExceeded", "userRateLimitExceeded":
				return nil
			}
		}
		return objstore.ErrDenied
	case http.StatusBadRequest:
		text := strings.ToLower(answer.Message + answer.Body)
		if strings.Contains(text, "crc32c") || strings.Contains(text, "md5") {
			return objstore.ErrChecksum
		}
	case http.StatusInsufficientStorage:
		return objstore.ErrFull
	}
	return nil
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var name *net.DNSError
	if errors.As(err, &name) {
		return !name.IsNotFound
	}
	switch s := status(err); {
	case s == http.StatusForbidden: // only rate limits come here, see classify
		return true
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500:
		return s != http.StatusNotImplemented
	case s != 0:
		return false
	}
	if tokenTrouble(err) {
		return true
	}
	var op *net.OpError
	var timeout net.Error
	return errors.As(err, &op) || errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "http2: ")
}

// tokenTrouble reports whether what keeps the library from an access token may pass. Its errors say so themselves for
// some statuses; for others, and where the connection failed, nothing but their words is left.
func tokenTrouble(err error) bool {
	var temporary interface{ Temporary() bool }
	if errors.As(err, &temporary) && temporary.Temporary() {
		return true
	}
	text := err.Error()
	if strings.Contains(text, "oauth2: cannot fetch token: Post ") {
		return !strings.Contains(text, "x509: ") && !strings.Contains(text, "no such host")
	}
	return strings.Contains(text, "oauth2: cannot fetch token: 5") || strings.Contains(text, "oauth2/google: status code 5")
}
