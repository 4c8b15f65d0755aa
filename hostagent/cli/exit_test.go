package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// TestExitCodes pins the codes that scripts rely on.
func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{objstore.ErrDenied, 1},
		{repository.ErrNoSnapshot, 1},
		{repository.ErrRepositoryExists, 1},
		{usagef("wrong"), 2},
		{hinted{usagef("wrong"), "right"}, 2},
		{outcome(3), 3},
		{&repository.DamageError{Key: "k", Err: errors.New("x")}, 4},
		{&repository.RollbackError{}, 4},
		{&copier.DivergedError{}, 4},
		{keyring.ErrSignature, 4},
		{snapshot.ErrFormat, 4},
		{prune.ErrBroken, 4},
		{repair.ErrDiverged, 4},
		{outcome(5), 5},
		{&retention.TooMany{Drop: 2, Total: 4}, 6},
		{repository.ErrNoRepository, 10},
		{repository.ErrUnfinished, 10},
		{repository.ErrCopyBegun, 10},
		{repository.ErrRemains, 4},
		{repository.ErrLocked, 11},
		{restorer.ErrBusy, 11},
		{keyring.ErrNoIdentity, 12},
		{keyring.ErrUntrusted, 12},
		{keyring.ErrPermissions, 12},
		{repository.ErrNoSigner, 12},
		{errNoIdentityFile, 12},
		{errNotSigner, 12},
		{identityError{errors.New("parse identity")}, 12},
		{identityError{&fs.PathError{Op: "open", Path: "identity", Err: syscall.EACCES}}, 12},
		{errAccessGone, 4},
		{errMissing, 4},
	} {
		if got, _ := code(t.Context(), tt.err); got != tt.want {
			t.Errorf("%v: code %d, want %d", tt.err, got, tt.want)
		}
		if _, ok := tt.err.(outcome); ok || tt.err == nil { //nolint:errorlint // as in code
			continue
		}
		wrapped := fmt.Errorf("do something: %w", tt.err)
		if got, _ := code(t.Context(), wrapped); got != tt.want {
			t.Errorf("%v, wrapped: code %d, want %d", tt.err, got, tt.want)
		}
	}
	locked, failed := fmt.Errorf("back up a: %w", repository.ErrLocked), errors.New("back up b: broken")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{together(nil), 0},
		{together(locked), 11},
		{together(locked, locked), 11},
		{together(locked, failed), 1},
		{together(failed, locked, locked), 1},
		{together(locked, keyring.ErrNoIdentity, locked), 1},
	} {
		if got, _ := code(t.Context(), tt.err); got != tt.want {
			t.Errorf("%v: code %d, want %d", tt.err, got, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _ := code(ctx, fmt.Errorf("read: %w", context.Canceled)); got != 130 {
		t.Errorf("interrupted: code %d, want 130", got)
	}
	if got, _ := code(ctx, errors.New("hook: signal: terminated")); got != 130 {
		t.Errorf("interrupted in a hook: code %d, want 130", got)
	}
	if got, _ := code(ctx, outcome(3)); got != 3 {
		t.Errorf("interrupted at the very end: code %d, want 3", got)
	}
	var out strings.Builder
	report(ctx, &out, fmt.Errorf("read: %w", context.Canceled), true)
	report(ctx, &out, errors.Join(errors.New("signal: terminated"), &afterError{errors.New("hook after: exit status 1")}), false)
	if want := `{"error":"interrupted","code":130}` + "\nerror: interrupted\nerror: hook after: exit status 1\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if got, _ := code(t.Context(), context.Canceled); got != 1 {
		t.Errorf("cancelled by something else: code %d, want 1", got)
	}
}

// TestLocalPermissions checks that the hint for a directory of this host is not about credentials.
func TestLocalPermissions(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("put x: %w: %w", objstore.ErrDenied, syscall.EACCES), fmt.Sprintf("uid %d may not do this there: run it as root or as the owner", os.Geteuid())},
		{fmt.Errorf("put x: %w: %w", objstore.ErrDenied, syscall.EROFS), "the file system there is mounted read-only"},
		{fmt.Errorf("put x: %w", objstore.ErrDenied), "the credentials do not allow this"},
		{fmt.Errorf("write journal: %w", syscall.ENOSPC), "make room on that file system; --state names another place for locks, caches and journals"},
		{&restorer.PlaceError{Operation: "make", Place: "/x", Err: syscall.EROFS}, "the file system there is mounted read-only"},
	} {
		if n, hint := code(t.Context(), tt.err); n != exitError || hint != tt.want {
			t.Errorf("%v: code %d, hint %q", tt.err, n, hint)
		}
	}
}

func TestFullCopy(t *testing.T) {
	for want, err := range map[string]error{
		"make room there; the same command goes on from where it stopped": copyError("/mnt", fmt.Errorf("put: %w", objstore.ErrFull)),
		"make room at the repository, or prune":                           fmt.Errorf("put: %w", objstore.ErrFull),
	} {
		if n, hint := code(t.Context(), err); n != exitError || hint != want {
			t.Errorf("%v: code %d, hint %q", err, n, hint)
		}
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		err    error
		asJSON bool
		want   string
	}{
		{nil, false, ""},
		{outcome(3), false, ""},
		{errors.New("read x: broken"), false, "error: read x: broken\n"},
		{hinted{errors.New("broken"), "mend it"}, false, "error: broken\nhint: mend it\n"},
		{errors.New("open; hint: chmod 600 x"), false, "error: open\nhint: chmod 600 x\n"},
		{errors.Join(errors.New("one"), errors.New("two")), false, "error: one\nerror: two\n"},
		{hinted{usagef("wrong"), "right"}, true, `{"error":"wrong","hint":"right","code":2}` + "\n"},
	} {
		var out strings.Builder
		report(t.Context(), &out, tt.err, tt.asJSON)
		if out.String() != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, out.String(), tt.want)
		}
	}
}
