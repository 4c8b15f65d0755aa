package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

func TestErrors(t *testing.T) {
	s := &Store{bucket: "bucket"}
	answer := func(status int, code, message string) error {
		return &smithy.OperationError{Err: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
			Err:      &smithy.GenericAPIError{Code: code, Message: message},
		}}
	}
	for _, c := range []struct {
		err       error
		want      error // nil: none of the contract's
		transient bool
	}{
		{answer(404, "NoSuchKey", ""), objstore.ErrNotExist, false},
		{answer(404, "NotFound", ""), objstore.ErrNotExist, false},
		{answer(404, "NoSuchBucket", ""), nil, false},
		{answer(403, "AccessDenied", "Access Denied"), objstore.ErrDenied, false},
		{answer(403, "InvalidObjectState", "The operation is not valid for the object's storage class"), objstore.ErrArchived, false},
		{answer(403, "Whatever", ""), objstore.ErrDenied, false},
		{answer(403, "AccessDenied", "Access Denied because object protected by object lock."), objstore.ErrLocked, false},
		{answer(400, "ObjectLocked", ""), objstore.ErrLocked, false},
		{answer(400, "BadDigest", ""), objstore.ErrChecksum, false},
		{answer(400, "XAmzContentSHA256Mismatch", ""), objstore.ErrChecksum, false},
		{answer(507, "XMinioStorageFull", ""), objstore.ErrFull, false},
		{answer(400, "ExpiredToken", ""), objstore.ErrDenied, false},
		{answer(400, "InvalidArgument", ""), nil, false},
		{answer(400, "RequestTimeout", ""), nil, true},
		{answer(503, "SlowDown", ""), nil, true},
		{answer(500, "InternalError", ""), nil, true},
		{answer(409, "OperationAborted", ""), nil, true},
		{answer(429, "", ""), nil, true},
		{answer(501, "NotImplemented", ""), nil, false},
		{&smithyhttp.RequestSendError{Err: io.EOF}, nil, true},
		{&smithyhttp.RequestSendError{Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}, nil, false},
		{&smithyhttp.RequestSendError{Err: &net.DNSError{IsNotFound: true}}, nil, false},
		{&smithyhttp.RequestSendError{Err: &net.DNSError{IsTimeout: true}}, nil, true},
		{io.ErrUnexpectedEOF, nil, true},
		{errors.New("no credentials"), nil, false},
	} {
		got := s.wrap(t.Context(), "put", "k", fmt.Errorf("wrapped: %w", c.err))
		if objstore.IsTransient(got) != c.transient {
			t.Errorf("%v: transient is %v", got, !c.transient)
		}
		for _, e := range []error{objstore.ErrDenied, objstore.ErrLocked, objstore.ErrFull, objstore.ErrChecksum, objstore.ErrNotExist} {
			if errors.Is(got, e) != (e == c.want) { //nolint:errorlint // the table's own values
				t.Errorf("%v: is %v: %v", c.err, e, errors.Is(got, e))
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.wrap(ctx, "get", "k", answer(500, "", "")); !errors.Is(err, context.Canceled) || objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

func TestByteRange(t *testing.T) {
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, ""}, {5, -1, "bytes=5-"}, {0, 1, "bytes=0-0"}, {5, 10, "bytes=5-14"}, {5, 1<<63 - 1, "bytes=5-"},
	} {
		got := byteRange(c.offset, c.length)
		if c.want == "" && got != nil || c.want != "" && (got == nil || *got != c.want) {
			t.Errorf("%d+%d: got %v, want %q", c.offset, c.length, got, c.want)
		}
	}
}
