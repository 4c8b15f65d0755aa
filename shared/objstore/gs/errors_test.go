package gs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"google.golang.org/api/googleapi"

	"github.com/btcdecoded/holdfast/shared/objstore"
)

func TestErrors(t *testing.T) {
	s := &Store{name: "bucket"}
	answer := func(code int, reason string) error {
		return &googleapi.Error{Code: code, Errors: []googleapi.ErrorItem{{Reason: reason}}}
	}
	for _, c := range []struct {
		err       error
		want      error // nil: none of the contract's
		transient bool
	}{
		{answer(403, "forbidden"), objstore.ErrDenied, false},
		{answer(401, "required"), objstore.ErrDenied, false},
		{answer(403, "retentionPolicyNotMet"), objstore.ErrLocked, false},
		{answer(403, "objectUnderActiveHold"), objstore.ErrLocked, false},
		{answer(403, "rateLimitExceeded"), nil, true},
		{answer(429, ""), nil, true},
		{answer(408, ""), nil, true},
		{answer(500, ""), nil, true},
		{answer(501, ""), nil, false},
		{answer(404, "notFound"), nil, false},
		{answer(507, ""), objstore.ErrFull, false},
		{&googleapi.Error{Code: 400, Message: `Provided CRC32C "x" doesn't match`}, objstore.ErrChecksum, false},
		{answer(400, "invalid"), nil, false},
		{&net.DNSError{IsNotFound: true}, nil, false},
		{&net.DNSError{IsTemporary: true}, nil, true},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, nil, true},
		{errors.New("other"), nil, false},
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
	if err := s.wrap(ctx, "get", "k", answer(500, "")); !errors.Is(err, context.Canceled) || objstore.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}
