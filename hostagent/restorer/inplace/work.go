package inplace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// Work is the working directory of a restore, ".NAME.holdfast-restore" beside its place. It is locked against another restore
// to the place; the kernel drops the lock with the process.
type Work struct {
	Path string
	lock *os.File
}

// WorkOf is the path of the working directory of a place.
func WorkOf(place string) string {
	return filepath.Join(filepath.Dir(place), "."+filepath.Base(place)+".holdfast-restore")
}

// OpenWork makes the working directory of a place, or takes over what a restore left that died. Errors: [ErrBusy], those of
// the system.
func OpenWork(place string, mode fs.FileMode) (*Work, error) {
	path := WorkOf(place)
	for range 10 {
		err := os.Mkdir(path, mode)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err == nil {
			_ = os.Chmod(path, mode) // what the umask has taken away: a server runs in it as another user
		}
		lock, err := scratch.Lock(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // the restore before us has just ended
		case errors.Is(err, scratch.ErrLocked):
			return nil, ErrBusy
		case err != nil:
			return nil, err
		}
		return &Work{path, lock}, nil
	}
	return nil, ErrBusy
}

// Join is the path of something in it.
func (w *Work) Join(name string) string { return filepath.Join(w.Path, name) }

// Clear removes what it holds.
func (w *Work) Clear() error {
	list, err := os.ReadDir(w.Path)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(w.Join(e.Name())))
	}
	return err
}

// Remove removes it. What stays after an error is taken over by the next restore to this place.
func (w *Work) Remove() error {
	err := w.Clear()
	if err == nil {
		err = os.Remove(w.Path)
	}
	return errors.Join(err, w.lock.Close())
}

// Leave leaves it as it is, for the next restore to this place.
func (w *Work) Leave() { _ = w.lock.Close() } // only a lock

// markerName is the file in which a restore says what it is about to do with the place.
const markerName = "marker.json"

// Marker is the path of the marker.
func (w *Work) Marker() string { return w.Join(markerName) }

// Mark writes the marker, which is durable then.
func (w *Work) Mark(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	fresh := w.Join(markerName + ".new")
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, w.Marker()); err != nil {
		return err
	}
	return Sync(w.Path)
}

// Marked reads the marker into v; false: there is none, and the restore died before it touched the place.
func (w *Work) Marked(v any) (bool, error) {
	b, err := os.ReadFile(w.Marker())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s: %w: %w", w.Marker(), ErrMoved, err)
	}
	return true, nil
}
