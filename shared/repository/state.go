package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ErrLocked says that another run of the same source is at work on this host.
var ErrLocked = errors.New("another run of this source is at work")

// state is what a host keeps between runs of one source, in a directory of its own: the keys of the chain, so that a
// host without an identity can go on with it; the parent's tree; what an interrupted run had stored. Everything in it
// can be lost: the next run begins a new chain, or reads the repository where it may.
//
// The lock is the kernel's (flock): it goes with the process, so a crash leaves nothing to clean up.
type state struct {
	dir    string
	lock   *os.File
	tables []*diskTable
}

// chainState is the data key of a chain; the file is readable by its owner only.
type chainState struct {
	Chain   string             `json:"chain"`
	Key     []byte             `json:"key"` // 32 bytes
	Wrapped []snapshot.Wrapped `json:"wrapped"`
	Signer  string             `json:"signer"` // of the key objects
	Begun   time.Time          `json:"begun"`

	Sequence uint64 `json:"sequence"` // of the full that begins it
}

// lastSeen is the newest snapshot that this host knows of, to notice a rollback.
type lastSeen struct {
	Sequence uint64 `json:"sequence"`
	Manifest string `json:"manifest"` // hex SHA-256 of the manifest object
	Access   uint64 `json:"access"`   // highest number of an access document
}

const (
	chainFile   = "chain.json"   // of the newest committed snapshot
	pendingFile = "pending.json" // of a full that has not been committed
	lastFile    = "last.json"
	journalFile = "journal"
	parentFile  = "parent"
	// The tree of an unfinished snapshot: the run that wrote it still reads parentFile.
	unfinishedFile = "unfinished"
	mapsFile       = "maps"
	pagesFile      = "pages"
)

// openState takes the lock of a source's state directory. Errors: ErrLocked.
func openState(root string, repo snapshot.RepositoryID, src snapshot.Source) (*state, error) {
	dir := filepath.Join(root, repo.String(), src.Host, src.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, src)
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &state{dir: dir, lock: lock}, nil
}

// close gives up the tables and the lock.
func (s *state) close() error {
	for _, t := range s.tables {
		t.close()
	}
	return s.lock.Close()
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// load decodes the JSON file name into v. It reports false where there is none, or where it is no use: state can be
// lost, so a damaged file counts as lost.
func (s *state) load(name string, v any) bool {
	b, err := os.ReadFile(s.path(name))
	return err == nil && openLine(bytes.TrimSuffix(b, []byte("\n")), v)
}

// sealedLine is v as a line of a state file: JSON and a sum of it. A single wrong bit in a key, or in the salt of a
// pack, would pass as JSON and go into a snapshot that nobody could ever read.
func sealedLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(b, lineSum(b)...), nil
}

// openLine decodes a line, without its end, into v. It reports false if it is not what was written.
func openLine(line []byte, v any) bool {
	n := len(line) - lineSumSize
	return n > 0 && string(line[n:]) == lineSum(line[:n]) && json.Unmarshal(line[:n], v) == nil
}

// lineSumSize is the length of what follows the JSON in a line: a space and 32 hex digits.
const lineSumSize = 1 + 32

func lineSum(b []byte) string {
	sum := sha256.Sum256(b)
	return " " + hex.EncodeToString(sum[:16])
}

// save writes v to the JSON file name, atomically and durably.
func (s *state) save(name string, v any) error {
	b, err := sealedLine(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	f, err := os.OpenFile(s.path(name+".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(f.Name(), s.path(name)); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (s *state) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// LastSeen returns the newest snapshot of a source that this host's state knows of, for rollback checks.
func LastSeen(stateRoot string, repo snapshot.RepositoryID, src snapshot.Source) (sequence uint64, manifest snapshot.Hash, ok bool) {
	s := &state{dir: filepath.Join(stateRoot, repo.String(), src.Host, src.Name)}
	var last lastSeen
	if !s.load(lastFile, &last) {
		return 0, snapshot.Hash{}, false
	}
	h, err := layout.ParseHash(last.Manifest)
	return last.Sequence, h, err == nil
}
