// Package state is what one host remembers between runs: which source is being backed up right now, and how far each
// source was when it was last seen, so that a repository that was rolled back is noticed. Use [Open].
//
// Losing the directory loses no data: locks vanish with their processes, and what was seen is learned again.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ErrLocked says that another process on this host works on the same source.
var ErrLocked = errors.New("another run of this source is going on")

// Dir is the state directory. Its methods are safe for concurrent use, also by several processes.
type Dir struct{ path string }

// Open makes the directory where needed; it is readable by its owner only.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	return &Dir{path: path}, nil
}

// Path is where others may keep rebuildable files about a source; the directory is made if it is not there.
func (d *Dir) Path(repo snapshot.RepositoryID, src snapshot.Source) (string, error) {
	if err := src.Check(); err != nil {
		return "", err
	}
	dir := filepath.Join(d.path, repo.String(), src.Host, src.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("open state of %s: %w", src, err)
	}
	return dir, nil
}

// Lock is held by one process; it ends with [Lock.Unlock] or with the process, however that ends.
type Lock struct{ f *os.File }

// Lock takes the lock of one source, or returns [ErrLocked] at once.
func (d *Dir) Lock(repo snapshot.RepositoryID, src snapshot.Source) (*Lock, error) {
	dir, err := d.Path(repo, src)
	if err != nil {
		return nil, err
	}
	// The file stays: removing it would let two processes hold locks on two files of the same name.
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", src, err)
	}
	if err := flock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", src, err)
		}
		return nil, fmt.Errorf("lock %s%s: %w", src, holder(f), ErrLocked)
	}
	// The number only explains the lock to people; nothing depends on it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f: f}, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// holder names the process that holds the lock, if it can be told.
func holder(f *os.File) string {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (held by process %d)", pid)
}

// Unlock gives the lock back.
func (l *Lock) Unlock() error { return l.f.Close() }

// Seen is the newest snapshot of a source that this host knows.
type Seen struct {
	Sequence uint64        `json:"sequence"`
	Manifest snapshot.Hash `json:"-"` // SHA-256 of the manifest's bytes
}

// seenFile is Seen as it is kept.
type seenFile struct {
	Sequence uint64 `json:"sequence"`
	Manifest string `json:"manifest"`
}

// Seen returns what was last seen of a source; ok is false if nothing was yet.
func (d *Dir) Seen(repo snapshot.RepositoryID, src snapshot.Source) (seen Seen, ok bool, err error) {
	if err := src.Check(); err != nil {
		return Seen{}, false, err
	}
	b, err := os.ReadFile(filepath.Join(d.path, repo.String(), src.Host, src.Name, "seen.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Seen{}, false, nil
	}
	if err != nil {
		return Seen{}, false, fmt.Errorf("read what was seen of %s: %w", src, err)
	}
	var f seenFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Seen{}, false, fmt.Errorf("read what was seen of %s: %w", src, err)
	}
	hash, err := layout.ParseHash(f.Manifest)
	if err != nil {
		return Seen{}, false, fmt.Errorf("read what was seen of %s: %w", src, err)
	}
	return Seen{Sequence: f.Sequence, Manifest: hash}, true, nil
}

// See remembers seen, unless something newer is remembered already. A crash leaves the old or the new, never half.
func (d *Dir) See(repo snapshot.RepositoryID, src snapshot.Source, seen Seen) error {
	if old, ok, err := d.Seen(repo, src); err == nil && ok && old.Sequence >= seen.Sequence {
		return nil
	}
	dir, err := d.Path(repo, src)
	if err != nil {
		return err
	}
	b, err := json.Marshal(seenFile{seen.Sequence, seen.Manifest.String()})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "seen.json"), append(b, '\n'))
}

// Forget drops what was seen of a source, after its owner has accepted a repository that ends earlier.
func (d *Dir) Forget(repo snapshot.RepositoryID, src snapshot.Source) error {
	if err := src.Check(); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(d.path, repo.String(), src.Host, src.Name, "seen.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was seen of %s: %w", src, err)
	}
	return nil
}

// writeFile replaces a file in one step.
func writeFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := bytes.NewReader(b).WriteTo(f); err != nil {
		return err
	}
	// A crash after the rename must not show an empty file.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
