package tail

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// Header reads the head of the database at path, whatever its journal mode. What is none is a [*StateError].
func Header(path string) (sqlite.Header, error) {
	f, _, err := open(path)
	if err != nil {
		return sqlite.Header{}, stateOf(path, err)
	}
	defer func() { _ = f.Close() }()
	return readHeader(path, f)
}

// stateOf says what an error of opening means.
func stateOf(path string, err error) *StateError {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &StateError{State: Missing, Path: path, Hint: "it is followed as soon as it is there"}
	case errors.Is(err, fs.ErrPermission):
		return &StateError{State: Unreadable, Path: path, Err: err, Hint: "let the agent's user read the file, its -wal and its -shm"}
	}
	if i, lookErr := look(path); lookErr == nil && i.mode&unix.S_IFMT != unix.S_IFREG {
		return &StateError{State: NotDatabase, Path: path, Err: err}
	}
	return &StateError{State: Unreadable, Path: path, Err: err}
}

func readHeader(path string, f *os.File) (sqlite.Header, error) {
	i, err := held(f)
	if err != nil {
		return sqlite.Header{}, stateOf(path, err)
	}
	head := make([]byte, 4<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return sqlite.Header{}, stateOf(path, err)
	}
	head = head[:n]
	state := &StateError{Path: path}
	h, err := sqlite.ParseHeader(head)
	switch sqlite.Identify(head, i.stamp.Size) {
	case sqlite.Database:
		return h, nil
	case sqlite.Empty:
		state.State, state.Hint = Empty, "it is followed as soon as the application has made a table"
	case sqlite.Encrypted:
		state.State, state.Hint = Encrypted, "back it up as a files source, by a hook that stops the application"
	case sqlite.Foreign:
		state.State, state.Hint = NotDatabase, "the file does not begin as an SQLite database does: look whether the path is right"
	case sqlite.Unsupported:
		state.State, state.Hint = Unsupported, "a newer version of this program may know it"
	case sqlite.Broken:
		state.State, state.Err, state.Hint = Corrupt, err, "restore it from a snapshot"
	}
	return h, state
}
