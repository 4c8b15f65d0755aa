package replicate

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLocked wants that a lock ends with its closing, also where a program that is being started just then has all files of
// this process open as well.
func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if Followed(dir) {
		t.Error("nobody has been here")
	}
	held, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !Followed(dir) {
		t.Error("the lock is not seen")
	}
	if _, err := Lock(dir); !errors.Is(err, ErrFollowed) {
		t.Errorf("the second: %v", err)
	}
	started, err := unix.Dup(int(held.f.Fd())) // what a new process gets is the same
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(started) }()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if Followed(dir) {
		t.Error("the lock lives on")
	}
	if held, err = Lock(dir); err != nil {
		t.Fatal(err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
}
