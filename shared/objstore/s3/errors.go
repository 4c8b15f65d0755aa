package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

// wrap gives an error of the AWS library its operation and object, and the contract's meaning.
func (s *Store) wrap(ctx context.Context, op, key string, err error) error {
	object := fmt.Sprintf("s3://%s/%s%s", s.bucket, s.prefix, key)
	switch kind := classify(err); {
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", op, object, ctx.Err())
	case broken(err):
		return fmt.Errorf("%s %s: %w", op, object, objstore.Transient(err))
	case kind != nil:
		return fmt.Errorf("%s %s: %w: %w", op, object, kind, err)
	case transient(err):
		return fmt.Errorf("%s %s: %w", op, object, objstore.Transient(err))
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

// status returns the HTTP status of the answer that err is, or 0.
func status(err error) int {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// code returns the code and the message of the server's error, see
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
func code(err error) (string, string) {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode(), api.ErrorMessage()
	}
	return "", ""
}

// classify returns the contract's error for err, or nil if it has none.
func classify(err error) error {
	code, message := code(err)
	switch code {
	case "NoSuchKey", "NotFound":
		return objstore.ErrNotExist
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return objstore.ErrChecksum
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage":
		return objstore.ErrFull
	case "InvalidObjectState":
		return objstore.ErrArchived // of a Get; nothing else that this package asks for has it
	case "ObjectLocked":
		return objstore.ErrLocked
	case "AccessDenied":
		// The code is that of missing permissions; only the words tell them apart.
		if strings.Contains(strings.ToLower(message), "object lock") {
			return objstore.ErrLocked
		}
		return objstore.ErrDenied
	case "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken",
		"ExpiredToken", "Forbidden", "RequestTimeTooSkewed":
		return objstore.ErrDenied
	case "NoSuchBucket":
		return nil // not the same as an object that is not there
	}
	switch status(err) {
	case http.StatusNotFound:
		if code == "" {
			return objstore.ErrNotExist
		}
	case http.StatusForbidden, http.StatusUnauthorized:
		return objstore.ErrDenied
	case http.StatusInsufficientStorage:
		return objstore.ErrFull
	}
	return nil
}

// broken reports whether the server's answer broke off, so that its status is all that is known of it, or less.
func broken(err error) bool {
	var decode *smithy.DeserializationError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.As(err, &decode) && status(err) < 300
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var certificate *tls.CertificateVerificationError
	var name *net.DNSError
	switch {
	case errors.As(err, &certificate):
		return false
	case errors.As(err, &name):
		return !name.IsNotFound
	}
	switch s := status(err); {
	case s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s == http.StatusConflict:
		return true
	case s >= 500:
		return s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported
	case s != 0:
		return throttled(err)
	}
	var send *smithyhttp.RequestSendError
	var network net.Error
	return errors.As(err, &send) || errors.As(err, &network) || throttled(err)
}

// throttled asks the AWS library, which knows the codes of throttling and of passing trouble.
func throttled(err error) bool {
	for _, r := range retry.DefaultRetryables {
		if r.IsErrorRetryable(err) == aws.TrueTernary {
			return true
		}
	}
	return false
}
